"""The benchmark on a world: rounds, verdicts, introspection, controls at equal cost; of prompts to draw or of edits.

Chains are sampled once, with the largest round limit. What a smaller limit T would have given is
read off the same chains, since the first rounds do not depend on T. Correct means that every claim of
the task holds. ``overall`` is the plain mean of the families' means, as in GenEval; the figures under
``verdict`` and ``introspection`` are plain means over images or chains.

Edits are reported with more: following and preserving, likeness, trivial editors. PSNR and SSIM are of the final image
against the source outside the region in which the true target differs from it. They are taken of edits that leave no
place open (recolour, replace, remove, and two of these): where a new or moved object may stand anywhere, no region is
the edited one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from janus_r1.chain import Chain, Settings, Task
from janus_r1.eval.drafts import Bench, Drafts, at, controls
from janus_r1.eval.protocol import Sampler, check_families, check_rounds, choose_tasks
from janus_r1.eval.similarity import edited_region, psnr, ssim
from janus_r1.eval.statistics import SEED, Bounds, Figure, Rows, figure, judge_figures, mean_of, paired_difference
from janus_r1.fields import Checked, Count, Positive
from janus_r1.worlds import DEFAULT
from janus_r1.worlds import base as worlds
from janus_r1.worlds.base import Kind, World, WorldTask

VARIETY_TASKS = 20
VARIETY_SEED = 2_000_006  # added to the seed, as that of the controls
CHECKS = ("following", "preserving", "both")


@dataclass(frozen=True)
class WorldOptions(Checked):
    """What to measure."""

    world: str = DEFAULT
    """Its name, a Python file, or module:name."""
    split: str = "test"
    """Of the world's tasks (see data splits)."""
    rounds: tuple[Positive, ...] = (1, 2, 3)
    """Round limits to report."""
    samples: Positive = 4
    """Chains a task."""
    limit: Positive | None = None
    """Tasks at most, taken in turn from the families; a limited run is the beginning of a full one."""
    controls: bool = True
    """Also draw max(rounds) - 1 independent drafts a chain for best-of-N, blind redrawing and the oracle."""
    baselines: bool = True
    """Of edits: also copy the source, draw the target from scratch, and take it through the image tokenizer."""
    variety: Count = 0
    """First drafts of each of 20 tasks that are compared with each other; 0: none."""

    def __post_init__(self) -> None:
        """Raises UserError for values that cannot be meant."""
        super().__post_init__()
        check_rounds(self.rounds)


@dataclass(frozen=True)
class EvalOptions(WorldOptions):
    """How to measure it. Of ``settings``, ``rounds`` and ``early_stop`` are set by the benchmark."""

    kind: Kind = "draw"
    """Prompts to draw, or edits."""
    settings: Settings = field(default_factory=Settings)
    model: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    """Machine and versions. Like ``model`` it is copied into the record, nothing else."""
    training: dict[str, Any] | None = None
    """The model's recipe, steps and seconds; copied, too."""


