"""The benchmark on the world ``shapes``: rounds, verdicts, introspection, controls at equal cost.

Chains are sampled once, with the largest round limit. What a smaller limit T would have given is
read off the same chains, since the first rounds do not depend on T. Correct means that every fact of
the prompt holds. ``overall`` is the plain mean of the families' means, as in GenEval; the figures under
``verdict`` and ``introspection`` are plain means over images or chains.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from janus_r1.chain import Chain, Round, Settings
from janus_r1.eval.balance import in_turn
from janus_r1.eval.checks import check_chains, check_counts, check_families, check_rounds, check_split
from janus_r1.eval.statistics import SEED, Figure, Rows, figure, judge_figures, paired_difference
from janus_r1.world.prompts import Prompt, split
from janus_r1.world.scene import Description
from janus_r1.world.verify import Verification, verify

CONTROL_SEED = 1_000_003  # added to the seed: far from the seeds that people try one after another

Sampler = Callable[[list[str], Settings], list[Chain]]
Verifier = Callable[[np.ndarray, Description], Verification]
Rival = np.ndarray | None


@dataclass(frozen=True)
class EvalOptions:
    """What to measure. Of ``settings``, ``rounds`` and ``early_stop`` are set by the benchmark."""

    split: str = "test"
    rounds: tuple[int, ...] = (1, 2, 3)
    """Round limits to report."""
    samples: int = 4
    """Chains a prompt."""
    limit: int | None = None
    """Prompts at most, taken in turn from the families; a limited run is the beginning of a full one."""
    settings: Settings = field(default_factory=Settings)
    controls: bool = True
    """Also draw max(rounds) - 1 independent drafts a chain for best-of-N, blind redrawing and the oracle."""
    model: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    """Machine and versions. Like ``model`` it is copied into the record, nothing else."""
    training: dict[str, Any] | None = None
    """The model's recipe, steps and seconds; copied, too."""

    def __post_init__(self) -> None:
        """Raises UserError for values that cannot be meant."""
        check_split(self.split)
        check_rounds(self.rounds)
        check_counts(self.samples, self.limit)


def evaluate_world(sample: Sampler, options: EvalOptions, verifier: Verifier = verify) -> dict[str, Any]:
    """Run the benchmark; the result is ready for JSON.

    ``sample(prompts, settings)`` returns one chain a prompt, in order; repeated prompts must differ by
    their row. A chain with an image that the verifier failed on, or with a p_yes that is no number, is
    left out of every figure and counted under ``failures``.

    Raises:
        UserError: when nothing of a family could be scored.
        ValueError: when the sampler breaks its contract.
    """
    bench, prompts = _Bench(sample, verifier), choose_prompts(options.split, options.limit)
    numbers = np.repeat(np.arange(len(prompts)), options.samples)
    repeated = [prompts[i] for i in numbers]
    settings = replace(options.settings, rounds=max(options.rounds), early_stop=True)
    drafts = bench.chains(repeated, settings)
    redrawn = bench.independent(drafts, repeated, settings) if options.controls else drafts
    keep = np.isfinite(drafts.score).all(1) & np.isfinite(redrawn.score).all(1)
    rows = Rows(numbers[keep], np.array([p.family for p in repeated])[keep])
    check_families({p.family for p in prompts}, rows.families.tolist(), bench.failures)
    drafts, redrawn = drafts.rows(keep), redrawn.rows(keep)
    return {
        "run": {"benchmark": "world", **asdict(options), "prompts": len(prompts), "settings": asdict(settings)},
        "cost": bench.cost(),
        "failures": {"drafts": len(bench.failures), "chains": int((~keep).sum()), "examples": bench.failures[:3]},
        "rounds": {str(t): _after_rounds(rows, drafts, t, settings) for t in sorted(set(options.rounds))},
        "verdict": _verdict(rows, drafts),
        "introspection": _introspection(rows, drafts, settings),
        "controls": _controls(rows, drafts, redrawn, settings) if options.controls else None,
    }


def choose_prompts(name: str, limit: int | None = None) -> list[Prompt]:
    """Prompts of a split, one of each family in turn, so that any limit is balanced."""
    return in_turn(split(name), lambda prompt: prompt.family)[:limit]


# ----------------------------------------------------------------------------- sampling and scoring


