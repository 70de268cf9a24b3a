"""Candidates: scored images of prompts, the raw material of SFT (paper section 3.1).

On disk a folder of parts; a part is ``candidates.jsonl`` (one candidate a line) and ``images.npy``
(uint8 [n, H, W, 3], the same order). Parts are written whole or not at all, so building resumes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from janus_r1.errors import UserError, first_line, require
from janus_r1.files import write_atomically
from janus_r1.layout import clean
from janus_r1.reading import field, open_regular, read_jsonl

MAX_PART = 2**32  # bytes of the texts of a part


@dataclass(frozen=True)
class Candidate:
    """An image of a prompt with its score. ``reason`` begins with Yes or No; empty, the image is only drawn."""

    prompt_id: int
    prompt: str
    ids: tuple[int, ...]
    """The image as VQ ids."""
    p_yes: float
    """Consistency with the prompt in [0, 1] (S in the paper)."""
    reason: str
    source: str
    """Where the image comes from: ``draft@`` a temperature, ``rendering``, ``near miss``, ``round`` of a rollout."""

    @property
    def is_draft(self) -> bool:
        """Whether ``data build`` let the model draw it."""
        return self.source.startswith("draft")


def write_part(folder: Path, candidates: list[Candidate], images: np.ndarray) -> None:
    """Write one part; it appears whole or not at all."""
    if len(candidates) != len(images):
        raise ValueError(f"{len(candidates)} candidates but {len(images)} images")

    def write(temporary: Path) -> None:
        temporary.mkdir()
        lines = [json.dumps(asdict(candidate), ensure_ascii=False) + "\n" for candidate in candidates]
        (temporary / "candidates.jsonl").write_text("".join(lines), encoding="utf-8")
        np.save(temporary / "images.npy", images)

    write_atomically(folder, write)


class CandidateSet:
    """All candidates of one or several folders; images stay on disk until they are read.

    Raises:
        UserError: for a folder that holds none, or a part that is damaged.
    """

    def __init__(self, *folders: str | Path) -> None:
        self.parts: list[tuple[Path, int]] = []
        """Every part and how many candidates it holds."""
        self.candidates: list[Candidate] = []
        self._images: list[np.ndarray] = []
        self._where: list[tuple[int, int]] = []
        for folder in folders:
            own = sorted(Path(folder).glob("part_*"))
            if not own:
                raise UserError(f"no candidates in {folder}: run janus-r1 data build first, or set candidates")
            for part in own:
                self._read(part)

    def _read(self, part: Path) -> None:
        try:
            images = _images(part / "images.npy")
            candidates = [_candidate(*line) for line in read_jsonl(part / "candidates.jsonl", MAX_PART)]
            require(len(images) == len(candidates), f"it has {len(candidates)} candidates but {len(images)} images")
        except UserError as error:
            raise UserError(f"{part} is not a whole part of candidates: {error}; delete it and build again") from None
        self._where += [(len(self._images), i) for i in range(len(candidates))]
        self._images.append(images)
        self.candidates += candidates
        self.parts.append((part, len(candidates)))

    def check(self, image_tokens: int, codes: int, size: int) -> None:
        """Whether a model of so many ids an image, codes of each and pixels a side can be trained on all of them.

        Raises:
            UserError: that names the part which is another model's.
        """
        first = 0
        for (part, count), images in zip(self.parts, self._images, strict=True):
            own = self.candidates[first : first + count]
            for number, candidate in enumerate(own, 1):
                if len(candidate.ids) != image_tokens or max(candidate.ids) >= codes:
                    told = f"{len(candidate.ids)} ids up to {max(candidate.ids, default=0)}"
                    raise UserError(
                        f"{part}, candidate {number} has {told}, but the model's images have {image_tokens} below "
                        f"{codes}: build candidates with this model's image tokenizer"
                    )
            if images.shape[1:3] != (size, size):
                sides = " x ".join(map(str, images.shape[1:3]))
                raise UserError(f"the images of {part} are {sides}, but the model's are {size} x {size}: build again")
            first += count

    def __len__(self) -> int:
        return len(self.candidates)

    def __getitem__(self, index: int) -> Candidate:
        return self.candidates[index]

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.candidates)

    def image(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3]."""
        part, position = self._where[index]
        return np.asarray(self._images[part][position])


def _images(path: Path) -> np.ndarray:
    """uint8 [n, H, W, 3], mapped."""
    open_regular(path).close()  # a pipe or a device is never waited for
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path.name} is no array of images: {first_line(error)}") from None
    fits = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4
    require(fits and images.shape[-1] == 3 and 0 not in images.shape[1:], f"{path.name} must hold uint8 [n, H, W, 3]")
    return images


def _candidate(place: str, record: Any) -> Candidate:
    ids = field(record, "ids", list, place)
    require(all(type(one) is int and one >= 0 for one in ids), f"{place}: ids must be whole numbers from 0")
    p_yes = float(field(record, "p_yes", float, place))
    require(0.0 <= p_yes <= 1.0, f"{place}: p_yes {p_yes} is not in [0, 1]")
    prompt, reason, source = (field(record, key, str, place) for key in ("prompt", "reason", "source"))
    clean(prompt, f"prompt of {place}")
    if reason.strip():
        clean(reason, f"reason of {place}")
    return Candidate(field(record, "prompt_id", int, place), prompt, tuple(ids), p_yes, reason, source)
