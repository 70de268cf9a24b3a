"""A model as judge, on one fixed set: the same drafts for every judge, half of them right.

The drafts are those of one drawing model on a world's test prompts, so that judges of different
skill at drawing can be compared (the paper's table of judge agreement; its judges see each its own).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from janus_r1.chain import Settings, Verdict
from janus_r1.errors import UserError
from janus_r1.eval.protocol import choose_tasks
from janus_r1.eval.statistics import figure, judge_figures
from janus_r1.fields import Checked, Positive, Range
from janus_r1.worlds import DEFAULT
from janus_r1.worlds import base as worlds
from janus_r1.worlds.base import WorldTask

if TYPE_CHECKING:
    from janus_r1.model.janus import Janus

Judge = Callable[[list[np.ndarray], list[str]], list[Verdict]]


@dataclass(frozen=True)
class JudgeOptions(Checked):
    """Which drafts are judged."""

    world: str = DEFAULT
    """Its name, a Python file, or module:name."""
    split: str = "test"
    """Prompts of the drafts."""
    samples: Positive = 4
    """Drafts a prompt, before balancing."""
    limit: Positive | None = None
    """Prompts at most, balanced over families; with --data rows at most."""
    guidance: Annotated[float, Range(ge=1)] = 1.5
    """Of the drafts."""
    seed: int = 0
    """Of the drafts."""


@dataclass(frozen=True)
class JudgeSet:
    """Images to judge, with what is true of them."""

    images: list[np.ndarray]
    prompts: list[WorldTask]
    numbers: np.ndarray
    """Which prompt each belongs to [N]."""
    right: np.ndarray
    """1 or 0 [N]."""


def judge_set(drawer: Janus, options: JudgeOptions) -> JudgeSet:
    """As many right as wrong drafts of every prompt family, chosen by a fixed seed.

    Raises:
        UserError: if no family has both.
    """
    from janus_r1.introspect import introspect  # torch only where it is needed

    world = worlds.world(options.world)
    prompts = choose_tasks(world, options.split, options.limit)
    numbers = np.repeat(np.arange(len(prompts)), options.samples)
    settings = Settings(rounds=1, guidance=options.guidance, seed=options.seed, max_reason_tokens=1)
    chains = introspect(drawer, [prompts[i] for i in numbers], settings)
    images = [chain.pixels for chain in chains]
    right = np.array([world.check(prompts[i], p).correct for p, i in zip(images, numbers, strict=True)], float)
    families = np.array([prompts[i].family for i in numbers])
    chosen = _balanced(right, families, options.seed)
    if not len(chosen):
        raise UserError(f"all {len(right)} drafts are alike, right or wrong: judge more prompts, or another drawer's")
    return JudgeSet([images[i] for i in chosen], [prompts[numbers[i]] for i in chosen], numbers[chosen], right[chosen])


def _balanced(right: np.ndarray, families: np.ndarray, seed: int) -> np.ndarray:
    """Sorted indices: in every family as many right as wrong."""
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for family in dict.fromkeys(families.tolist()):
        classes = [np.flatnonzero((families == family) & (right == value)) for value in (0, 1)]
        size = min(map(len, classes))
        for members in classes:
            chosen += rng.choice(members, size, replace=False).tolist()
    return np.sort(np.array(chosen, dtype=int))


def evaluate_judge(judge: Judge, held: JudgeSet) -> dict[str, Any]:
    """Accuracy, AUROC and calibration over the set, and accuracy by family."""
    verdicts = judge(held.images, [prompt.prompt for prompt in held.prompts])
    said = np.array([verdict.accepted for verdict in verdicts], float)
    p_yes = np.array([verdict.p_yes for verdict in verdicts])
    families = np.array([prompt.family for prompt in held.prompts])
    agree = (said == held.right).astype(float)
    return {
        "images": len(said),
        "verdict": judge_figures(said, held.right, p_yes, held.numbers),
        "families": {f: _by(agree, held.numbers, families == f) for f in dict.fromkeys(families.tolist())},
        "accepted_wrong": _by(said, held.numbers, held.right == 0),
        "rejected_right": _by(1 - said, held.numbers, held.right == 1),
    }


def _by(values: np.ndarray, numbers: np.ndarray, mine: np.ndarray) -> dict[str, Any]:
    return dict(figure(values[mine], numbers[mine]))
