"""Judged drafts as arrays, what the benchmark on a world computes with; and the controls of introspection.

Controls are other ways to spend the same tokens on drafts that know nothing of each other: best of N, blind redrawing,
and the oracle that takes any right one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from janus_r1.chain import Chain, Round, Settings, standing
from janus_r1.eval.protocol import CONTROL_SEED, Sampler, check_chains
from janus_r1.eval.statistics import Figure, Rows
from janus_r1.worlds.base import World, WorldTask

PREFILLS = 2  # passes that read: what stands before a draft, and the draft


class Drafts(NamedTuple):
    """Judged drafts in the order drawn: float64 arrays [R, T], one row a chain.

    After a chain's end its last draft is repeated with ``drawn`` and tokens 0. A failed draft has
    everything from ``correct`` to ``p_yes`` NaN, which no statistic accepts.
    """

    correct: np.ndarray
    score: np.ndarray
    following: np.ndarray
    """Of edits: whether the instruction holds, the rest left aside."""
    preserving: np.ndarray
    """Of edits: whether the rest is unchanged."""
    p_yes: np.ndarray
    accepted: np.ndarray
    image_tokens: np.ndarray
    text_tokens: np.ndarray
    """Of the word and the reason behind it."""
    list_tokens: np.ndarray
    """Of the list before the word, in the format that has one."""
    drawn: np.ndarray
    standing: np.ndarray
    """What best of N goes by, as a chain does (:func:`janus_r1.chain.standing`)."""
    chosen: np.ndarray
    """Column of the final draft, had there been at most so many rounds, as the chain itself says."""

    def rows(self, keep: np.ndarray) -> Drafts:
        return Drafts(*(array[keep] for array in self))

    def final(self, limit: int) -> np.ndarray:
        """Column of the final draft [R] under a round limit."""
        return self.chosen[:, limit - 1].astype(int)

    def spent(self, reasons: bool) -> np.ndarray:
        """Tokens up to and including each draft [R, T]; without reasons a verdict is what leads to its word."""
        text = self.text_tokens if reasons else np.minimum(self.text_tokens, 1)
        return np.cumsum(self.image_tokens + self.list_tokens + text, axis=1)

    def forwards(self, reasons: bool) -> np.ndarray:
        """Passes through the model up to and including each draft [R, T]: one a token, two to read before them."""
        return self.spent(reasons) + PREFILLS * np.cumsum(self.drawn, axis=1)


def at(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """values[r, columns[r]] for every row r."""
    return values[np.arange(len(values)), columns]


@dataclass
class Bench:
    """The model and the world, with a clock, a counter and a record of failures."""

    sample: Sampler
    world: World
    seconds: float = 0.0
    images: int = 0
    failures: list[str] = field(default_factory=list)

    def chains(self, tasks: list[WorldTask], settings: Settings) -> tuple[Drafts, list[Chain]]:
        """Sample and score one chain a task."""
        start = time.perf_counter()
        chains = self.sample(list(tasks), settings)
        self.seconds += time.perf_counter() - start
        check_chains(chains, [task.prompt for task in tasks], settings.rounds, "task")
        self.images += sum(len(c.rounds) for c in chains)
        cells = np.zeros((len(chains), settings.rounds, len(Drafts._fields)))
        for row, chain, task in zip(cells, chains, tasks, strict=True):
            row[: len(chain.rounds), :-1] = [self._score(draft, task) for draft in chain.rounds]
            row[len(chain.rounds) :, :6] = row[len(chain.rounds) - 1, :6]  # correct to accepted; no tokens
            row[:, -1] = [chain.final_within(limit) for limit in range(1, settings.rounds + 1)]
        return Drafts(*np.moveaxis(cells, -1, 0)), chains

    def independent(self, drafts: Drafts, tasks: list[WorldTask], settings: Settings) -> Drafts:
        """T judged drafts a row that know nothing of each other; the first is the chain's own."""
        extra = settings.rounds - 1
        if not extra:
            return drafts
        alone = replace(settings, rounds=1, seed=settings.seed + CONTROL_SEED)
        singles, _ = self.chains([task for task in tasks for _ in range(extra)], alone)
        others = [array.reshape(len(tasks), extra) for array in singles]
        return Drafts(*(np.hstack([own[:, :1], new]) for own, new in zip(drafts, others, strict=True)))

    def _score(self, draft: Round, task: WorldTask) -> tuple[float, ...]:
        """The fields of Drafts for one draft, but for the last."""
        verdict = draft.verdict
        tokens = len(draft.ids), len(verdict.ids), len(verdict.list_ids)
        rest = (float(verdict.accepted), *tokens, 1.0, standing(verdict))
        try:
            found = self.world.check(task, draft.pixels)
            following, preserving = found.following.correct, found.preserving is None or found.preserving.correct
            values = (float(found.correct), found.score, float(following), float(preserving), verdict.p_yes)
            if not np.isfinite(values).all():
                raise ValueError(f"score {found.score}, p_yes {verdict.p_yes}")
        except Exception as error:  # whatever went wrong, this image has no score, and a 0 would be a lie
            self.failures.append(f"{type(error).__name__}: {error}")
            return (*[np.nan] * 5, *rest)
        return (*values, *rest)

    def cost(self) -> dict[str, float | None]:
        """Of sampling alone, controls included; checking is not counted."""
        rate = self.images / self.seconds if self.seconds else None
        return {"seconds": self.seconds, "images": self.images, "images_per_second": rate}


