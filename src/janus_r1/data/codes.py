"""VQ ids of a store's images, computed once and kept beside it under the image tokenizer's fingerprint.

``FOLDER/codes/FINGERPRINT/train-00000.npy``: [rows, 2, S] of the image and, for an edit, of its source. The files are
mapped, not read: 576 ids of an image are 1.2 kB on disk and nothing in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
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


class Codes:
    """The ids of every row of a store; missing shards are computed when this is made.

    Raises:
        UserError: for a shard of another length, or when the disk refuses.
    """

    def __init__(self, store: Store, model: Janus) -> None:
        self.store, own = store, model.image_tokenizer_hash()
        self.tokens, self.codes = model.image_tokens, model.codes
        self.paths = [_path(shard.path, own) for shard in store.shards]
        missing = [number for number, path in enumerate(self.paths) if not path.exists()]
        self._open: dict[int, np.ndarray] = {}
        if missing:
            progress = reporter("image codes", 0, len(missing), "shard")
            for done, number in enumerate(missing, 1):
                _write(self.paths[number], store, number, model)
                progress.update(done, {"images": store.firsts[number + 1] - store.firsts[number]})
            progress.stop()

    def image(self, index: int) -> tuple[int, ...]:
        """VQ ids of a row's image."""
        return self._row(index)[0]

    def source(self, index: int) -> tuple[int, ...]:
        """VQ ids of a row's source image; zeros where there is none."""
        return self._row(index)[1]

    def _row(self, index: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        number, row = self.store.place(index)
        if number not in self._open:
            if len(self._open) >= OPEN_FILES:
                self._open.pop(next(iter(self._open)))
            self._open[number] = _mapped(self.paths[number], self.store.shards[number].rows, self.tokens)
        found = self._open[number][row]
        if int(found.max()) >= self.codes:
            raise UserError(f"{self.paths[number]} holds codes that the model lacks: delete it")
        image, source = found.tolist()
        return tuple(image), tuple(source)


def _path(shard: Path, own: str) -> Path:
    return shard.parent.parent / "codes" / own / shard.with_suffix(".npy").name


def _mapped(path: Path, rows: int, tokens: int) -> np.ndarray:
    open_regular(path).close()  # a pipe is never waited for
    try:
        codes = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is not a whole file of image codes: {error}; delete it") from None
    if not isinstance(codes, np.ndarray) or codes.dtype.kind != "u" or codes.shape != (rows, 2, tokens):
        raise UserError(f"{path} does not hold the codes of its shard's {rows} images: delete it")
    return codes


def _write(path: Path, store: Store, number: int, model: Janus) -> None:
    """The codes of one shard; the file appears whole or not at all."""
    first, last = store.firsts[number : number + 2]
    codes = np.zeros((last - first, 2, model.image_tokens), np.uint16 if model.codes <= 1 << 16 else np.uint32)
    for rows, pixels in _batches(store, first, last, model.image_size):
        images = from_uint8(pixels).to(model.device)
        with torch.no_grad():
            ids = model.encode_image(images).cpu().numpy()
        for (row, role), own in zip(rows, ids, strict=True):
            codes[row - first, role] = own

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.save(stream, codes)

    write_atomically(path, write, "file")


def _batches(store: Store, first: int, last: int, size: int) -> Iterator[tuple[list[tuple[int, int]], np.ndarray]]:
    """(row, role) and pixels [B, size, size, 3]; role 0 is the image and 1 its source. Files are decoded by threads."""
    with ThreadPoolExecutor(DECODERS) as pool:
        rows: list[tuple[int, int]] = []
        files: list[tuple[bytes, bool]] = []
        for index in range(first, last):
            record = store[index]
            edit = record.source_image is not None
            rows.append((index, 0))
            files.append((record.image, edit))
            if record.source_image is not None:
                rows.append((index, 1))
                files.append((record.source_image, True))
            if len(rows) >= ENCODED or index == last - 1:
                yield rows, np.stack(list(pool.map(lambda one: fitted(one[0], size, one[1]), files)))
                rows, files = [], []
