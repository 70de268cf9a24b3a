"""The editing benchmark of the world ``shapes``: following, preserving, both; beside trivial editors.

Chains are sampled once, with the largest round limit; what a smaller one would have given is read off the
same chains. ``overall`` figures are the plain mean of the edit types' means; intervals are over cases.

PSNR and SSIM are of the final image against the source outside the region in which the true target differs
from it. They are taken of edits that leave no place open (recolour, replace, remove, and two of these):
where a new or moved object may stand anywhere, no region is the edited one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from janus_r1.chain import Chain, Round, Settings
from janus_r1.eval.checks import EDIT_SPLITS, check_chains, check_counts, check_families, check_rounds, check_split
from janus_r1.eval.similarity import edited_region, psnr, ssim
from janus_r1.eval.statistics import Bounds, Figure, Rows, figure, judge_figures, mean_of
from janus_r1.worlds.base import Check
from janus_r1.worlds.shapes.edit_cases import EditCase, describe_target, edit_split
from janus_r1.worlds.shapes.edits import KINDS
from janus_r1.worlds.shapes.scene import render
from janus_r1.worlds.shapes.verifier import View, look
from janus_r1.worlds.shapes.verify_edit import check_edit

PLACED = {"recolour", "replace", "remove"}  # edits that happen where an object stands
MAX_PSNR = 60.0  # dB; equal pictures would have infinitely many, and rounding alone costs 59
CHECKS = ("following", "preserving", "both")
LIKENESS: dict[str, Bounds] = {"psnr": (0.0, MAX_PSNR), "ssim": (-1.0, 1.0)}


class Editor(Protocol):
    """What is measured: a model that edits; for the baselines it also draws, and encodes and decodes images."""

    def edit(self, sources: list[np.ndarray], instructions: list[str], settings: Settings) -> list[Chain]: ...

    def draw(self, prompts: list[str], settings: Settings) -> list[Chain]: ...

    def reconstruct(self, images: list[np.ndarray]) -> list[np.ndarray]: ...


@dataclass(frozen=True)
class EditEvalOptions:
    """What to measure. Of ``settings``, ``rounds`` and ``early_stop`` are set by the benchmark."""

    split: str = "test"
    rounds: tuple[int, ...] = (1, 3)
    """Round limits to report."""
    samples: int = 1
    """Chains a case."""
    limit: int | None = None
    """Cases at most; they come type by type in turn, so any limit is balanced."""
    settings: Settings = field(default_factory=Settings)
    baselines: bool = True
    model: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    """Machine and versions. Like ``model`` it is copied into the record, nothing else."""
    training: dict[str, Any] | None = None
    """The model's recipe, steps and seconds; copied, too."""

    def __post_init__(self) -> None:
        """Raises UserError for values that cannot be meant."""
        check_split(self.split, EDIT_SPLITS)
        check_rounds(self.rounds)
        check_counts(self.samples, self.limit)


@dataclass(frozen=True)
class Pictured:
    """A case with its pictures, uint8 [H, W, 3], and what is found in the source."""

    case: EditCase
    source: np.ndarray
    target: np.ndarray
    found: View

    def check(self, image: np.ndarray) -> Check:
        return check_edit(self.found, look(image), self.case.instruction.edits)

    @property
    def kept(self) -> np.ndarray | None:
        """bool [H, W]: what must stay; ``None`` where the place of the edit is open."""
        if not all(edit.kind in PLACED for edit in self.case.instruction.edits):
            return None
        return ~edited_region(self.source, self.target)


