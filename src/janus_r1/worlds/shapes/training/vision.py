"""Teach the understanding encoder of a from-scratch model what a SigLIP knows before Janus is trained.

A pretrained SigLIP speaks the language of words: its features lie near the texts that describe them.
Here every patch learns to lie where the language model's own embeddings of its words lie ("small" +
"red" + "circle", or the background's colour), so that comparing a picture with a prompt is comparing
like with like. Without it the language model learns to list what it sees, but not to compare
(docs/log.md).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from janus_r1.fields import Above0, AtLeast0, Checked, Positive
from janus_r1.model.janus import Janus, from_uint8
from janus_r1.model.loading import load, save
from janus_r1.model.presets import random_model
from janus_r1.train.loop import RunOptions, running
from janus_r1.train.optim import muon_for_encoders
from janus_r1.train.processes import share, this_process
from janus_r1.worlds.shapes.scene import (
    BACKGROUNDS,
    COLOURS,
    IMAGE_SIZE,
    SHAPES,
    SIZES,
    Scene,
    random_description,
    render,
    sample_scene,
    shape_mask,
)

KINDS: dict[str, tuple[str, ...]] = {
    "size": tuple(SIZES),
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "background": tuple(BACKGROUNDS),
}
SHARPNESS = 8.0  # logit of the right word over the mean, when a feature is exactly what is wanted
WAVES = (0.5, 1.0, 2.0, 4.0)  # half periods of a place's waves over the picture
COVERED = 0.15  # share of a patch that an object must cover to be named there


@dataclass
class VisionRecipe(Checked):
    """Recipe of ``janus-r1 train vision``."""

    run: RunOptions = field(default_factory=lambda: RunOptions(out="runs/vision", steps=600))
    model: str = "runs/base/model"
    """Model whose encoder is taught and whose word embeddings are the targets."""
    batch: Positive = 96
    """Scenes a step."""
    lr: Above0 = 4e-3
    weight_decay: AtLeast0 = 0.01
    fresh: bool = True
    """Begin with random weights: an encoder that was trained along with the language model is far off scale."""
    places: float = 0.0
    """How much a patch also says where its object stands, beside its words; 0: not at all, and then no judge can tell
    left from right, since nothing else tells the language model (docs/log.md)."""


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


def patch_places(scene: Scene, grid: int) -> np.ndarray:
    """Where the object of every patch is centred, or the patch itself: float32 [grid * grid, 2], x and y in [0, 1]."""
    rows, columns = np.divmod(np.arange(grid**2), grid)
    places = np.stack([columns, rows], -1).astype(np.float32) / grid + 0.5 / grid
    side = IMAGE_SIZE // grid
    for item in scene.objects:
        mine = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.float32)
        mine[item.y : item.y + item.side, item.x : item.x + item.side] = shape_mask(item.shape, item.side)
        covered = mine.reshape(grid, side, grid, side).mean((1, 3)).ravel() > COVERED
        places[covered] = np.array(item.centre, np.float32) / IMAGE_SIZE
    return places


def place_vectors(places: torch.Tensor, width: int, seed: int = 0) -> torch.Tensor:
    """Places [N, 2] in [0, 1] as vectors [N, width] of variance 1: waves of each coordinate along fixed directions."""
    phases = (places[:, :, None] * torch.tensor(WAVES) * torch.pi).flatten(1)
    waves = torch.cat((phases.sin(), phases.cos()), 1)
    directions = torch.linalg.qr(torch.randn(width, waves.shape[1], generator=torch.Generator().manual_seed(seed)))[0]
    return waves @ directions.T * (2 * width / waves.shape[1]) ** 0.5


class Encoder(nn.Module):
    """Only what is trained: the understanding encoder and its aligner."""

    def __init__(self, janus: Janus) -> None:
        super().__init__()
        self.vision, self.aligner = janus.vision, janus.aligner

    def forward(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """[B, S, D]."""
        return self.aligner(self.vision(pixels_BCHW).last_hidden_state)


class VisionStage:
    def __init__(self, recipe: VisionRecipe) -> None:
        self.recipe = recipe
        self.janus = load(recipe.model, device=str(this_process().device))
        self.module = Encoder(self.janus)
        if recipe.fresh:
            untrained = Janus(random_model(self.janus.config, recipe.run.seed), self.janus.tokenizer)
            self.module.load_state_dict(Encoder(untrained).state_dict())
        self.optimizers = muon_for_encoders(self.module, recipe.lr, recipe.weight_decay)
        self.tables = [self._table(words) for words in KINDS.values()]
        self.spread = torch.stack([table[:-1].var() for table in self.tables]).mean().sqrt()  # of words

    def batches(self, step: int) -> list[list[Scene]]:
        rng = random.Random(self.recipe.run.seed_of(step))
        return [list(share([sample_scene(random_description(rng), rng) for _ in range(self.recipe.batch)]))]

    def loss(self, module, batch: list[Scene]):
        """Squared distance to the sum of the words' embeddings, and which word of each kind it is."""
        pixels = from_uint8(np.stack([render(scene) for scene in batch])).to(self.janus.device)
        features = module(pixels).float().flatten(0, 1)
        labels = torch.tensor([patch for scene in batch for patch in self._labels(scene)], device=features.device)
        vectors = [table[column] for table, column in zip(self.tables, labels.T, strict=True)]
        wanted = torch.stack(vectors).sum(0)
        if self.recipe.places:
            grid = int(self.janus.image_tokens**0.5)
            places = torch.from_numpy(np.concatenate([patch_places(scene, grid) for scene in batch]))
            vectors_of_places = place_vectors(places, wanted.shape[1]).to(wanted)
            wanted = wanted + self.recipe.places * self.spread * vectors_of_places
        error = (features - wanted).square().mean() / wanted.var()
        figures = {"unexplained": float(error.detach())}
        total = error
        for name, table, column in zip(KINDS, self.tables, labels.T, strict=True):
            entropy, right = told_apart(features, table, column)
            total = total + entropy / len(KINDS)
            figures[f"right_{name}"] = float(right)
        return total, figures

    def _labels(self, scene: Scene) -> list[tuple[int, ...]]:
        """Of every patch its word of each kind; the last one of a kind stands for none."""
        words = patch_words(scene, int(self.janus.image_tokens**0.5))
        return [tuple(self._label(kind, patch) for kind in KINDS) for patch in words]

    @staticmethod
    def _label(kind: str, words: tuple[str, ...]) -> int:
        vocabulary = KINDS[kind]
        return next((vocabulary.index(word) for word in words if word in vocabulary), len(vocabulary))

    @torch.no_grad()
    def _table(self, words: Sequence[str]) -> torch.Tensor:
        """Embeddings of words as they stand inside a prompt, behind a blank, and a zero for none."""
        rows = []
        for word in words:
            ids = self.janus.tokenizer.encode(f" {word}", add_special_tokens=False)
            rows.append(self.janus.embed_text(torch.tensor(ids, device=self.janus.device)).mean(0).float())
        return torch.stack([*rows, torch.zeros_like(rows[0])])


def told_apart(features: torch.Tensor, table: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy, and share right, of the word among its kind, over patches [N] that have one.

    Words of a kind share much of their embeddings; only where they differ is looked at.
    """
    named = labels < len(table) - 1
    words = table[:-1] - table[:-1].mean(0)
    logits = SHARPNESS * features[named] @ words.T / words.square().sum(-1).mean()
    entropy = F.cross_entropy(logits, labels[named])
    return entropy, (logits.argmax(-1) == labels[named]).float().mean()


def teach_vision(recipe: VisionRecipe, resume: bool = False) -> Path:
    """Teach a from-scratch encoder words for patches; ``<out>/model`` is the whole model with it."""
    stage = VisionStage(recipe)
    with running(recipe, stage.module, stage.optimizers, resume=resume) as run:
        for step in run.steps():
            run.end_step(run.update(stage.batches(step), stage.loss))
    save(stage.janus, run.out / "model", torch.bfloat16)
    return run.out / "model"
