"""What a model makes of a store's images, computed once and kept beside it under the model's fingerprint.

``FOLDER/codes/FINGERPRINT/train-00000.npy``: VQ ids [rows, 2, S] of the image and, for an edit, of its source.
``FOLDER/features/FINGERPRINT/...``: what the understanding encoder sees [rows, D]: how alike two images look.
The files are mapped, not read: 576 ids of an image are 1.2 kB on disk and nothing in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from janus_r1.data.store import Store
from janus_r1.errors import UserError
from janus_r1.files import write_atomically
from janus_r1.images import decode_image, square
from janus_r1.model.janus import Janus, from_uint8
from janus_r1.progress import reporter
from janus_r1.reading import open_regular

ENCODED = 32  # images at once
DECODERS = 4  # threads that decode files beside the model; Pillow and numpy let them run side by side
OPEN_FILES = 16


def fitted(data: bytes, size: int, edit: bool) -> np.ndarray:
    """An image file as the model learns it: uint8 [size, size, 3].

    The middle square of it, for a model that learns grey borders will draw them. Edits keep all of the picture between
    grey borders, as the sources of ``janus-r1 edit`` do: source and result must lie alike.
    """
    pixels = decode_image(data, "the image")
    return square(pixels, size) if edit else middle(pixels, size)


def middle(pixels: np.ndarray, size: int) -> np.ndarray:
    """Shorter side to ``size``, then the middle square: uint8 [size, size, 3]."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    image = Image.fromarray(pixels)
    if (width, height) != (size, size):
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    return np.asarray(image)


class PerImage:
    """An array for every row of a store; missing shards are computed when this is made.

    Raises:
        UserError: for a shard of another shape, or when the disk refuses.
    """

    name: str
    """Of the folder, and in messages."""
    sources = False
    """Whether a row has a second array, of its source image; zeros where there is none."""

    def __init__(self, store: Store, model: Janus, fingerprint: str, shape: tuple[int, ...], dtype: type) -> None:
        """``shape`` and ``dtype``: of a row."""
        self.store, self.shape, self.dtype = store, shape, np.dtype(dtype)
        self.paths = [_path(shard.path, self.name, fingerprint) for shard in store.shards]
        missing = [number for number, path in enumerate(self.paths) if not path.exists()]
        self._open: dict[int, np.ndarray] = {}
        if missing:
            progress = reporter(f"image {self.name}", 0, len(missing), "shard")
            for done, number in enumerate(missing, 1):
                self._write(number, model)
                progress.update(done, {"images": store.firsts[number + 1] - store.firsts[number]})
            progress.stop()

    def encode(self, model: Janus, images: torch.Tensor) -> np.ndarray:
        """Of images [B, 3, H, W]: a row's array, or one of its two, for each."""
        raise NotImplementedError

    def row(self, index: int) -> np.ndarray:
        number, row = self.store.place(index)
        if number not in self._open:
            if len(self._open) >= OPEN_FILES:
                self._open.pop(next(iter(self._open)))
            self._open[number] = self._mapped(number)
        return self._open[number][row]

    def _mapped(self, number: int) -> np.ndarray:
        path, rows = self.paths[number], self.store.shards[number].rows
        open_regular(path).close()  # a pipe is never waited for
        try:
            kept = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path} is not a whole file of image {self.name}: {error}; delete it") from None
        if not isinstance(kept, np.ndarray) or kept.dtype.kind != self.dtype.kind or kept.shape != (rows, *self.shape):
            raise UserError(f"{path} does not hold the {self.name} of its shard's {rows} images: delete it")
        return kept

    def _write(self, number: int, model: Janus) -> None:
        """One shard; the file appears whole or not at all."""
        first, last = self.store.firsts[number : number + 2]
        kept = np.zeros((last - first, *self.shape), self.dtype)
        for rows, pixels in _batches(self.store, first, last, model.image_size, self.sources):
            with torch.no_grad():
                made = self.encode(model, from_uint8(pixels).to(model.device))
            for (row, role), own in zip(rows, made, strict=True):
                kept[(row - first, role) if self.sources else row - first] = own

        def write(temporary: Path) -> None:
            with temporary.open("wb") as stream:
                np.save(stream, kept)

        write_atomically(self.paths[number], write, "file")


class Codes(PerImage):
    """The VQ ids of every row. Raises UserError as :class:`PerImage`, and for ids that the model lacks."""

    name, sources = "codes", True

    def __init__(self, store: Store, model: Janus) -> None:
        self.codes = model.codes
        dtype = np.uint16 if model.codes <= 1 << 16 else np.uint32
        super().__init__(store, model, model.image_tokenizer_hash(), (2, model.image_tokens), dtype)

    def encode(self, model: Janus, images: torch.Tensor) -> np.ndarray:
        return model.encode_image(images).cpu().numpy()

    def image(self, index: int) -> tuple[int, ...]:
        """VQ ids of a row's image."""
        return self._ids(index, 0)

    def source(self, index: int) -> tuple[int, ...]:
        """VQ ids of a row's source image; zeros where there is none."""
        return self._ids(index, 1)

    def _ids(self, index: int, role: int) -> tuple[int, ...]:
        found = self.row(index)
        if int(found.max()) >= self.codes:
            raise UserError(f"{self.paths[self.store.place(index)[0]]} holds codes that the model lacks: delete it")
        return tuple(found[role].tolist())


class Features(PerImage):
    """What the understanding encoder sees in every row's image, its places averaged: [D], of length 1."""

    name = "features"

    def __init__(self, store: Store, model: Janus) -> None:
        width = model.config.vision_config.hidden_size
        super().__init__(store, model, model.understanding_hash(), (width,), np.float16)

    def encode(self, model: Janus, images: torch.Tensor) -> np.ndarray:
        seen = model.vision(images.to(next(model.vision.parameters()).dtype)).last_hidden_state.float().mean(1)
        return torch.nn.functional.normalize(seen, dim=-1).cpu().numpy()

    def nearest(self, index: int, others: Sequence[int]) -> int:
        """Of ``others`` the row whose image looks most like that of row ``index``."""
        own = self.row(index).astype(np.float32)
        return max(others, key=lambda other: float(own @ self.row(other).astype(np.float32)))


def _path(shard: Path, name: str, fingerprint: str) -> Path:
    return shard.parent.parent / name / fingerprint / shard.with_suffix(".npy").name


def _batches(
    store: Store, first: int, last: int, size: int, sources: bool
) -> Iterator[tuple[list[tuple[int, int]], np.ndarray]]:
    """(row, role) and pixels [B, size, size, 3]; role 0 is the image and 1 its source. Files are decoded by threads."""
    with ThreadPoolExecutor(DECODERS) as pool:
        rows: list[tuple[int, int]] = []
        files: list[tuple[bytes, bool]] = []
        for index in range(first, last):
            record = store[index]
            edit = record.source_image is not None
            rows.append((index, 0))
            files.append((record.image, edit))
            if sources and record.source_image is not None:
                rows.append((index, 1))
                files.append((record.source_image, True))
            if len(rows) >= ENCODED or index == last - 1:
                yield rows, np.stack(list(pool.map(lambda one: fitted(one[0], size, one[1]), files)))
                rows, files = [], []
