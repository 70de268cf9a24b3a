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

from janus_r1.worlds.shapes.edit_cases import FAMILIES, EditCase, Family, Instruction, train_edits
from janus_r1.worlds.shapes.edits import CannotEdit
from janus_r1.worlds.shapes.mistakes import side_effects, wrong_edits
from janus_r1.worlds.shapes.questions import statements
from janus_r1.worlds.shapes.scene import Scene, render
from janus_r1.worlds.shapes.verifier import View, look
from janus_r1.worlds.shapes.verify_edit import make_plan

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
    families: tuple[Family, ...] = FAMILIES
    """Families of edits, one named twice as often again."""


@dataclass(frozen=True)
class EditPlan:
    draw: list[Sketch]
    redraw: list[Sketch]
    judge: list[Sketch]
    compare: list[Sketch]


def plan(counts: EditCounts, rng: random.Random) -> EditPlan:
    """All that a step's rows need and no model knows."""
    return EditPlan(
        _to_draw(counts, rng),
        _to_redraw(counts, rng),
        _to_judge(counts, rng),
        _to_compare(counts, rng),
    )


def _to_draw(counts: EditCounts, rng: random.Random) -> list[Sketch]:
    """Cases as they are."""
    cases = list(islice(train_edits(rng, counts.families), counts.draw))
    return [_sketch(case, [case.target], dropped=rng.random() < counts.dropout) for case in cases]


def _to_redraw(counts: EditCounts, rng: random.Random) -> list[Sketch]:
    """Cases with wrong results, for each round one where there is one; of some the instruction is left out."""
    lessons = list(_lessons(train_edits(rng, counts.families), counts.redraw, rng, counts.redraw_rounds))
    return [_sketch(case, results, view, rng.random() < counts.dropout) for case, results, view in lessons]


def _to_judge(counts: EditCounts, rng: random.Random) -> list[Sketch]:
    """Cases with wrong results: one to judge, and one for each round before."""
    lessons = _lessons(train_edits(rng, counts.families), counts.judge, rng, counts.judge_rounds + 1)
    return [_sketch(case, results, view) for case, results, view in lessons]


def _to_compare(counts: EditCounts, rng: random.Random) -> list[Sketch]:
    """Cases with one result, every other one a mistake, and statements on it."""
    cases = list(islice(train_edits(rng, counts.families), counts.compare))
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


def _lessons(
    stream: Iterator[EditCase], count: int, rng: random.Random, mistakes: int
) -> Iterator[tuple[EditCase, list[Scene], View]]:
    """Cases whose source the verifier can read, with the right and up to ``mistakes`` wrong results."""
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