def evaluate_edit(editor: Editor, options: EditEvalOptions) -> dict[str, Any]:
    """Run the benchmark; the result is ready for JSON. ``following``, ``preserving`` and ``both`` at its top are
    those of the largest round limit.

    A chain with an image that the verifier failed on, or with a p_yes that is no number, is left out of every
    figure and counted under ``failures``.

    Raises:
        UserError: when nothing of an edit type could be scored.
        ValueError: when the editor breaks its contract.
    """
    cases = [_pictured(case) for case in edit_split(options.split)[: options.limit]]
    numbers = np.repeat(np.arange(len(cases)), options.samples)
    repeated = [cases[number] for number in numbers]
    settings = replace(options.settings, rounds=max(options.rounds), early_stop=True)
    texts = [p.case.instruction.text for p in repeated]
    start = time.perf_counter()
    chains = editor.edit([p.source for p in repeated], texts, settings)
    seconds, images = time.perf_counter() - start, sum(len(chain.rounds) for chain in chains)
    check_chains(chains, texts, settings.rounds, "editor", "case")
    scored, failures = _scored_chains(chains, repeated)
    kept = np.array([row is not None for row in scored])
    rows = Rows(numbers[kept], np.array([p.case.instruction.family for p in repeated])[kept])
    check_families({p.case.instruction.family for p in cases}, rows.families.tolist(), failures)
    whole = [_Scored(c, p, s) for c, p, s in zip(chains, repeated, scored, strict=True) if s is not None]
    limits = {str(t): _after_rounds(rows, whole, t) for t in sorted(set(options.rounds))}
    return {
        **{check: limits[str(settings.rounds)][check] for check in CHECKS},
        "run": {"benchmark": "edit", **asdict(options), "cases": len(cases), "settings": asdict(settings)},
        "cost": {"seconds": seconds, "images": images, "images_per_second": images / seconds if seconds else None},
        "failures": {"chains": int((~kept).sum()), "examples": failures[:3]},
        "rounds": limits,
        "verdict": _verdict(rows, whole),
        "introspection": _introspection(rows, whole),
        "baselines": _baselines(editor, cases, settings) if options.baselines else None,
    }


def _pictured(case: EditCase) -> Pictured:
    source = render(case.source)
    return Pictured(case, source, render(case.target), look(source))


# ------------------------------------------------------------------------------------------ scoring


@dataclass(frozen=True)
class _Scored:
    chain: Chain
    case: Pictured
    rounds: list[Check]


def _scored_chains(chains: Sequence[Chain], cases: Sequence[Pictured]) -> tuple[list[list[Check] | None], list[str]]:
    """Of every chain what holds in each round, or ``None``; and what went wrong."""
    scored: list[list[Check] | None] = []
    failures: list[str] = []
    for chain, case in zip(chains, cases, strict=True):
        try:
            scored.append([_judged(case, item) for item in chain.rounds])
        except Exception as error:  # whatever went wrong, this chain has no score, and a 0 would be a lie
            failures.append(f"{type(error).__name__}: {error}")
            scored.append(None)
    return scored, failures


def _judged(case: Pictured, item: Round) -> Check:
    if not np.isfinite(item.verdict.p_yes):
        raise ValueError(f"p_yes {item.verdict.p_yes}")
    return case.check(item.pixels)


def _holds(found: Check) -> dict[str, float]:
    return {
        "following": float(found.following.correct),
        "preserving": float(found.preserving is None or found.preserving.correct),
        "both": float(found.correct),
    }


# ------------------------------------------------------------------------------------------ figures


def _report(rows: Rows, found: Sequence[Check]) -> dict[str, Any]:
    """The three checks, over all, over edits of one step, and by edit type."""
    held = [_holds(one) for one in found]
    by_check = {check: rows.by_family(np.array([one[check] for one in held])) for check in CHECKS}
    families = {name: {check: by_check[check][name] for check in CHECKS} for name in by_check["both"]}
    return {
        **_means(families.values()),
        "one_step": _means(figures for name, figures in families.items() if name in KINDS),
        "families": families,
    }


def _means(families: Iterable[dict[str, Figure]]) -> dict[str, Figure]:
    """The three checks, every family counting the same."""
    parts = list(families)
    return {check: mean_of(part[check] for part in parts) for check in CHECKS}