class Drafts(NamedTuple):
    """Judged drafts in the order drawn: float64 arrays [R, T], one row a chain.

    After a chain's end its last draft is repeated with ``drawn`` and tokens 0. A failed draft has
    ``correct``, ``score`` and ``p_yes`` NaN, which no statistic accepts.
    """

    correct: np.ndarray
    score: np.ndarray
    p_yes: np.ndarray
    accepted: np.ndarray
    image_tokens: np.ndarray
    text_tokens: np.ndarray
    drawn: np.ndarray

    def rows(self, keep: np.ndarray) -> Drafts:
        return Drafts(*(array[keep] for array in self))

    def spent(self, reasons: bool) -> np.ndarray:
        """Tokens up to and including each draft [R, T]; without reasons a verdict is its one word."""
        text = self.text_tokens if reasons else np.minimum(self.text_tokens, 1)
        return np.cumsum(self.image_tokens + text, axis=1)


@dataclass
class _Bench:
    """The sampler and the verifier, with a clock, a counter and a record of failures."""

    sample: Sampler
    verifier: Verifier
    seconds: float = 0.0
    images: int = 0
    failures: list[str] = field(default_factory=list)

    def chains(self, prompts: list[Prompt], settings: Settings) -> Drafts:
        """Sample and score one chain a prompt."""
        texts = [p.text for p in prompts]
        start = time.perf_counter()
        chains = self.sample(texts, settings)
        self.seconds += time.perf_counter() - start
        check_chains(chains, texts, settings.rounds, "sampler", "prompt")
        self.images += sum(len(c.rounds) for c in chains)
        cells = np.zeros((len(chains), settings.rounds, len(Drafts._fields)))
        for row, chain, prompt in zip(cells, chains, prompts, strict=True):
            row[: len(chain.rounds)] = [self._score(draft, prompt.description) for draft in chain.rounds]
            row[len(chain.rounds) :, :4] = row[len(chain.rounds) - 1, :4]  # correct to accepted; no tokens
        return Drafts(*np.moveaxis(cells, -1, 0))

    def independent(self, drafts: Drafts, prompts: list[Prompt], settings: Settings) -> Drafts:
        """T judged drafts a row that know nothing of each other; the first is the chain's own."""
        extra = settings.rounds - 1
        if not extra:
            return drafts
        alone = replace(settings, rounds=1, seed=settings.seed + CONTROL_SEED)
        singles = self.chains([p for p in prompts for _ in range(extra)], alone)
        others = [array.reshape(len(prompts), extra) for array in singles]
        return Drafts(*(np.hstack([own[:, :1], new]) for own, new in zip(drafts, others, strict=True)))

    def _score(self, draft: Round, description: Description) -> tuple[float, ...]:
        """The fields of Drafts for one draft."""
        verdict = draft.verdict
        rest = (float(verdict.accepted), len(draft.ids), len(verdict.ids), 1.0)
        try:
            found = self.verifier(draft.pixels, description)
            if not np.isfinite(found.score) or not np.isfinite(verdict.p_yes):
                raise ValueError(f"score {found.score}, p_yes {verdict.p_yes}")
        except Exception as error:  # whatever went wrong, this image has no score, and a 0 would be a lie
            self.failures.append(f"{type(error).__name__}: {error}")
            return (np.nan, np.nan, np.nan, *rest)
        return (float(found.correct), found.score, verdict.p_yes, *rest)

    def cost(self) -> dict[str, float | None]:
        """Of sampling alone, controls included; verification is not counted."""
        rate = self.images / self.seconds if self.seconds else None
        return {"seconds": self.seconds, "images": self.images, "images_per_second": rate}


# ----------------------------------------------------------------------------------------- figures


def _final(drafts: Drafts, limit: int, settings: Settings) -> np.ndarray:
    """Column of the final draft [R] under a round limit."""
    if settings.final == "best":
        return drafts.p_yes[:, :limit].argmax(1)
    return np.minimum(limit, drafts.drawn.sum(1).astype(int)) - 1


