"""Where a model comes from, read from its run's folder: what a result tells of it beside its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from janus_r1.reading import read_json
from janus_r1.train.checkpoint import newest_checkpoint


def training(model: str) -> dict[str, Any] | None:
    """Recipe, steps and seconds of the run whose ``model`` this is; None for a model that lies in no run."""
    run = Path(model).parent
    checkpoint = newest_checkpoint(run)
    if checkpoint is None or not (run / "recipe.json").exists():
        return None
    state = read_json(checkpoint / "state.json")
    return {"recipe": read_json(run / "recipe.json"), "steps": state["step"], "seconds": round(state["seconds"], 1)}