# ---------------------------------------------------------------------------------------- controls

Rival = np.ndarray | None


class Control(NamedTuple):
    """A way to choose among N = 1, 2, ... drafts that know nothing of each other: int arrays [R, N]."""

    picked: np.ndarray
    """Column of the draft that is taken."""
    drawn: np.ndarray
    """How many are drawn."""


def ways(standings: np.ndarray, accepted: np.ndarray) -> dict[str, Control]:
    """Best of N by their standing, and redrawing until a Yes, else the last; of independent drafts [R, N]."""
    most = range(1, standings.shape[1] + 1)
    yes = accepted > 0
    best = np.stack([standings[:, :n].argmax(1) for n in most], axis=1)
    blind = np.stack([np.where(yes[:, :n].any(1), yes[:, :n].argmax(1), n - 1) for n in most], axis=1)
    return {
        "best_of_n": Control(best, np.broadcast_to(np.array(most), best.shape)),
        "blind_redraw": Control(blind, blind + 1),
    }


@dataclass(frozen=True)
class Between:
    """A control at a cost between those of two N, by linear interpolation."""

    n: float
    reached: bool
    """False where even the largest N costs less."""

    def of(self, columns: np.ndarray) -> np.ndarray:
        """[R, N] -> [R]."""
        low, share = int(self.n) - 1, self.n - int(self.n)
        return (1 - share) * columns[:, low] + share * columns[:, min(low + 1, columns.shape[1] - 1)]


def at_cost(costs: Sequence[float], target: float) -> Between:
    """``costs`` are the mean ones of N = 1, 2, ..."""
    return Between(float(np.interp(target, costs, np.arange(1, len(costs) + 1))), target <= costs[-1])


def controls(rows: Rows, chains: Drafts, drafts: Drafts, settings: Settings) -> dict[str, Any]:
    """Other ways to spend the tokens, on independent ``drafts``; the chains' ``advantage`` is paired.

    They need a verdict's word, so they are charged for it and for the list that leads to it, but not for the reason
    behind it. Their first draft is the chain's own: with one draft there is no advantage to measure.
    """
    limits = range(1, settings.rounds + 1)
    spent, forwards = drafts.spent(reasons=False), drafts.forwards(reasons=False)
    rivals = {n: at(chains.correct, chains.final(n)) for n in limits[1:]}
    chosen = ways(drafts.standing, drafts.accepted)
    arms = {
        name: {
            str(n): _arm(rows, drafts, way.picked[:, n - 1], at(spent, way.drawn[:, n - 1] - 1), rivals.get(n))
            for n in limits
        }
        for name, way in chosen.items()
    }
    picked = np.take_along_axis(drafts.correct, chosen["best_of_n"].picked, axis=1)

    def at_equal(costs: np.ndarray, chains_own: np.ndarray) -> dict[str, Any]:
        """Best of N at the chains' mean cost, tokens or forwards [R, N]."""
        means = [rows.overall(column, None)["mean"] for column in costs.T]
        target = rows.overall(chains_own[:, -1], None)["mean"]
        equal, last = at_cost(means, target), rivals.get(settings.rounds)
        correct = equal.of(picked)
        return {
            "n": equal.n,
            "tokens": min(target, means[-1]),
            "reached": equal.reached,
            "overall": rows.overall(correct),
            "advantage": None if last is None else rows.gain(correct, last),
        }

    return {
        "best_of_n": arms["best_of_n"],
        "best_of_n_equal_tokens": at_equal(spent, chains.spent(reasons=True)),
        "best_of_n_equal_forwards": at_equal(forwards, chains.forwards(reasons=True)),
        "blind_redraw": arms["blind_redraw"],
        "oracle": {str(n): rows.overall(drafts.correct[:, :n].max(1)) for n in limits},
    }


def _arm(rows: Rows, drafts: Drafts, chosen: np.ndarray, spent: np.ndarray, rival: Rival) -> dict[str, Figure | None]:
    correct = at(drafts.correct, chosen)
    return {
        "overall": rows.overall(correct),
        "score": rows.overall(at(drafts.score, chosen)),
        "tokens": rows.overall(spent, None),
        "advantage": None if rival is None else rows.gain(correct, rival),
    }
