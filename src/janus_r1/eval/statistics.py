"""Means and judge metrics with 95 % intervals over prompts. Pure functions of arrays.

Samples of one prompt resemble each other, so a prompt (a *cluster*) is what is resampled: each of
2000 bootstrap resamples draws as many prompts as there are, with replacement and a fixed seed, and
takes all images of a drawn prompt. The interval is the 2.5 and 97.5 percentile. The seed depends on
nothing, so two arms on the same prompts meet the same resamples.

Where every resample agrees (all prompts alike, as in 40 right of 40, or a single prompt), the
bootstrap would claim certainty. There the interval is Wilson's, of the mean as a share of its
bounds, with the number of *prompts* as the sample size: how alike the images of a prompt are cannot
be estimated from such data, so they count as one observation.

Empty, NaN or infinite input is a ValueError everywhere; an undefined metric is None; never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import hypot, sqrt
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

RESAMPLES = 2000
SEED = 0
Z = 1.959964  # 97.5 percentile of the normal distribution
EQUAL = 1e-12  # resampled means closer than this differ by rounding only
UNIT = (0.0, 1.0)

Floats = NDArray[np.float64]
Bounds = tuple[float, float]


class Figure(TypedDict):
    """A mean, its 95 % interval, and the number of images behind it."""

    mean: float
    low: float
    high: float
    n: int


# ----------------------------------------------------------------------------------------- means


def figure(values: ArrayLike, clusters: ArrayLike, bounds: Bounds | None = UNIT) -> Figure:
    """Mean of ``values`` [n], with an interval over ``clusters`` [n] (any labels).

    ``bounds`` are the least and largest possible value, used when the bootstrap degenerates; None
    (tokens: no natural limit) takes the range of the values, so a constant gets a zero-width interval.
    """
    numbers, ids = _checked(values, clusters=clusters)
    sums, counts = np.bincount(ids, numbers), np.bincount(ids)
    weights = _weights(len(counts))
    bounds = bounds or (float(numbers.min()), float(numbers.max()))
    resampled = weights @ sums / (weights @ counts)
    return _figure(float(numbers.mean()), resampled, len(numbers), len(counts), bounds)


def paired_difference(first: ArrayLike, second: ArrayLike, clusters: ArrayLike) -> Figure:
    """Mean of ``second`` - ``first``, two arms in [0, 1] on the same rows [n], resampled together.

    Where all prompts agree, the interval joins Wilson's intervals of the rises and of the falls, so
    "nothing changed" on few prompts is not taken for certain.
    """
    before, after, ids = _checked(first, second, clusters=clusters)
    change, counts = after - before, np.bincount(ids)
    if np.ptp(np.bincount(ids, change) / counts) > EQUAL:
        return figure(change, ids)
    parts = []
    for part in (np.maximum(change, 0), np.maximum(-change, 0)):
        low, high = wilson(float(part.mean()), len(counts))
        parts.append(Figure(mean=float(part.mean()), low=low, high=high, n=len(ids)))
    return _combined(float(change.mean()), parts, (1, -1), n=len(ids))


def mean_of(figures: Iterable[Figure], weights: Sequence[float] | None = None) -> Figure:
    """Mean of independent figures, such as a benchmark's families: each counts the same, or by its weight.

    Their (bootstrap) intervals are combined by the distances of their ends from their means (MOVER),
    which equals resampling prompts within each family, and keeps the uncertainty of a family whose
    images are all right.
    """
    parts = list(figures)
    if not parts:
        raise ValueError("no figures to average")
    given = [1.0] * len(parts) if weights is None else weights
    shares = [weight / sum(given) for weight in given]
    mean = sum(part["mean"] * weight for part, weight in zip(parts, given, strict=True)) / sum(given)
    return _combined(mean, parts, shares, n=sum(part["n"] for part in parts))


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share in [0, 1] of ``n`` observations; 1.0 of 40 -> (0.912, 1)."""
    centre = share + Z**2 / (2 * n)
    half = Z * sqrt(max(share * (1 - share), 0.0) / n + Z**2 / (4 * n**2))
    scale = 1 + Z**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


# ----------------------------------------------------------------------------------- judge metrics


