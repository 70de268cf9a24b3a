"""What the benchmark on a world reports of edits alone: following and preserving, likeness, trivial editors.

PSNR and SSIM are of the final image against the source outside the region in which the true target differs
from it. They are taken of edits that leave no place open (recolour, replace, remove, and two of these):
where a new or moved object may stand anywhere, no region is the edited one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from janus_r1.chain import Chain, Settings, Task
from janus_r1.eval.drafts import Drafts, at
from janus_r1.eval.protocol import Sampler
from janus_r1.eval.similarity import edited_region, psnr, ssim
from janus_r1.eval.statistics import Bounds, Figure, Rows, figure, mean_of
from janus_r1.worlds.base import World, WorldTask

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
