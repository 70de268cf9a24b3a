"""The learning rate of a step, as a share of its peak: pure functions of the step's number."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from janus_r1.train.loop import RunOptions


def lr_share(step: int, options: RunOptions) -> float:
    """Linear warm-up under the schedule's fall, which ends at ``final_lr``."""
    rise = (step + 1) / max(1, options.warmup)
    if options.schedule == "trapezoid":
        left = (options.steps - step) / max(1.0, options.steps * options.cooldown)
        return max(options.final_lr, min(1.0, rise, left))
    return min(1.0, rise, _fall(step, options))


def _fall(step: int, options: RunOptions) -> float:
    """From 1 after the warm-up to ``final_lr``, over the knee if there is one (paper: linear, then cosine)."""
    start, knee = options.warmup, options.knee
    if step < knee:
        return 1 + (options.knee_lr - 1) * _progress(step, start, knee)
    top = options.knee_lr if knee else 1.0
    gone = _progress(step, knee or start, options.steps - 1)
    if options.schedule == "cosine":
        gone = (1 - math.cos(math.pi * gone)) / 2
    return top + (options.final_lr - top) * gone


def _progress(step: int, start: int, end: int) -> float:
    return min(1.0, max(0.0, (step - start) / max(1, end - start)))
