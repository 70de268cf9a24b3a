"""What the rows that a model reads are made of: text, images it drew, images it sees. ``layout`` puts them together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Text:
    """Text tokens; with ``learn`` they are predicted, each counting ``weights`` (default 1)."""

    ids: tuple[int, ...]
    learn: bool = False
    weights: tuple[float, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Drawn:
    """VQ ids of an image, embedded as the model embeds what it draws."""

    ids: tuple[int, ...]
    learn: bool = False

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Seen:
    """Pixels of an image, uint8 [H, W, 3], embedded by the understanding encoder as ``length`` tokens."""

    pixels: np.ndarray
    length: int

    def __len__(self) -> int:
        return self.length


Segment = Text | Drawn | Seen
Row = tuple[Segment, ...]


def row_length(row: Row) -> int:
    """Tokens of all segments."""
    return sum(len(segment) for segment in row)


@dataclass(frozen=True)
class Lead:
    """What stands before a draft, in each of a chain's three streams."""

    drawing: Row
    unconditional: Row
    """As long as ``drawing``, token for token."""
    seeing: Row


@dataclass(frozen=True, eq=False)
class Source:
    """A task's source image as the model takes it, at its own size."""

    ids: tuple[int, ...]
    """Its VQ ids, as the drawing stream holds it."""
    pixels: np.ndarray
    """uint8 [H, W, 3], as the seeing stream sees it."""


def unseen(ids: tuple[int, ...]) -> Source:
    """A source for the drawing stream alone, which holds its ids: nobody looks at it."""
    return Source(ids, np.zeros((1, 1, 3), np.uint8))