def balanced_accuracy(said: ArrayLike, truth: ArrayLike) -> float | None:
    """Mean of the accuracies on right and on wrong images; None when a class is missing."""
    yes, right = _checked_labels(said, truth)
    if right.all() or not right.any():
        return None
    return float((yes[right].mean() + 1 - yes[~right].mean()) / 2)


def auroc(p_yes: ArrayLike, truth: ArrayLike) -> float | None:
    """Chance that a right image has a higher ``p_yes`` than a wrong one, ties counting half.

    None when a class is missing.
    """
    scores, labels = _checked(p_yes, truth)
    right = labels > 0
    positives, negatives = int(right.sum()), int((~right).sum())
    if positives == 0 or negatives == 0:
        return None
    won = rankdata(scores)[right].sum() - positives * (positives + 1) / 2  # Mann and Whitney's U
    return float(won / (positives * negatives))


# ---------------------------------------------------------------------- judge metrics with interval


def _both_classes(right: Floats, ids: NDArray[np.int64]) -> tuple[NDArray, NDArray, NDArray, int]:
    """Rights and wrongs of every cluster, the resamples that hold both, and the rarer class's clusters."""
    positives, negatives = np.bincount(ids, right), np.bincount(ids, 1 - right)
    weights = _weights(len(positives))
    weights = weights[(weights @ positives > 0) & (weights @ negatives > 0)]
    return positives, negatives, weights, min(int((positives > 0).sum()), int((negatives > 0).sum()))


def balanced_accuracy_figure(said: ArrayLike, truth: ArrayLike, clusters: ArrayLike) -> Figure | None:
    """:func:`balanced_accuracy` with interval; resamples that lack a class are left out."""
    point = balanced_accuracy(said, truth)
    if point is None:
        return None
    yes, right, ids = _checked(said, truth, clusters=clusters)
    positives, negatives, weights, effective = _both_classes(right, ids)
    hits = weights @ np.bincount(ids, right * yes) / (weights @ positives)
    rejections = weights @ np.bincount(ids, (1 - right) * (1 - yes)) / (weights @ negatives)
    return _figure(point, (hits + rejections) / 2, len(ids), effective, UNIT)


def auroc_figure(p_yes: ArrayLike, truth: ArrayLike, clusters: ArrayLike) -> Figure | None:
    """:func:`auroc` with interval; resamples that lack a class are left out."""
    point = auroc(p_yes, truth)
    if point is None:
        return None
    scores, right, ids = _checked(p_yes, truth, clusters=clusters)
    positives, negatives, weights, effective = _both_classes(right, ids)
    won = ((weights @ _wins(scores, right > 0, ids)) * weights).sum(1)
    resampled = won / ((weights @ positives) * (weights @ negatives))
    return _figure(point, resampled, len(ids), effective, UNIT)


def ece_figure(p_yes: ArrayLike, truth: ArrayLike, clusters: ArrayLike, bins: int = 10) -> Figure:
    """Expected calibration error: mean |share right - mean p_yes| over equal-width bins of p_yes.

    Resampling adds noise and noise adds calibration error, so the resampled values are shifted to
    have the estimate as their mean; otherwise the interval could lie wholly above it.
    """
    scores, right, ids = _checked(p_yes, truth, clusters=clusters)
    gaps, counts = _calibration(scores, right, ids, bins)
    point = float(np.abs(gaps.sum(0)).sum() / counts.sum())
    weights = _weights(len(counts))
    resampled = np.abs(weights @ gaps).sum(1) / (weights @ counts)
    shifted = np.clip(resampled - resampled.mean() + point, 0, 1)
    return _figure(point, shifted, len(ids), len(counts), UNIT)


def judge_figures(said: NDArray, truth: NDArray, p_yes: NDArray, clusters: NDArray) -> dict[str, Figure | None]:
    """All of the above for verdicts ``said`` (0 or 1) on images that are right or wrong: ``truth``."""
    return {
        "accuracy": figure(said == truth, clusters),
        "balanced_accuracy": balanced_accuracy_figure(said, truth, clusters),
        "auroc": auroc_figure(p_yes, truth, clusters),
        "ece": ece_figure(p_yes, truth, clusters),
        "positive_rate": figure(said, clusters),
        "base_rate": figure(truth, clusters),
    }


# ------------------------------------------------------------------------------------ benchmarks


