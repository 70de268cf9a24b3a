"""What is scored, and what a scorer answers: a number in [0, 1] or an abstention with its cause."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from janus_r1.chain import Task, check_pixels

Item = tuple[Task, np.ndarray]
"""A task and an image that should fulfil it, uint8 [H, W, 3]."""


def shown(item: Item) -> tuple[np.ndarray, ...]:
    """What a judge must look at: the source first, where there is one.

    Raises:
        UserError: for pixels of another type or shape.
    """
    task, image = item
    check_pixels(image)
    return (image,) if task.source is None else (task.source, image)


@dataclass(frozen=True)
class Abstained:
    """No score. ``why`` is a cause, or a cause, a colon and details: "HTTP 401: invalid key"."""

    why: str

    @property
    def cause(self) -> str:
        """The part that is counted."""
        return self.why.partition(":")[0]


Claims = tuple[tuple[str, float], ...]
"""Of what a task asks for, each claim with its own score in [0, 1]."""


class Claimed(float):
    """A score that tells what it is made of, for the log and for credit; it counts like any other."""

    claims: Claims

    def __new__(cls, value: float, claims: Iterable[tuple[str, float]]) -> Claimed:
        made = super().__new__(cls, value)
        made.claims = tuple(claims)
        return made


def claims_of(score: float) -> Claims:
    """Nothing where the scorer tells none."""
    return score.claims if isinstance(score, Claimed) else ()


def weakest_claim(score: float) -> float:
    """How far all holds: the least score of a claim, or ``score`` where the scorer tells none."""
    return min((of_claim for _, of_claim in claims_of(score)), default=score)


Score = float | Abstained
EditWeights = tuple[float, float]
EDIT_WEIGHTS: EditWeights = (0.5, 1.0)  # of following the instruction and of preserving the rest: the paper's


class Reward(Protocol):
    """Scores images; answers in the order of the items, one each, and never raises for a single item."""

    name: str

    def score(self, items: Sequence[Item]) -> list[Score]: ...


def checked(value: float) -> Score:
    """``value`` if it is a score; NaN or a number outside [0, 1] is a fault, not a low reward."""
    if math.isfinite(value) and 0.0 <= value <= 1.0:
        return value if isinstance(value, Claimed) else float(value)
    return Abstained(f"not a score: {value}")