def _at(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """values[r, columns[r]] for every row r."""
    return values[np.arange(len(values)), columns]


def _after_rounds(rows: Rows, drafts: Drafts, limit: int, settings: Settings) -> dict[str, Any]:
    final = _final(drafts, limit, settings)
    correct = _at(drafts.correct, final)
    return {
        "overall": rows.overall(correct),
        "families": rows.by_family(correct),
        "score": rows.overall(_at(drafts.score, final)),
        "gain": rows.gain(drafts.correct[:, 0], correct) if limit > 1 else None,
        "tokens": rows.overall(drafts.spent(reasons=True)[:, limit - 1], None),
    }


def _verdict(rows: Rows, drafts: Drafts) -> dict[str, Any]:
    """The judge on first drafts, on all drafts, and on as many right as wrong first drafts."""
    drawn = drafts.drawn > 0
    everywhere = np.broadcast_to(rows.prompts[:, None], drawn.shape)[drawn]
    said, right, p_yes = drafts.accepted[:, 0], drafts.correct[:, 0], drafts.p_yes[:, 0]
    half = _balanced_subsample(right)
    return {
        **judge_figures(said, right, p_yes, rows.prompts),
        "all_drafts": judge_figures(drafts.accepted[drawn], drafts.correct[drawn], drafts.p_yes[drawn], everywhere),
        "balanced": figure(said[half] == right[half], rows.prompts[half]) if len(half) else None,
    }


def _balanced_subsample(right: np.ndarray) -> np.ndarray:
    """Indices of as many right as wrong images, drawn with a fixed seed; empty when a class is missing."""
    rng = np.random.default_rng(SEED)
    classes = [np.flatnonzero(right > 0), np.flatnonzero(right == 0)]
    size = min(map(len, classes))
    return np.sort(np.concatenate([rng.choice(members, size, replace=False) for members in classes]))


def _introspection(rows: Rows, drafts: Drafts, settings: Settings) -> dict[str, Figure]:
    """What judging and redrawing did to each chain, under the largest round limit."""
    first, final = drafts.correct[:, 0], _at(drafts.correct, _final(drafts, settings.rounds, settings))
    return {
        "triggered": figure(1 - drafts.accepted[:, 0], rows.prompts),
        "fixed": figure((1 - first) * final, rows.prompts),
        "broken": figure(first * (1 - final), rows.prompts),
        "gain": paired_difference(first, final, rows.prompts),
        "rounds_used": figure(drafts.drawn.sum(1), rows.prompts, (1, settings.rounds)),
        "tokens": figure(drafts.spent(reasons=True)[:, -1], rows.prompts, None),
    }


# ---------------------------------------------------------------------------------------- controls


def _controls(rows: Rows, chains: Drafts, drafts: Drafts, settings: Settings) -> dict[str, Any]:
    """Other ways to spend the tokens, on independent ``drafts``; the chains' ``advantage`` is paired.

    They need the verdict's word alone, so only that is charged to them, not the reason behind it.
    One draft is the chain's own, so there is no advantage to measure.
    """
    limits = range(1, settings.rounds + 1)
    spent = drafts.spent(reasons=False)
    arms = {n: _at(chains.correct, _final(chains, n, settings)) for n in limits[1:]}
    best = {n: drafts.p_yes[:, :n].argmax(1) for n in limits}
    blind = {n: _until_yes(drafts, n) for n in limits}
    target = rows.overall(chains.spent(reasons=True)[:, -1], None)["mean"]
    picked = np.stack([_at(drafts.correct, best[n]) for n in limits], axis=1)
    return {
        "best_of_n": {str(n): _arm(rows, drafts, best[n], spent[:, n - 1], arms.get(n)) for n in limits},
        "best_of_n_equal_tokens": _equal_tokens(rows, picked, spent, target, arms.get(settings.rounds)),
        "blind_redraw": {str(n): _arm(rows, drafts, blind[n], _at(spent, blind[n]), arms.get(n)) for n in limits},
        "oracle": {str(n): rows.overall(drafts.correct[:, :n].max(1)) for n in limits},
    }


def _until_yes(drafts: Drafts, limit: int) -> np.ndarray:
    """Column [R] of the first accepted of ``limit`` drafts, else of the last."""
    accepted = drafts.accepted[:, :limit] > 0
    return np.where(accepted.any(1), accepted.argmax(1), limit - 1)


def _arm(rows: Rows, drafts: Drafts, chosen: np.ndarray, spent: np.ndarray, rival: Rival) -> dict[str, Figure | None]:
    correct = _at(drafts.correct, chosen)
    return {
        "overall": rows.overall(correct),
        "score": rows.overall(_at(drafts.score, chosen)),
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