@dataclass(frozen=True)
class Rows:
    """A benchmark's images: which prompt [R] and which family [R] each belongs to."""

    prompts: np.ndarray
    families: np.ndarray

    def by_family(self, values: np.ndarray, bounds: Bounds | None = UNIT) -> dict[str, Figure]:
        return {name: figure(values[mine], self.prompts[mine], bounds) for name, mine in self._members()}

    def overall(self, values: np.ndarray, bounds: Bounds | None = UNIT) -> Figure:
        """Mean of the families' means of ``values`` [R]."""
        return mean_of(self.by_family(values, bounds).values())

    def gain(self, first: np.ndarray, second: np.ndarray) -> Figure:
        """Mean of the families' paired differences ``second`` - ``first``."""
        return mean_of(paired_difference(first[m], second[m], self.prompts[m]) for _, m in self._members())

    def _members(self) -> list[tuple[str, np.ndarray]]:
        return [(name, self.families == name) for name in dict.fromkeys(self.families.tolist())]


# ------------------------------------------------------------------------------------------- parts


def _checked(*arrays: ArrayLike, clusters: ArrayLike | None = None) -> list[NDArray]:
    """Float arrays of one length, then the clusters as numbers 0..C-1."""
    floats = [np.asarray(array, dtype=np.float64) for array in arrays]
    labels = [] if clusters is None else [np.asarray(clusters)]
    if any(array.shape != (len(floats[0]),) for array in [*floats, *labels]) or not len(floats[0]):
        raise ValueError(f"need non-empty arrays of one length, got {[a.shape for a in [*floats, *labels]]}")
    if not all(np.isfinite(array).all() for array in floats):
        raise ValueError("a value is NaN or infinite: leave failed images out and count them")
    return [*floats, *(np.unique(label, return_inverse=True)[1] for label in labels)]


def _checked_labels(said: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    yes, right = _checked(said, truth)
    return yes > 0, right > 0


def _weights(clusters: int) -> Floats:
    """How often each cluster is drawn in each resample: [RESAMPLES, clusters]."""
    rng = np.random.default_rng(SEED)
    return rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=RESAMPLES).astype(np.float64)


def _figure(point: float, resampled: Floats, n: int, effective: int, bounds: Bounds) -> Figure:
    """Percentile interval, or Wilson's on ``bounds`` with ``effective`` observations."""
    if np.ptp(resampled) > EQUAL:
        low, high = (float(x) for x in np.percentile(resampled, (2.5, 97.5)))
    else:
        least, width = bounds[0], bounds[1] - bounds[0]
        share = (point - least) / width if width else 0.0
        low, high = (least + width * end for end in wilson(share, effective))
    return Figure(mean=point, low=min(low, point), high=max(high, point), n=n)


def _combined(mean: float, parts: list[Figure], factors: Iterable[float], n: int) -> Figure:
    """Interval of a weighted sum of independent figures from the ends of theirs (MOVER)."""
    low = high = 0.0
    for part, factor in zip(parts, factors, strict=True):
        down, up = part["mean"] - part["low"], part["high"] - part["mean"]
        if factor < 0:
            down, up = up, down
        low, high = hypot(low, factor * down), hypot(high, factor * up)
    return Figure(mean=mean, low=mean - low, high=mean + high, n=n)


def _wins(scores: Floats, right: NDArray[np.bool_], ids: NDArray[np.int64]) -> Floats:
    """[C, C]: pairs in which a right image of one cluster beats a wrong one of another, ties half."""
    count = int(ids.max()) + 1
    wins = np.zeros((count, count))
    others, other_ids = scores[~right], ids[~right]
    for score, cluster in zip(scores[right], ids[right], strict=True):
        beaten = (others < score) + 0.5 * (others == score)
        wins[cluster] += np.bincount(other_ids, beaten, minlength=count)
    return wins


def _calibration(scores: Floats, right: Floats, ids: NDArray[np.int64], bins: int) -> tuple[Floats, Floats]:
    """Sum of (right - p_yes) by cluster and bin [C, bins], and images by cluster [C]."""
    if scores.min() < 0 or scores.max() > 1:
        raise ValueError("p_yes must lie in [0, 1]")
    place = np.minimum((scores * bins).astype(int), bins - 1)  # 1.0 belongs to the last bin
    counts = np.bincount(ids).astype(np.float64)
    gaps = np.zeros((len(counts), bins))
    np.add.at(gaps, (ids, place), right - scores)
    return gaps, counts
