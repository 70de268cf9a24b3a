"""What a user imports: load, generate, edit, judge, save."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from janus_r1 import introspect as algorithm
from janus_r1.chain import EDIT_TEMPERATURE, Chain, Settings, Task, Verdict, check_pixels
from janus_r1.errors import UnknownWords, UserError, foreign
from janus_r1.images import square
from janus_r1.layout import clean
from janus_r1.model.janus import Janus
from janus_r1.model.loading import load, save


class JanusR1:
    """A model that draws, judges its own drawing, and redraws.

    >>> from janus_r1 import JanusR1
    >>> model = JanusR1.from_pretrained("tiny-r1-edit")
    >>> chain = model.generate("a red circle left of a blue square")[0]
    >>> chain.rounds[0].verdict.text, chain.image.shape
    """

    def __init__(self, model: Janus) -> None:
        self.model = model

    @classmethod
    def from_pretrained(
        cls,
        name: str = "tiny-r1-edit",
        dtype: str = "float32",
        device: str = "cpu",
        weights: str | Path | None = None,
        kv: str = "auto",
    ) -> JanusR1:
        """Load an embedded model, a folder or a Hub id.

        In the package are ``tiny-base``, ``tiny-sft``, ``tiny-r1``, which judges pictures of others best, and
        ``tiny-r1-edit``, which draws and edits best.
        Folders may be in transformers' layout or in DeepSeek's; ``weights`` replaces theirs by a state
        dict with DeepSeek's names. ``dtype``: ``float32``, ``bfloat16``, ``auto`` (as stored) or ``int8``
        (large matrices in 8 bits, to generate with). ``kv``: ``auto``, or ``fp8`` for cached keys and values.
        """
        return cls(load(name, dtype, device, weights, kv))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write transformers' own layout: safetensors, config, processor."""
        save(self.model, folder)

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        samples: int = 1,
        max_batch: int = 64,
        window: int | None = None,
        on_progress: Callable[[int], None] | None = None,
        **settings: Any,
    ) -> list[Chain]:
        """``samples`` chains of every prompt, those of one prompt side by side.

        ``window`` image tokens are drawn in one forward pass, for the same image (at most 16); None: as many as pay.
        ``settings`` are the fields of :class:`janus_r1.chain.Settings`: rounds, guidance, seed, ...
        """
        listed = [prompts] if isinstance(prompts, str) else list(prompts)
        if samples < 1:
            raise UserError("samples must be at least 1")
        for prompt in listed:
            if unknown := self.model.unknown_words(prompt):
                warnings.warn(foreign(prompt, unknown), UnknownWords, stacklevel=2)
        rows = [task for task in map(Task, listed) for _ in range(samples)]
        return algorithm.introspect(
            self.model, rows, Settings(**settings), max_batch=max_batch, on_progress=on_progress, window=window
        )

    def edit(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        instructions: str | Sequence[str],
        *,
        samples: int = 1,
        max_batch: int = 64,
        first_row: int = 0,
        window: int | None = None,
        on_progress: Callable[[int], None] | None = None,
        **settings: Any,
    ) -> list[Chain]:
        """``samples`` chains of every image with its instruction, those of one pair side by side.

        One image (uint8 [H, W, 3]) may serve all instructions, or one instruction all images. Images of
        another size than the model's are fitted into it. ``first_row`` shifts the random numbers, which
        belong to rows, so that an edit of an edit draws its own. The temperature is ``EDIT_TEMPERATURE`` unless
        ``settings`` say otherwise. ``window`` is as in :meth:`generate`.
        """
        tasks = _paired(images, instructions)
        if samples < 1:
            raise UserError("samples must be at least 1")
        return algorithm.introspect(
            self.model,
            [task for task in tasks for _ in range(samples)],
            Settings(**{"temperature": EDIT_TEMPERATURE} | settings),
            max_batch=max_batch,
            on_progress=on_progress,
            first_row=first_row,
            window=window,
        )

    def reconstruct(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What the image tokenizer keeps of images (uint8 [H, W, 3]), which are fitted into the model's size."""
        for image in images:
            check_pixels(image)
        fitted = [square(image, self.model.image_size) for image in images]
        ids = [source.ids for source in self.model.sources(fitted)]
        return list(self.model.decode_image(torch.tensor(ids, device=self.model.device)))

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
        return algorithm.judge(
            self.model, images, [Task(text) for text in listed], Settings(**settings), max_batch=max_batch
        )


def _paired(images: np.ndarray | Sequence[np.ndarray], instructions: str | Sequence[str]) -> list[Task]:
    """One image an instruction; a single one of either serves all of the other."""
    pictures = [images] if isinstance(images, np.ndarray) and images.ndim == 3 else list(images)
    texts = [instructions] if isinstance(instructions, str) else list(instructions)
    count = max(len(pictures), len(texts))
    if {len(pictures), len(texts)} - {1, count} or not pictures or not texts:
        raise UserError(f"{len(pictures)} images but {len(texts)} instructions: give one of either, or as many of both")
    for text in texts:
        clean(text, "instruction", "change")
    sources, prompts = pictures * (count // len(pictures)), texts * (count // len(texts))
    return [Task(prompt, source) for prompt, source in zip(prompts, sources, strict=True)]
