"""What is scored, and what a scorer answers: a number in [0, 1] or an abstention with its cause."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class Scorable:
    """An image and the text it should fulfil.

    Raises:
        ValueError: for pixels of another type or shape.
    """

    prompt: str
    """For an edit: the instruction."""
    image: np.ndarray
    """uint8 [H, W, 3]."""
    source: np.ndarray | None = None
    """For an edit: the image before it, uint8 [H, W, 3]."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """What else the task's row says, for rewards that want it."""

    def __post_init__(self) -> None:
        for pixels in self.images:
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
                raise ValueError(f"images are uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")

    @property
    def images(self) -> tuple[np.ndarray, ...]:
        """What a judge must look at: the source first, where there is one."""
        return (self.image,) if self.source is None else (self.source, self.image)


@dataclass(frozen=True)
class Abstained:
    """No score. ``why`` is a cause, or a cause, a colon and details: "HTTP 401: invalid key"."""

    why: str

    @property
    def cause(self) -> str:
        """The part that is counted."""
        return self.why.partition(":")[0]


Score = float | Abstained
EditWeights = tuple[float, float]
EDIT_WEIGHTS: EditWeights = (0.5, 1.0)  # of following the instruction and of preserving the rest: the paper's


class Reward(Protocol):
    """Scores images; answers in the order of the items, one each, and never raises for a single item."""

    name: str

    def score(self, items: Sequence[Scorable]) -> list[Score]: ...


def checked(value: float) -> Score:
    """``value`` if it is a score; NaN or a number outside [0, 1] is a fault, not a low reward."""
    if math.isfinite(value) and 0.0 <= value <= 1.0:
        return float(value)
    return Abstained(f"not a score: {value}")
