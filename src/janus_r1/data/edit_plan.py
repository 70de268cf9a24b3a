"""What rows of edits are made of before a model is asked: fresh cases, what went wrong in them, their pictures.

Nothing here knows a model, so that worker processes can prepare the steps to come (``train.ahead``) without torch.
Everything random of a step is decided here, in one order: made, redrawn, judged, compared.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from janus_r1.world.differences import statements
from janus_r1.world.edit_cases import EditCase, Instruction, train_edits
from janus_r1.world.edits import CannotEdit
from janus_r1.world.mistakes import side_effects, wrong_edits
from janus_r1.world.render import render
from janus_r1.world.scene import Scene
from janus_r1.world.verify import View, look
from janus_r1.world.verify_edit import make_plan

COMPARED = 7  # statements a checklist


@dataclass(frozen=True, eq=False)
class Sketch:
    """A row's case: an instruction and pictures, uint8 [64, 64, 3], of the source and of results."""

    instruction: Instruction
    source: np.ndarray
    results: tuple[np.ndarray, ...]
    """Of a row that judges or redraws the right one, then wrong ones."""
    view: View | None = None
    """What the verifier sees in the source; of a row that judges or redraws."""
    dropped: bool = False
    """Whether the instruction is left out."""
    statements: tuple[tuple[str, bool], ...] = ()
    """What is said of the result, and whether it is true; of a row that compares."""


@dataclass(frozen=True)
class EditCounts:
    """Rows of a step: how many of each task, and how they vary."""

    draw: int
    redraw: int = 0
    judge: int = 0
    compare: int = 0
    redraw_rounds: int = 1
    """Rejected results before a redrawn one."""
    judge_rounds: int = 0
    """Rejected results before a judged one, at most."""
    dropout: float = 0.0


@dataclass(frozen=True)
class EditPlan:
    draw: list[Sketch]
    redraw: list[Sketch]
    judge: list[Sketch]
    compare: list[Sketch]


def plan(counts: EditCounts, rng: random.Random) -> EditPlan:
    """All that a step's rows need and no model knows."""
    return EditPlan(
        to_draw(counts.draw, rng, counts.dropout),
        to_redraw(counts.redraw, rng, counts.redraw_rounds, counts.dropout),
        to_learn(counts.judge, rng, counts.judge_rounds + 1),
        to_compare(counts.compare, rng),
    )


def to_draw(count: int, rng: random.Random, dropout: float) -> list[Sketch]:
    """Cases as they are."""
    cases = list(islice(train_edits(rng), count))
    return [_sketch(case, [case.target], dropped=rng.random() < dropout) for case in cases]


def to_redraw(count: int, rng: random.Random, wrong_rounds: int, dropout: float) -> list[Sketch]:
    """As :func:`to_learn`; of some the instruction is left out."""
    lessons = list(_lessons(count, rng, wrong_rounds))
    return [_sketch(case, results, view, rng.random() < dropout) for case, results, view in lessons]


def to_learn(count: int, rng: random.Random, mistakes: int) -> list[Sketch]:
    """Cases with up to ``mistakes`` wrong results."""
    return [_sketch(case, results, view) for case, results, view in _lessons(count, rng, mistakes)]


def to_compare(count: int, rng: random.Random) -> list[Sketch]:
    """Cases with one result, every other one a mistake, and statements on it."""
    cases = list(islice(train_edits(rng), count))
    after = [case.target if i % 2 == 0 else _mistakes(case, 1, rng)[0] for i, case in enumerate(cases)]
    return [
        _sketch(case, [scene], said=tuple(statements(case.source, scene, COMPARED, rng)))
        for case, scene in zip(cases, after, strict=True)
    ]


def _sketch(
    case: EditCase,
    results: list[Scene],
    view: View | None = None,
    dropped: bool = False,
    said: tuple[tuple[str, bool], ...] = (),
) -> Sketch:
    pictures = tuple(render(scene) for scene in results)
    return Sketch(case.instruction, render(case.source), pictures, view, dropped, said)


def _lessons(count: int, rng: random.Random, mistakes: int) -> Iterator[tuple[EditCase, list[Scene], View]]:
    """Cases whose source the verifier can read, with the right and ``mistakes`` wrong results."""
    stream = train_edits(rng)
    while count:
        cases = list(islice(stream, count))
        drawn = [(case, [case.target, *_mistakes(case, mistakes, rng)], look(render(case.source))) for case in cases]
        readable = [(case, results, view) for case, results, view in drawn if _readable(case, view)]
        count -= len(readable)
        yield from readable


def _readable(case: EditCase, view: View) -> bool:
    try:
        make_plan(view.objects, case.instruction.edits)
    except CannotEdit:
        return False
    return True


def _mistakes(case: EditCase, count: int, rng: random.Random) -> list[Scene]:
    """Different wrong results: as often another edit than the one asked for as one change too many."""
    kinds = [list(mistakes(case, rng).values()) for mistakes in (wrong_edits, side_effects)]
    for scenes in kinds:
        rng.shuffle(scenes)
    chosen: list[Scene] = []
    while len(chosen) < count and any(kinds):
        chosen.append(rng.choice([scenes for scenes in kinds if scenes]).pop())
    return chosen
