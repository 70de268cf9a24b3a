"""The rows of an SFT step: how many of each named share, and who makes them.

To add a kind of row, write a :class:`RowMaker`, name its shares in :data:`SHARES`, and put it among the
makers in ``train/sft.py``.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from janus_r1.segments import Row, Segment, row_length

DRAW_THRESHOLD = 0.8  # from here on images are worth drawing (these three are the paper's)
YES_THRESHOLD = 0.7  # from here on a Yes is said to them
NO_THRESHOLD = 0.5  # below they are wrong; between the two a judge is undecided

SHARES = {
    "draw": "a prompt and an image of it, of the candidates",
    "judge": "the verdict on a candidate, after rejected ones",
    "redraw": "from rejected candidates to a right one",
    "edit": "a source, an instruction and the edited image",
    "judge_edit": "the verdict on a result of an edit",
    "redraw_edit": "from rejected results of an edit to a right one",
    "compare_edit": "what became of a source, statement by statement",
    "see": "questions and verdicts about rendered pictures, as in pretraining",
}


class Told(tuple[Segment, ...]):
    """A row that says what it is of, for the log: its share, and the family of its prompt where the data name one."""

    labels: tuple[str, ...]

    def __new__(cls, row: Row, labels: tuple[str, ...]) -> Told:
        made = super().__new__(cls, row)
        made.labels = labels
        return made


class Rows(NamedTuple):
    """By the loss that they are learnt with."""

    images: list[Row]
    """Learnt to be drawn."""
    verdicts: list[Row]
    seen: list[Row]
    """Answers about pictures, beside the verdicts and with the same weight."""


@dataclass(frozen=True)
class Wanted:
    """What a step wants, and what its rows follow from."""

    counts: Mapping[str, int]
    """Rows by the name of their share."""
    seed: int
    rng: random.Random
    """Of the step; makers draw from it one after another. A maker added later takes one of its own, by ``seed``."""
    judge_rounds: int = 0
    """Rejected images before a judged one, at most."""
    redraw_rounds: int = 1
    """Rejected images before a redrawn one."""
    dropout: float = 0.0
    """Share of drawn and redrawn rows whose prompt is left out, for guidance."""

    def count(self, share: str) -> int:
        return self.counts.get(share, 0)


Job = Callable[[], Any]


@dataclass
class Begun:
    """Rows that are made, and what is yet to be made: a picklable function, which may run in another process."""

    rows: Rows = field(default_factory=lambda: Rows([], [], []))
    job: Job | None = None


def in_parts(rows: Sequence[Row], parts: int) -> list[list[Row]]:
    """Rows in ``parts`` of equal size and alike lengths: what is padded is computed, too."""
    ordered = sorted(rows, key=row_length)
    return [ordered[len(ordered) * i // parts : len(ordered) * (i + 1) // parts] for i in range(parts)]


class RowMaker(ABC):
    """Makes the rows of some shares."""

    @abstractmethod
    def begin(self, wanted: Wanted) -> Begun:
        """What follows from ``wanted`` alone; may be asked for before the weights are what the step has."""

    def finish(self, made: Any, wanted: Wanted) -> Rows:
        """The rows that need what :attr:`Begun.job` returned, and the weights of the step. Here: none."""
        return Rows([], [], [])


def together(parts: list[Rows]) -> Rows:
    """All rows of some makers, in order."""
    return Rows(*([row for rows in kind for row in rows] for kind in zip(*parts, strict=True)))
