"""What a user imports: load, generate, judge, save."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from janus_r1 import introspect as algorithm
from janus_r1.chain import Chain, Settings, Verdict
from janus_r1.errors import UserError
from janus_r1.model.janus import Janus
from janus_r1.model.loading import load, save


class JanusR1:
    """A model that draws, judges its own drawing, and redraws.

    >>> from janus_r1 import JanusR1
    >>> model = JanusR1.from_pretrained("tiny-sft")
    >>> chain = model.generate("a red circle left of a blue square")[0]
    >>> chain.rounds[0].verdict.text, chain.image.shape
    """

    def __init__(self, model: Janus) -> None:
        self.model = model

    @classmethod
    def from_pretrained(
        cls, name: str = "tiny-sft", dtype: str = "float32", device: str = "cpu", weights: str | Path | None = None
    ) -> JanusR1:
        """Load an embedded model (``tiny-base``, ``tiny-sft``), a folder or a Hub id.

        Folders may be in transformers' layout or in DeepSeek's; ``weights`` replaces theirs by a state
        dict with DeepSeek's names. ``dtype``: ``float32``, ``bfloat16`` or ``auto`` (as stored).
        """
        return cls(load(name, dtype, device, weights))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write transformers' own layout: safetensors, config, processor."""
        save(self.model, folder)

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        samples: int = 1,
        max_batch: int = 64,
        on_progress: Callable[[int], None] | None = None,
        **settings: Any,
    ) -> list[Chain]:
        """``samples`` chains of every prompt, those of one prompt side by side.

        ``settings`` are the fields of :class:`janus_r1.chain.Settings`: rounds, guidance, seed, ...
        """
        listed = [prompts] if isinstance(prompts, str) else list(prompts)
        if samples < 1:
            raise UserError("samples must be at least 1")
        rows = [prompt for prompt in listed for _ in range(samples)]
        return algorithm.introspect(
            self.model, rows, Settings(**settings), max_batch=max_batch, on_progress=on_progress
        )

    def judge(
        self, images: Sequence[np.ndarray], texts: str | Sequence[str], *, max_batch: int = 64, **settings: Any
    ) -> list[Verdict]:
        """Does each image (uint8 [H, W, 3]) match its text? One text may serve all images."""
        listed = [texts] * len(images) if isinstance(texts, str) else list(texts)
        if len(listed) != len(images):
            raise UserError(f"{len(images)} images but {len(listed)} texts: give one text, or one for each image")
        side = self.model.image_size
        for image in images:
            if image.shape != (side, side, 3):
                raise UserError(f"the model sees images of {side}x{side}x3, not {image.shape}: resize them first")
        return algorithm.judge(self.model, list(images), listed, Settings(**settings), max_batch=max_batch)
