"""The metrics that need weights: each is loaded, or says in one line why it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from janus_r1.errors import first_line
from janus_r1.eval.pie.clip import ClipScore
from janus_r1.eval.pie.lpips import Lpips
from janus_r1.eval.pie.metrics import Metrics, NotMeasured
from janus_r1.eval.pie.structure import StructureDistance

NONE = "none"


def learned_metrics(clip: str, dino: str, device: str = "cpu") -> Metrics:
    """``clip`` and ``dino`` are folders or Hub ids of a CLIP model and of DINO's ViT; ``none`` leaves one out."""
    structure = _tried(dino, lambda: StructureDistance.from_pretrained(dino, device))
    scorer = _tried(clip, lambda: ClipScore.from_pretrained(clip, device))
    score = isinstance(scorer, ClipScore)
    return {
        "structure_distance": structure,
        "lpips": _tried("lpips", lambda: Lpips.from_package(device)),
        "clip_whole": scorer.whole if score else scorer,
        "clip_edited": scorer.edited if score else scorer,
    }


def _tried(name: str, load: Callable[[], Any]) -> Any:
    """What ``load`` returns. A model's files are the user's, and anything may be wrong with them: one line for all."""
    if name == NONE:
        return NotMeasured("switched off")
    try:
        return load()
    except MemoryError:
        raise
    except Exception as error:
        return NotMeasured(f"{name}: {first_line(error).rstrip('.')}")
