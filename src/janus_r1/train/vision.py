"""Teach the understanding encoder of a from-scratch model what a SigLIP knows before Janus is trained.

A pretrained SigLIP speaks the language of words: its features lie near the texts that describe them.
Here every patch learns to lie where the language model's own embeddings of its words lie ("small" +
"red" + "circle", or the background's colour), so that comparing a picture with a prompt is comparing
like with like. Without it the language model learns to list what it sees, but not to compare
(docs/log.md).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from janus_r1.model.janus import Janus, from_uint8
from janus_r1.model.loading import load, save
from janus_r1.train.loop import RunOptions, Stage, run, share
from janus_r1.train.muon import Muon
from janus_r1.world.render import render, shape_mask
from janus_r1.world.scene import IMAGE_SIZE, SIZES, Scene, random_description, sample_scene

COVERED = 0.15  # share of a patch that an object must cover to be named there


@dataclass
class VisionRecipe:
    """Recipe of ``janus-r1 train vision``."""

    run: RunOptions = field(default_factory=lambda: RunOptions(out="runs/vision", steps=600))
    model: str = "runs/base/model"
    """Model whose encoder is taught and whose word embeddings are the targets."""
    batch: int = 96
    """Scenes a step."""
    lr: float = 4e-3
    weight_decay: float = 0.01


def patch_words(scene: Scene, grid: int) -> list[tuple[str, ...]]:
    """The words of every patch in reading order: of the object that covers most of it, or the background."""
    side = IMAGE_SIZE // grid
    words: list[tuple[str, ...]] = [(scene.background,)] * grid**2
    most = np.full((grid, grid), COVERED)
    for item in scene.objects:
        canvas = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.float32)
        mask = shape_mask(item.shape, SIZES[item.size])
        canvas[item.y : item.y + item.side, item.x : item.x + item.side] = mask
        cover = canvas.reshape(grid, side, grid, side).mean((1, 3))
        for row, column in zip(*np.nonzero(cover > most), strict=True):
            words[row * grid + column] = (item.size, item.colour, item.shape)
            most[row, column] = cover[row, column]
    return words


class Encoder(nn.Module):
    """Only what is trained: the understanding encoder and its aligner."""

    def __init__(self, janus: Janus) -> None:
        super().__init__()
        self.vision, self.aligner = janus.core.model.vision_model, janus.core.model.aligner

    def forward(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """[B, S, D]."""
        return self.aligner(self.vision(pixels_BCHW).last_hidden_state)


class VisionStage(Stage):
    def __init__(self, recipe: VisionRecipe) -> None:
        self.recipe = recipe
        self.janus = load(recipe.model)
        self.module = Encoder(self.janus)
        matrices = [p for p in self.module.parameters() if p.ndim >= 2]
        others = [p for p in self.module.parameters() if p.ndim < 2]
        self.optimizers = [
            Muon(matrices, lr=recipe.lr, weight_decay=recipe.weight_decay),
            torch.optim.AdamW(others, lr=recipe.lr, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.known: dict[str, torch.Tensor] = {}

    def batches(self, step: int) -> list[list[Scene]]:
        rng = random.Random(self.recipe.run.seed * 1_000_003 + step)
        return [list(share([sample_scene(random_description(rng), rng) for _ in range(self.recipe.batch)]))]

    def loss(self, module, batch: list[Scene], step: int):
        """Squared distance to the sum of the words' embeddings, as a share of their spread."""
        pixels = from_uint8(np.stack([render(scene) for scene in batch])).to(self.janus.device)
        grid = int(self.janus.image_tokens**0.5)
        wanted = torch.stack([self._targets(patch_words(scene, grid)) for scene in batch])
        error = (module(pixels).float() - wanted).square().mean() / wanted.var()
        return error, {"unexplained": float(error.detach())}

    def _targets(self, words: list[tuple[str, ...]]) -> torch.Tensor:
        return torch.stack([torch.stack([self._embedding(word) for word in patch]).sum(0) for patch in words])

    @torch.no_grad()
    def _embedding(self, word: str) -> torch.Tensor:
        """As it stands inside a prompt, behind a blank; the mean where it is spelled with several tokens."""
        if word not in self.known:
            ids = self.janus.tokenizer.encode(f" {word}", add_special_tokens=False)
            self.known[word] = self.janus.embed_text(torch.tensor(ids, device=self.janus.device)).mean(0).float()
        return self.known[word]


def teach_vision(recipe: VisionRecipe, resume: bool = False) -> Path:
    """Train the encoder; ``<out>/model`` is the whole model with it."""
    stage = VisionStage(recipe)
    out = run(stage, recipe, recipe.run, resume)
    save(stage.janus, out / "model", torch.bfloat16)
    return out / "model"
