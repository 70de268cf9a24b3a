"""The same experiment with several seeds: its mean with an interval over seeds, and one over prompts.

The two answer different questions. Over seeds: what would training again give, measured on these prompts? Over
prompts: what would these very models score on other prompts of the kind?
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import sqrt

import numpy as np

from janus_r1.eval.statistics import Figure, Z

# 97.5 percentiles of Student's distribution by degrees of freedom, from 1 on
STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)


def seed_interval(values: Sequence[float]) -> Figure | None:
    """Mean of one value a seed with Student's 95 % interval; None for a single one, which tells no spread.

    It is not cut at 0 or 1: an interval that reaches beyond says that there are too few seeds.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers) or not np.isfinite(numbers).all():
        raise ValueError(f"need numbers, got {list(values)}")
    if len(numbers) == 1:
        return None
    mean = float(numbers.mean())
    half = student(len(numbers) - 1) * float(numbers.std(ddof=1)) / sqrt(len(numbers))
    return Figure(mean=mean, low=mean - half, high=mean + half, n=len(numbers))


def student(freedom: int) -> float:
    """97.5 percentile of Student's distribution; beyond the table an expansion that is right to 0.2 %."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    return Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)


def prompt_interval(figures: Iterable[Figure]) -> Figure:
    """Mean of one figure a seed, all on the same prompts, with an interval over prompts.

    Prompts that are hard for one seed are hard for the others, so the intervals are averaged and not narrowed:
    right where seeds agree on every prompt, a little too wide elsewhere.
    """
    parts = list(figures)
    if not parts:
        raise ValueError("no figures to average")
    mean, low, high = (sum(part[end] for part in parts) / len(parts) for end in ("mean", "low", "high"))
    return Figure(mean=mean, low=low, high=high, n=sum(part["n"] for part in parts))
