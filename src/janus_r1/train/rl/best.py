"""The model that evaluated best so far, kept beside the run's checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch

from janus_r1.files import write_json
from janus_r1.model.janus import Janus
from janus_r1.model.loading import save
from janus_r1.reading import read_json


class Best:
    """``<out>/best`` holds the model, ``<out>/best.json`` its step and score."""

    def __init__(self, out: Path) -> None:
        self.folder, self.record = out / "best", out / "best.json"

    def offer(self, janus: Janus, step: int, score: float) -> None:
        """Keep ``janus`` if it scores higher than the one that is kept."""
        if self.record.exists() and read_json(self.record)["score"] >= score:
            return
        save(janus, self.folder, torch.bfloat16)
        write_json(self.record, {"step": step, "score": score})