def evaluate_world(
    sample: Sampler, options: EvalOptions, world: World | None = None, reconstruct: Reconstruct | None = None
) -> dict[str, Any]:
    """Run the benchmark; the result is ready for JSON. Of edits ``following``, ``preserving`` and ``both`` at its top
    are those of the largest round limit.

    ``reconstruct`` takes images through the model's tokenizer; without it edits have no such baseline. A chain with an
    image that the world could not check, or with a p_yes that is no number, is left out of every figure and counted
    under ``failures``.

    Raises:
        UserError: for a split that the world does not have, and when nothing of a family could be scored.
        ValueError: when the sampler breaks its contract.
    """
    world = world or worlds.world(options.world)
    bench, tasks = Bench(sample, world), choose_tasks(world, options.split, options.limit, options.kind)
    numbers = np.repeat(np.arange(len(tasks)), options.samples)
    repeated = [tasks[i] for i in numbers]
    settings = replace(options.settings, rounds=max(options.rounds), early_stop=True)
    drafts, chains = bench.chains(repeated, settings)
    redrawn = bench.independent(drafts, repeated, settings) if options.controls else drafts
    keep = np.isfinite(drafts.score).all(1) & np.isfinite(redrawn.score).all(1)
    rows = Rows(numbers[keep], np.array([task.family for task in repeated])[keep])
    check_families({task.family for task in tasks}, rows.families.tolist(), bench.failures)
    drafts, redrawn = drafts.rows(keep), redrawn.rows(keep)
    limits = sorted(set(options.rounds))
    rounds = {str(t): _after_rounds(rows, drafts, t) for t in limits}
    kept = np.flatnonzero(keep).tolist()
    if options.kind == "edit":
        edited = Edited([repeated[i] for i in kept], [chains[i] for i in kept])
        for limit in limits:
            rounds[str(limit)] |= edit_report(rows, drafts, edited, drafts.final(limit))
    last = rounds[str(settings.rounds)]
    counted = "prompts" if options.kind == "draw" else "cases"
    baselines = options.kind == "edit" and options.baselines
    return {
        **{check: last[check] for check in CHECKS if check in last},
        "run": {
            "benchmark": "world" if options.kind == "draw" else "edit",
            **asdict(options),
            counted: len(tasks),
            "settings": asdict(settings),
        },
        "cost": bench.cost(),
        "failures": {"drafts": len(bench.failures), "chains": int((~keep).sum()), "examples": bench.failures[:3]},
        "rounds": rounds,
        "verdict": _verdict(rows, drafts),
        "introspection": _introspection(rows, drafts, settings),
        **observed(world, rows, [repeated[i] for i in kept], [chains[i] for i in kept]),
        "controls": controls(rows, drafts, redrawn, settings) if options.controls else None,
        "baselines": edit_baselines(sample, reconstruct, world, tasks, settings) if baselines else None,
        "variety": _variety(bench, tasks[:VARIETY_TASKS], options.variety, settings) if options.variety else None,
    }


# ----------------------------------------------------------------------------------------- figures


def _after_rounds(rows: Rows, drafts: Drafts, limit: int) -> dict[str, Any]:
    final = drafts.final(limit)
    correct = at(drafts.correct, final)
    return {
        "overall": rows.overall(correct),
        "families": rows.by_family(correct),
        "score": rows.overall(at(drafts.score, final)),
        "gain": rows.gain(drafts.correct[:, 0], correct) if limit > 1 else None,
        "tokens": rows.overall(drafts.spent(reasons=True)[:, limit - 1], None),
    }


def _variety(bench: Bench, tasks: list[WorldTask], drafts: int, settings: Settings) -> dict[str, Figure | None]:
    """Of several first drafts of each task, drawn for this alone: the share that is distinct, and how far two of them
    are apart, a pixel, of 255."""
    alone = replace(settings, rounds=1, seed=settings.seed + VARIETY_SEED)
    chains = bench.sample([task for task in tasks for _ in range(drafts)], alone)
    groups = [[c.rounds[0].pixels for c in chains[i : i + drafts]] for i in range(0, len(chains), drafts)]
    return variety(groups)


def variety(groups: Sequence[Sequence[np.ndarray]]) -> dict[str, Figure | None]:
    """``distinct`` and ``distance`` of images (uint8 [H, W, 3]) of each task; one image has no distance."""
    distinct = [len({image.tobytes() for image in group}) / len(group) for group in groups]
    apart: list[float] = []
    for group in groups:
        pixels = np.stack(group).astype(np.int16)
        pairs = [np.abs(pixels[i] - pixels[j]).mean() for i in range(len(group)) for j in range(i)]
        apart += [float(np.mean(pairs))] if pairs else []
    return {
        "distinct": figure(distinct, range(len(distinct))),
        "distance": figure(apart, range(len(apart)), (0.0, 255.0)) if apart else None,
    }


