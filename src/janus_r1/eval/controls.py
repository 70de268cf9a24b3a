"""Controls of introspection: best of N, blind redrawing and the oracle, at the chains' cost in tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from janus_r1.chain import Settings
from janus_r1.eval.drafts import Drafts, at
from janus_r1.eval.statistics import Figure, Rows

Rival = np.ndarray | None


def controls(rows: Rows, chains: Drafts, drafts: Drafts, settings: Settings) -> dict[str, Any]:
    """Other ways to spend the tokens, on independent ``drafts``; the chains' ``advantage`` is paired.

    They need the verdict's word alone, so only that is charged to them, not the reason behind it.
    One draft is the chain's own, so there is no advantage to measure.
    """
    limits = range(1, settings.rounds + 1)
    spent = drafts.spent(reasons=False)
    arms = {n: at(chains.correct, chains.final(n, settings)) for n in limits[1:]}
    best = {n: drafts.p_yes[:, :n].argmax(1) for n in limits}
    blind = {n: _until_yes(drafts, n) for n in limits}
    target = rows.overall(chains.spent(reasons=True)[:, -1], None)["mean"]
    picked = np.stack([at(drafts.correct, best[n]) for n in limits], axis=1)
    return {
        "best_of_n": {str(n): _arm(rows, drafts, best[n], spent[:, n - 1], arms.get(n)) for n in limits},
        "best_of_n_equal_tokens": _equal_tokens(rows, picked, spent, target, arms.get(settings.rounds)),
        "blind_redraw": {str(n): _arm(rows, drafts, blind[n], at(spent, blind[n]), arms.get(n)) for n in limits},
        "oracle": {str(n): rows.overall(drafts.correct[:, :n].max(1)) for n in limits},
    }


def _until_yes(drafts: Drafts, limit: int) -> np.ndarray:
    """Column [R] of the first accepted of ``limit`` drafts, else of the last."""
    accepted = drafts.accepted[:, :limit] > 0
    return np.where(accepted.any(1), accepted.argmax(1), limit - 1)


def _arm(rows: Rows, drafts: Drafts, chosen: np.ndarray, spent: np.ndarray, rival: Rival) -> dict[str, Figure | None]:
    correct = at(drafts.correct, chosen)
    return {
        "overall": rows.overall(correct),
        "score": rows.overall(at(drafts.score, chosen)),
        "tokens": rows.overall(spent, None),
        "advantage": None if rival is None else rows.gain(correct, rival),
    }


def _equal_tokens(rows: Rows, picked: np.ndarray, spent: np.ndarray, target: float, rival: Rival) -> dict[str, Any]:
    """Best-of-N between the two N whose mean cost encloses ``target`` tokens, by linear interpolation.

    ``picked`` and ``spent`` are [R, N]. ``reached`` is False when even the largest N costs less.
    """
    costs = [rows.overall(column, None)["mean"] for column in spent.T]
    n = float(np.interp(target, costs, np.arange(1, len(costs) + 1)))
    low, share = int(n) - 1, n - int(n)
    correct = (1 - share) * picked[:, low] + share * picked[:, min(low + 1, len(costs) - 1)]
    return {
        "n": n,
        "tokens": min(target, costs[-1]),
        "reached": target <= costs[-1],
        "overall": rows.overall(correct),
        "advantage": None if rival is None else rows.gain(correct, rival),
    }
