"""Where reinforcement learning takes its edits from, and how they mix with prompts to draw."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Protocol

import numpy as np

from janus_r1.data.edit_pairs import PairReader, read_pairs
from janus_r1.errors import UserError
from janus_r1.images import read_image
from janus_r1.train.rl.prompts import PromptSource
from janus_r1.worlds.shapes.edit_cases import FAMILIES, EditCase, Family, train_edits
from janus_r1.worlds.shapes.scene import render

TaskName = Literal["draw", "edit", "both"]


@dataclass(frozen=True, eq=False)
class EditTask:
    """An instruction and the image that it edits, uint8 [H, W, 3] of any size."""

    instruction: str
    source: np.ndarray


Task = str | EditTask


class Tasks(Protocol):
    """Tasks of a step, a pure function of seed and step, and others to evaluate on."""

    @property
    def held_out(self) -> Sequence[Task]: ...

    def step(self, count: int, seed: int, step: int) -> Sequence[Task]: ...


def tasks(
    name: TaskName,
    prompts: str,
    edits: str,
    held_out: int,
    edit_share: float = 0.5,
    families: Sequence[Family] = FAMILIES,
) -> Tasks:
    """``edit_share`` of them are edits where the task is both; the world's are of ``families``, each as often as named.

    Raises:
        UserError: where a file is missing, broken or too short.
    """
    if name == "draw":
        return PromptSource(prompts, held_out)
    if name == "edit":
        return EditSource(edits, held_out, families)
    kept = int(held_out * edit_share)
    return Both(PromptSource(prompts, held_out - kept), EditSource(edits, kept, families), edit_share)


class EditSource:
    """Edits of the world (``shapes``: training cases, which avoid all splits) or of the user's file.

    Of a file's rows, see :mod:`janus_r1.data.edit_pairs`, the first ``held_out`` are kept for evaluation;
    results that it names are not used.
    """

    def __init__(self, source: str, held_out: int, families: Sequence[Family] = FAMILIES) -> None:
        self.families = families
        self.reader, self.held_out = None, _of_world(held_out, "evaluation", FAMILIES)
        if source != "shapes":
            pairs = read_pairs(source, targets=False)
            if len(pairs) <= held_out:
                raise UserError(f"{source} holds {len(pairs)} edits, all kept for evaluation: lower eval_prompts")
            self.reader = PairReader(pairs[held_out:])
            self.held_out = [EditTask(pair.instruction, read_image(pair.source)) for pair in pairs[:held_out]]

    def step(self, count: int, seed: int, step: int) -> list[EditTask]:
        """``count`` edits, drawn anew at every step."""
        if self.reader is None:
            return _of_world(count, f"{seed} {step}", self.families)
        rng = random.Random(f"{seed} {step}")
        picked = [self.reader.pick(rng) for _ in range(count)]
        return [EditTask(pair.instruction, source) for pair, source, _ in picked]


class Both:
    """Prompts to draw and edits; ``edit_share`` of them are edits."""

    def __init__(self, draws: PromptSource, edits: EditSource, edit_share: float) -> None:
        self.draws, self.edits, self.edit_share = draws, edits, edit_share

    @property
    def held_out(self) -> list[Task]:
        return [*self.draws.held_out, *self.edits.held_out]

    def step(self, count: int, seed: int, step: int) -> list[Task]:
        """Shuffled, so that processes and minibatches get their shares of both."""
        edits = int(count * self.edit_share)
        mixed: list[Task] = [*self.draws.step(count - edits, seed, step), *self.edits.step(edits, seed, step)]
        random.Random(f"{seed} {step}").shuffle(mixed)
        return mixed


def _of_world(count: int, seed: str, families: Sequence[Family]) -> list[EditTask]:
    return [_task(case) for case in islice(train_edits(random.Random(seed), families), count)]


def _task(case: EditCase) -> EditTask:
    return EditTask(case.instruction.text, render(case.source))