def observed(world: World, rows: Rows, tasks: list[WorldTask], chains: list[Chain]) -> dict[str, Any]:
    """What the world itself has to report, as figures; None where nothing was seen."""
    return {
        group: {
            name: figure([value for _, value in seen], rows.prompts[[row for row, _ in seen]]) if seen else None
            for name, seen in named.items()
        }
        for group, named in world.observations(tasks, chains).items()
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
    first, final = drafts.correct[:, 0], at(drafts.correct, drafts.final(settings.rounds))
    return {
        "triggered": figure(1 - drafts.accepted[:, 0], rows.prompts),
        "fixed": figure((1 - first) * final, rows.prompts),
        "broken": figure(first * (1 - final), rows.prompts),
        "gain": paired_difference(first, final, rows.prompts),
        "rounds_used": figure(drafts.drawn.sum(1), rows.prompts, (1, settings.rounds)),
        "tokens": figure(drafts.spent(reasons=True)[:, -1], rows.prompts, None),
    }


# --------------------------------------------------------------------------------------------------------- edits


MAX_PSNR = 60.0  # dB; equal pictures would have infinitely many, and rounding alone costs 59
LIKENESS: dict[str, Bounds] = {"psnr": (0.0, MAX_PSNR), "ssim": (-1.0, 1.0)}

Reconstruct = Callable[[list[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class Edited:
    """Edits with the chains that were sampled for them, row by row."""

    tasks: Sequence[WorldTask]
    chains: Sequence[Chain]


def edit_report(rows: Rows, drafts: Drafts, edited: Edited, final: np.ndarray) -> dict[str, Any]:
    """The three checks of the final drafts, by column [R], and their likeness to the source."""
    images = [chain.rounds[column].pixels for chain, column in zip(edited.chains, final.tolist(), strict=True)]
    checks = {
        "following": at(drafts.following, final),
        "preserving": at(drafts.preserving, final),
        "both": at(drafts.correct, final),
    }
    return {**_checks(rows, checks, edited.tasks), **_likeness(rows, edited.tasks, images)}


def edit_baselines(
    sample: Sampler, reconstruct: Reconstruct | None, world: World, tasks: Sequence[WorldTask], settings: Settings
) -> dict[str, Any]:
    """``copy``: the source as it is. ``from_scratch``: the same model draws the described target, with as many rounds.
    ``tokenizer``: the true target through the image tokenizer, which no edit can beat but by luck."""
    drawn = sample([Task(task.retold) for task in tasks], settings)
    arms = {"copy": [_pixels(task.source) for task in tasks], "from_scratch": [chain.pixels for chain in drawn]}
    if reconstruct:
        arms["tokenizer"] = reconstruct([_pixels(task.target) for task in tasks])
    return {name: _baseline(world, tasks, images) for name, images in arms.items()}


def _baseline(world: World, tasks: Sequence[WorldTask], images: Sequence[np.ndarray]) -> dict[str, Any]:
    """One image a task."""
    rows = Rows(np.arange(len(tasks)), np.array([task.family for task in tasks]))
    found = [world.check(task, image) for task, image in zip(tasks, images, strict=True)]
    checks = {
        "following": np.array([float(one.following.correct) for one in found]),
        "preserving": np.array([float(one.preserving is None or one.preserving.correct) for one in found]),
        "both": np.array([float(one.correct) for one in found]),
    }
    return {**_checks(rows, checks, tasks), **_likeness(rows, tasks, images)}


def _checks(rows: Rows, checks: dict[str, np.ndarray], tasks: Sequence[WorldTask]) -> dict[str, Any]:
    """The three checks, over all, over edits of one step, and by family."""
    by_check = {check: rows.by_family(held) for check, held in checks.items()}
    families = {name: {check: by_check[check][name] for check in checks} for name in by_check["both"]}
    several = {task.family for task in tasks if task.steps > 1}
    return {
        **_means(families.values()),
        "one_step": _means([figures for name, figures in families.items() if name not in several]),
        "families": families,
    }


def _means(families: Iterable[dict[str, Figure]]) -> dict[str, Figure]:
    """The three checks, every family counting the same."""
    parts = list(families)
    return {check: mean_of(part[check] for part in parts) for check in parts[0]} if parts else {}


def _likeness(rows: Rows, tasks: Sequence[WorldTask], images: Sequence[np.ndarray]) -> dict[str, Figure | None]:
    """PSNR in dB, at most ``MAX_PSNR``, and SSIM, both outside the edited region."""
    masks = [_kept(task) for task in tasks]
    chosen = [i for i, mask in enumerate(masks) if mask is not None]
    if not chosen:
        return dict.fromkeys(LIKENESS)
    sources = [_pixels(task.source) for task in tasks]
    measured = {
        "psnr": [min(MAX_PSNR, psnr(sources[i], images[i], masks[i])) for i in chosen],
        "ssim": [ssim(sources[i], images[i], masks[i]) for i in chosen],
    }
    return {name: figure(measured[name], rows.prompts[chosen], bounds) for name, bounds in LIKENESS.items()}


def _kept(task: WorldTask) -> np.ndarray | None:
    """bool [H, W]: what must stay; ``None`` where the place of the edit is open."""
    if not task.settled or task.target is None:
        return None
    return ~edited_region(_pixels(task.source), task.target)


def _pixels(image: np.ndarray | None) -> np.ndarray:
    if image is None:
        raise ValueError("a world's edits have a source and a target")
    return image
