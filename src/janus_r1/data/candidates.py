"""Candidates: scored images of prompts, the raw material of SFT (paper section 3.1).

On disk a folder of parts; a part is ``candidates.jsonl`` (one candidate a line) and ``images.npy``
(uint8 [n, H, W, 3], the same order). Parts are written whole or not at all, so building resumes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from janus_r1.errors import UserError
from janus_r1.files import write_atomically


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
    """All candidates of one or several folders; images stay on disk until they are read."""

    def __init__(self, *folders: str | Path) -> None:
        parts = []
        for folder in folders:
            parts += (own := sorted(Path(folder).glob("part_*")))
            if not own:
                raise UserError(f"no candidates in {folder}: run janus-r1 data build first, or set candidates")
        self.candidates: list[Candidate] = []
        self._images: list[np.ndarray] = []
        self._where: list[tuple[int, int]] = []
        for part in parts:
            self._read(part)

    def _read(self, part: Path) -> None:
        try:
            images = np.load(part / "images.npy", mmap_mode="r", allow_pickle=False)
            lines = (part / "candidates.jsonl").read_text(encoding="utf-8").splitlines()
            candidates = [_parse(line) for line in lines]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{part} is not a whole part of candidates: {error}; delete it and build again") from None
        if len(images) != len(candidates):
            raise UserError(f"{part} has {len(candidates)} candidates but {len(images)} images; delete it, build again")
        self._where += [(len(self._images), i) for i in range(len(candidates))]
        self._images.append(images)
        self.candidates += candidates

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


def _parse(line: str) -> Candidate:
    record = json.loads(line)
    record["ids"] = tuple(record["ids"])
    candidate = Candidate(**record)
    if not 0.0 <= candidate.p_yes <= 1.0:
        raise ValueError(f"p_yes {candidate.p_yes} is not in [0, 1]")
    return candidate