def _likeness(rows: Rows, cases: Sequence[Pictured], images: Sequence[np.ndarray]) -> dict[str, Figure | None]:
    """PSNR in dB, at most ``MAX_PSNR``, and SSIM, both outside the edited region."""
    masks = [case.kept for case in cases]
    chosen = [i for i, mask in enumerate(masks) if mask is not None]
    if not chosen:
        return dict.fromkeys(LIKENESS)
    measured = {
        "psnr": [min(MAX_PSNR, psnr(cases[i].source, images[i], masks[i])) for i in chosen],
        "ssim": [ssim(cases[i].source, images[i], masks[i]) for i in chosen],
    }
    return {name: figure(measured[name], rows.prompts[chosen], bounds) for name, bounds in LIKENESS.items()}


def _after_rounds(rows: Rows, scored: Sequence[_Scored], limit: int) -> dict[str, Any]:
    finals = [one.chain.final_within(limit) for one in scored]
    found = [one.rounds[final] for one, final in zip(scored, finals, strict=True)]
    images = [one.chain.rounds[final].pixels for one, final in zip(scored, finals, strict=True)]
    first = np.array([float(one.rounds[0].correct) for one in scored])
    after = np.array([float(one.correct) for one in found])
    tokens = [sum(len(r.ids) + len(r.verdict.ids) for r in one.chain.rounds[:limit]) for one in scored]
    return {
        **_report(rows, found),
        **_likeness(rows, [one.case for one in scored], images),
        "gain": rows.gain(first, after) if limit > 1 else None,
        "tokens": rows.overall(np.array(tokens, dtype=float), None),
    }


def _verdict(rows: Rows, scored: Sequence[_Scored]) -> dict[str, Figure | None]:
    """The model as a judge of its first edits: against both checks."""
    verdicts = [one.chain.rounds[0].verdict for one in scored]
    right = np.array([float(one.rounds[0].correct) for one in scored])
    said, p_yes = np.array([float(v.accepted) for v in verdicts]), np.array([v.p_yes for v in verdicts])
    return judge_figures(said, right, p_yes, rows.prompts)


def _introspection(rows: Rows, scored: Sequence[_Scored]) -> dict[str, Figure]:
    """What judging and redrawing did, under the largest round limit."""
    limit = max(len(one.rounds) for one in scored)
    first = np.array([float(one.rounds[0].correct) for one in scored])
    final = np.array([float(one.rounds[one.chain.final_within(limit)].correct) for one in scored])
    rejected = np.array([float(not one.chain.rounds[0].verdict.accepted) for one in scored])
    return {
        "triggered": figure(rejected, rows.prompts),
        "fixed": figure((1 - first) * final, rows.prompts),
        "broken": figure(first * (1 - final), rows.prompts),
    }


# ---------------------------------------------------------------------------------------- baselines


def _baselines(editor: Editor, cases: Sequence[Pictured], settings: Settings) -> dict[str, Any]:
    """``copy``: the source as it is. ``from_scratch``: the same model draws the described target, with as many rounds.
    ``tokenizer``: the true target through the image tokenizer, which no edit can beat but by luck."""
    drawn = editor.draw([describe_target(p.case) for p in cases], settings)
    return {
        "copy": _baseline(cases, [p.source for p in cases]),
        "from_scratch": _baseline(cases, [chain.image for chain in drawn]),
        "tokenizer": _baseline(cases, editor.reconstruct([p.target for p in cases])),
    }


def _baseline(cases: Sequence[Pictured], images: Sequence[np.ndarray]) -> dict[str, Any]:
    """One image a case."""
    rows = Rows(np.arange(len(cases)), np.array([p.case.instruction.family for p in cases]))
    found = [case.check(image) for case, image in zip(cases, images, strict=True)]
    return {**_report(rows, found), **_likeness(rows, cases, images)}
