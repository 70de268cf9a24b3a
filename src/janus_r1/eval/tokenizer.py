"""What the image tokenizer keeps: fresh scenes, encoded and decoded, before the verifier."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from janus_r1.eval.statistics import figure
from janus_r1.model.janus import Janus, from_uint8
from janus_r1.worlds.shapes.scene import Description, Scene, Slot, random_description, render, sample_scene
from janus_r1.worlds.shapes.verifier import verify


@dataclass(frozen=True)
class TokenizerOptions:
    """Which scenes are encoded."""

    scenes: int = 1000
    seed: int = 1_000_000
    """Far from training's seeds."""
    batch: int = 100


def full_description(scene: Scene) -> Description:
    """Everything about a scene's objects but their places."""
    return Description(tuple(Slot(o.shape, o.colour, o.size) for o in scene.objects))


def evaluate_tokenizer(model: Janus, options: TokenizerOptions) -> dict[str, Any]:
    """Share of scenes whose every object survives, with and without held-out pairs; ids used; error.

    ``error`` is the root mean square over all pixels, in grey levels of 255.
    """
    return {
        "seen_combinations": _survival(model, options, held_out=False),
        "all_combinations": _survival(model, options, held_out=True),
    }


def _survival(model: Janus, options: TokenizerOptions, held_out: bool) -> dict[str, Any]:
    rng = random.Random(options.seed)
    scenes = [sample_scene(random_description(rng), rng, allow_held_out=held_out) for _ in range(options.scenes)]
    kept, squares, used = [], [], set()
    for start in range(0, len(scenes), options.batch):
        part = scenes[start : start + options.batch]
        images = np.stack([render(scene) for scene in part])
        ids = model.encode_image(from_uint8(images).to(model.device))
        decoded = model.decode_image(ids)
        used |= set(ids.flatten().tolist())
        squares.append(np.square(decoded.astype(float) - images).mean())
        kept += [verify(i, full_description(s)).correct for i, s in zip(decoded, part, strict=True)]
    values = np.array(kept, dtype=float)
    return {
        "kept": figure(values, np.arange(len(values))),
        "ids_used": len(used),
        "error": float(np.sqrt(np.mean(squares))),
    }
