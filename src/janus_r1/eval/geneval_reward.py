"""GenEval as a reward, for prompts of one's own with its metadata: two functions for ``rewards: [{kind: python}]``.

``janus_r1.eval.geneval_reward:geneval`` is the benchmark's verdict, 1 or 0.
``janus_r1.eval.geneval_reward:flow_grpo`` is flow_grpo's partial credit, another measure (exact counts for every tag);
credit below 0 counts as 0. Figures of either are no GenEval figures.

Rows of the prompt file bring ``tag``, ``include`` and, where they have it, ``exclude``. The benchmark's 553 prompts
are refused: a model that trained on them can no longer be measured by it. Weights and device are named by the
environment variables GENEVAL_DETECTOR, GENEVAL_CLIP and GENEVAL_DEVICE.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from janus_r1.data.report import plain
from janus_r1.errors import UserError
from janus_r1.eval.geneval import fault_of_row, flow_grpo_reward, judge
from janus_r1.eval.geneval import prompts as published
from janus_r1.eval.geneval_benchmark import CLIP, DETECTOR, GenEvalScorer, geneval_scorer

BATCH = 8
Columns = Sequence[Any]


def geneval(
    prompts: Sequence[str],
    images: Sequence[Image.Image],
    tag: Columns = (),
    include: Columns = (),
    exclude: Columns = (),
) -> list[float | None]:
    """1 where the benchmark's rules hold, else 0; None for a row without metadata.

    Raises:
        UserError: for a prompt of the benchmark itself, or weights that are not here.
    """
    return _rewards(prompts, images, (tag, include, exclude), lambda row, seen: float(judge(row, seen)[0]))


def flow_grpo(
    prompts: Sequence[str],
    images: Sequence[Image.Image],
    tag: Columns = (),
    include: Columns = (),
    exclude: Columns = (),
) -> list[float | None]:
    """flow_grpo's partial credit in [0, 1]; None for a row without metadata.

    Raises:
        UserError: as :func:`geneval`.
    """
    return _rewards(
        prompts, images, (tag, include, exclude), lambda row, seen: max(0.0, flow_grpo_reward(row, seen)[1])
    )


def _rewards(
    prompts: Sequence[str],
    images: Sequence[Image.Image],
    columns: tuple[Columns, Columns, Columns],
    reward: Callable[[Mapping[str, Any], Any], float],
) -> list[float | None]:
    rows = [_row(prompt, *(column[i] if column else None for column in columns)) for i, prompt in enumerate(prompts)]
    whole = [i for i, row in enumerate(rows) if fault_of_row(row) is None]
    answers: list[float | None] = [None] * len(rows)
    scorer = _scorer() if whole else None
    for start in range(0, len(whole), BATCH):
        part = whole[start : start + BATCH]
        pixels = [np.array(images[i].convert("RGB")) for i in part]
        seen = scorer.see(pixels, [rows[i] for i in part]) if scorer else []
        for i, one in zip(part, seen, strict=True):
            if isinstance(one, str):  # weights of CLIP are missing
                raise UserError(one)
            answers[i] = reward(rows[i], one)
    return answers


def _row(prompt: str, tag: Any, include: Any, exclude: Any) -> dict[str, Any]:
    if plain(prompt) in _benchmark():
        raise UserError(f"{prompt!r} is a prompt of GenEval itself: train on others, or it measures nothing any more")
    return {"prompt": prompt, "tag": tag, "include": include, **({"exclude": exclude} if exclude else {})}


@cache
def _benchmark() -> frozenset[str]:
    return frozenset(plain(row["prompt"]) for row in published())


@cache
def _scorer() -> GenEvalScorer:
    named = {name: os.environ.get(f"GENEVAL_{name.upper()}") for name in ("detector", "clip", "device")}
    detector, clip, device = named["detector"] or DETECTOR, named["clip"] or CLIP, named["device"] or "cpu"
    return geneval_scorer(detector, clip, device, BATCH, download=False)
