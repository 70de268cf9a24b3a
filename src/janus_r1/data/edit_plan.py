"""What rows of edits are made of before a model is asked: fresh tasks of a world, and what went wrong in them.

Nothing here knows a model, so that worker processes can prepare the steps to come (``train.ahead``) without torch.
Everything random of a step is decided here, in one order: made, redrawn, judged, compared.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from janus_r1.worlds.base import DEFAULT, Lesson, WorldTask, world

COMPARED = 7  # statements a checklist


@dataclass(frozen=True, eq=False)
class Exercise:
    """A lesson that one row is made of."""

    lesson: Lesson
    dropped: bool = False
    """Whether the instruction is left out."""

    @property
    def task(self) -> WorldTask:
        return self.lesson.task

    @property
    def pictures(self) -> tuple[np.ndarray, ...]:
        """The source, then the results: the right one first where there are wrong ones."""
        assert self.task.source is not None, "an exercise is an edit"
        return self.task.source, *self.lesson.results


@dataclass(frozen=True)
class EditCounts:
    """Rows of a step: how many of each kind, and how they vary."""

    draw: int
    redraw: int = 0
    judge: int = 0
    compare: int = 0
    redraw_rounds: int = 1
    """Rejected results before a redrawn one."""
    judge_rounds: int = 0
    """Rejected results before a judged one, at most."""
    dropout: float = 0.0
    families: tuple[str, ...] = ()
    """Families of edits, one named twice as often again; all when empty."""
    world: str = DEFAULT


@dataclass(frozen=True)
class EditPlan:
    draw: list[Exercise]
    redraw: list[Exercise]
    judge: list[Exercise]
    compare: list[Exercise]


def plan(counts: EditCounts, rng: random.Random) -> EditPlan:
    """All that a step's rows need and no model knows.

    Raises:
        UserError: for kinds of rows that the world cannot make.
    """
    its, families = world(counts.world), counts.families
    edits = list(islice(its.stream(rng, "edit", families), counts.draw)) if counts.draw else []
    made = [Lesson(task, (_target(task),)) for task in edits]
    drawn = _some_dropped(made, counts.dropout, rng)
    redrawn = judged = compared = list[Lesson]()
    if counts.redraw:
        redrawn = its.lessons(counts.redraw, counts.redraw_rounds, rng, families)
    exercises = _some_dropped(redrawn, counts.dropout, rng)
    if counts.judge:  # one to judge, and one for each round before
        judged = its.lessons(counts.judge, counts.judge_rounds + 1, rng, families)
    if counts.compare:
        compared = its.comparisons(counts.compare, COMPARED, rng, families)
    return EditPlan(drawn, exercises, [Exercise(one) for one in judged], [Exercise(one) for one in compared])


def _target(task: WorldTask) -> np.ndarray:
    assert task.target is not None, "a world's edit has a right result"
    return task.target


def _some_dropped(lessons: Sequence[Lesson], dropout: float, rng: random.Random) -> list[Exercise]:
    return [Exercise(lesson, rng.random() < dropout) for lesson in lessons]
