"""What the image tokenizer keeps: a world's pictures, encoded and decoded, before the world's check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from janus_r1.eval.statistics import figure
from janus_r1.fields import Checked, Count, Positive
from janus_r1.worlds import DEFAULT
from janus_r1.worlds import base as worlds

if TYPE_CHECKING:
    from janus_r1.model.janus import Janus


@dataclass(frozen=True)
class TokenizerOptions(Checked):
    """Which pictures are encoded."""

    world: str = DEFAULT
    """Its name, a Python file, or module:name."""
    scenes: Positive = 1000
    """Scenes to encode and decode."""
    seed: Count = 1_000_000
    """Of the scenes: far from training's seeds."""
    batch: Positive = 100
    """Scenes at once."""


def evaluate_tokenizer(model: Janus, options: TokenizerOptions) -> dict[str, Any]:
    """Share of pictures of which every claim survives, with and without combinations that training never shows;
    ids used; error.

    ``error`` is the root mean square over all pixels, in grey levels of 255.
    """
    return {
        "seen_combinations": _survival(model, options, all_combinations=False),
        "all_combinations": _survival(model, options, all_combinations=True),
    }


def _survival(model: Janus, options: TokenizerOptions, all_combinations: bool) -> dict[str, Any]:
    from janus_r1.model.janus import from_uint8  # torch only where it is needed

    world = worlds.world(options.world)
    pictures = world.pictures(options.scenes, options.seed, all_combinations)
    kept, squares, used = [], [], set()
    for start in range(0, len(pictures), options.batch):
        tasks, shown = zip(*pictures[start : start + options.batch], strict=True)
        images = np.stack(shown)
        ids = model.encode_image(from_uint8(images).to(model.device))
        decoded = model.decode_image(ids)
        used |= set(ids.flatten().tolist())
        squares.append(np.square(decoded.astype(float) - images).mean())
        kept += [world.check(task, image).correct for task, image in zip(tasks, decoded, strict=True)]
    values = np.array(kept, dtype=float)
    return {
        "kept": figure(values, np.arange(len(values))),
        "ids_used": len(used),
        "error": float(np.sqrt(np.mean(squares))),
    }
