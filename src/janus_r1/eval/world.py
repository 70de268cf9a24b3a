"""The benchmark on the world ``shapes``: rounds, verdicts, introspection, controls at equal cost.

Chains are sampled once, with the largest round limit. What a smaller limit T would have given is
read off the same chains, since the first rounds do not depend on T. Correct means that every fact of
the prompt holds. ``overall`` is the plain mean of the families' means, as in GenEval; the figures under
``verdict`` and ``introspection`` are plain means over images or chains.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from janus_r1.chain import Settings
from janus_r1.eval.balance import in_turn
from janus_r1.eval.checks import check_counts, check_families, check_rounds, check_split
from janus_r1.eval.controls import controls
from janus_r1.eval.drafts import Bench, Drafts, Sampler, Verifier, at
from janus_r1.eval.statistics import SEED, Figure, Rows, figure, judge_figures, paired_difference
from janus_r1.worlds.shapes.prompts import Prompt, split
from janus_r1.worlds.shapes.verifier import verify


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
    bench, prompts = Bench(sample, verifier), choose_prompts(options.split, options.limit)
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
        "controls": controls(rows, drafts, redrawn, settings) if options.controls else None,
    }


def choose_prompts(name: str, limit: int | None = None) -> list[Prompt]:
    """Prompts of a split, one of each family in turn, so that any limit is balanced."""
    return in_turn(split(name), lambda prompt: prompt.family)[:limit]


# ----------------------------------------------------------------------------------------- figures


def _after_rounds(rows: Rows, drafts: Drafts, limit: int, settings: Settings) -> dict[str, Any]:
    final = drafts.final(limit, settings)
    correct = at(drafts.correct, final)
    return {
        "overall": rows.overall(correct),
        "families": rows.by_family(correct),
        "score": rows.overall(at(drafts.score, final)),
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
    first, final = drafts.correct[:, 0], at(drafts.correct, drafts.final(settings.rounds, settings))
    return {
        "triggered": figure(1 - drafts.accepted[:, 0], rows.prompts),
        "fixed": figure((1 - first) * final, rows.prompts),
        "broken": figure(first * (1 - final), rows.prompts),
        "gain": paired_difference(first, final, rows.prompts),
        "rounds_used": figure(drafts.drawn.sum(1), rows.prompts, (1, settings.rounds)),
        "tokens": figure(drafts.spent(reasons=True)[:, -1], rows.prompts, None),
    }
