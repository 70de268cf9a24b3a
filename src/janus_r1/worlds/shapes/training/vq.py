"""Stage 0: the image tokenizer of a from-scratch model, trained on random scenes of the world.

Straight-through vector quantisation on the unit sphere. Codes are running means of the latents
they attract (no gradient); codes that attract none are moved to latents that are badly coded.

Group normalisation lets every patch see the whole image, and a tokenizer left to itself spends
hundreds of codes on one plain background (measured: 220 codes, 3.4 nats a patch), which the language
model then has to predict. So equal patches are asked to have equal latents (``consistency``), and
codes that crowd together are merged (``separation``).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.janus.modeling_janus import JanusVQVAE

from janus_r1.fields import Above0, AtLeast0, Checked, Count, Positive, Range, Share
from janus_r1.model import vq
from janus_r1.model.janus import from_uint8, to_uint8
from janus_r1.train.loop import RunOptions, running
from janus_r1.train.optim import muon_for_encoders
from janus_r1.worlds.shapes.scene import random_description, render, sample_scene
from janus_r1.worlds.shapes.training.model import tiny_vq_config


@dataclass
class VqRecipe(Checked):
    """Recipe of ``janus-r1 train vq``."""

    run: RunOptions = field(default_factory=lambda: RunOptions(out="runs/vq", steps=4500))
    batch: Positive = 16
    """Images a step."""
    lr: Above0 = 2e-3
    codes: Annotated[int, Range(ge=2)] = 2048
    """Size of the codebook."""
    continuous_steps: Count = 200
    """First steps without quantisation: the codebook starts from latents that already mean something."""
    commitment: AtLeast0 = 0.25
    object_weight: AtLeast0 = 4.0
    """Extra weight of pixels that differ from the image's median: small objects, not the background."""
    consistency: AtLeast0 = 2.0
    """Weight of the distance between the latents of patches with equal pixels."""
    separation: AtLeast0 = 0.05
    """Least squared distance between two codes; of a closer pair the rarer one is moved away."""
    decay: Annotated[float, Range(ge=0, lt=1)] = 0.98
    """Of the running means that are the codes."""
    revive_until: Share = 0.8
    """Share of the run during which unused codes are moved."""


class VqTrainer(nn.Module):
    """The tokenizer with the running statistics of its codes."""

    usage: torch.Tensor
    total: torch.Tensor
    ready: torch.Tensor

    def __init__(self, model: JanusVQVAE, codes: int) -> None:
        super().__init__()
        self.model = model
        self.model.quantize.embedding.weight.requires_grad_(False)
        dim = model.config.embed_dim
        self.register_buffer("usage", torch.ones(codes))
        self.register_buffer("total", torch.zeros(codes, dim))
        self.register_buffer("ready", torch.zeros(()))

    def forward(self, pixels_BCHW: torch.Tensor, quantise: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reconstruction, latents [B, g, g, D] and ids [B, g * g] (empty when not quantising)."""
        z = vq.latents(self.model, pixels_BCHW)
        if not quantise:
            return vq.decode_latents(self.model, z), z, torch.empty(0, dtype=torch.long)
        codebook = vq.unit_codebook(self.model)
        ids = vq.nearest_codes(z.detach(), codebook)
        straight_through = z + (codebook[ids].view_as(z) - z).detach()
        return vq.decode_latents(self.model, straight_through), z, ids


class VqStage:
    def __init__(self, recipe: VqRecipe) -> None:
        self.recipe = recipe
        torch.manual_seed(recipe.run.seed)
        model = JanusVQVAE(tiny_vq_config(recipe.codes))
        model.train()
        self.module = VqTrainer(model, recipe.codes)
        self.optimizers = muon_for_encoders(self.module, recipe.lr)
        self.latents = self.ids = torch.empty(0)

    def batches(self, step: int) -> list[torch.Tensor]:
        pixels = random_pixels(self.recipe.batch, seed=self.recipe.run.seed_of(step))
        return [pixels.to(self.module.ready.device)]

    def loss(self, module, batch: torch.Tensor, step: int):
        quantise = step >= self.recipe.continuous_steps
        if quantise and not self.module.ready:
            self._start_codebook(step)
        drawn, z, self.ids = module(batch, quantise)
        self.latents = z.detach()
        error = drawn.float() - batch
        weight = object_weight(batch, self.recipe.object_weight)
        reconstruction = (weight * (error.abs() + error.square())).mean()
        spread = patch_spread(z, patch_groups(batch, z.shape[1]))
        loss = reconstruction + self.recipe.consistency * spread
        figures = {"reconstruction": float(reconstruction.detach()), "spread": float(spread.detach())}
        if not quantise:
            return loss, figures
        codes = vq.unit_codebook(self.module.model)[self.ids].view_as(z)
        distance = (z - codes).square().sum(-1).mean()
        figures["commitment"] = float(distance.detach())
        figures["codes_in_batch"] = float(self.ids.unique().numel())
        return loss + self.recipe.commitment * distance, figures

    @torch.no_grad()
    def _start_codebook(self, step: int) -> None:
        """Codes = latents of fresh images, one for every distinct patch, a little spread."""
        pixels = random_pixels(max(2, self.recipe.codes // 8), seed=self.recipe.run.seed_of(-1 - step))
        pixels = pixels.to(self.module.ready.device)
        z = vq.latents(self.module.model, pixels)
        groups = patch_groups(pixels, z.shape[1])
        distinct = z.new_zeros(int(groups.max()) + 1, z.shape[-1]).index_copy(0, groups, z.flatten(0, 2))
        pick = torch.arange(self.recipe.codes) % len(distinct)
        chosen = distinct[torch.randperm(len(distinct))][pick]
        codes = F.normalize(chosen + 0.02 * torch.randn_like(chosen), dim=-1)
        self._set_codes(codes)
        self.module.total.copy_(codes)
        self.module.ready.fill_(1.0)

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Codes move towards the latents that they attract."""
        if not self.ids.numel():
            return
        ids, z = self.ids.flatten(), self.latents.flatten(0, 2)
        keep = self.recipe.decay
        hits = torch.bincount(ids, minlength=self.recipe.codes).float()
        sums = torch.zeros_like(self.module.total).index_add_(0, ids, z)
        self.module.usage.mul_(keep).add_(hits, alpha=1 - keep)
        self.module.total.mul_(keep).add_(sums, alpha=1 - keep)
        if step % 10 == 0 and step < self.recipe.revive_until * self.recipe.run.steps:
            self._revive(ids, z)
        self._set_codes(F.normalize(self.module.total, dim=-1))

    def _revive(self, ids: torch.Tensor, z: torch.Tensor) -> None:
        """Move codes that are unused or crowded to latents that their own code describes badly."""
        codes = vq.unit_codebook(self.module.model)
        dead = (self.module.usage < 0.03) | crowded(codes, self.module.usage, self.recipe.separation)
        if not dead.any():
            return
        distance = 2 - 2 * (z * codes[ids]).sum(-1)
        badness = distance * (distance > self.recipe.separation)
        if badness.any():
            target = z[torch.multinomial(badness, int(dead.sum()), replacement=True)]
        else:  # everything is described well enough: wait where no latent is
            target = -F.normalize(z.mean(0), dim=-1)
        self.module.total[dead] = 0.3 * target
        self.module.usage[dead] = 0.3

    def _set_codes(self, codes: torch.Tensor) -> None:
        self.module.model.quantize.embedding.weight.copy_(codes)

    @torch.no_grad()
    def preview(self) -> np.ndarray:
        """Originals above reconstructions."""
        pixels = random_pixels(16, seed=7).to(self.module.ready.device)
        ids = vq.encode(self.module.model, pixels)
        rows = [to_uint8(pixels), to_uint8(vq.decode(self.module.model, ids))]
        return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def random_pixels(count: int, seed: int) -> torch.Tensor:
    """Training scenes as pixels in [-1, 1]: [count, 3, 64, 64]."""
    rng = random.Random(seed)
    images = [render(sample_scene(random_description(rng), rng)) for _ in range(count)]
    return from_uint8(np.stack(images))


def patch_groups(pixels_BCHW: torch.Tensor, grid: int) -> torch.Tensor:
    """Number of every patch [B * grid * grid]; patches with equal pixels have the same number."""
    side = pixels_BCHW.shape[-1] // grid
    patches = F.unfold(pixels_BCHW, side, stride=side).transpose(1, 2).flatten(0, 1).double()
    generator = torch.Generator().manual_seed(0)
    direction = torch.rand(patches.shape[1], dtype=torch.float64, generator=generator)
    key = patches @ direction.to(patches.device)
    return torch.unique(key.round(decimals=6), return_inverse=True)[1]


def patch_spread(latents_BHWD: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of latents to the mean of their group."""
    z = latents_BHWD.flatten(0, 2)
    count = torch.bincount(groups).unsqueeze(-1)
    mean = z.new_zeros(len(count), z.shape[-1]).index_add(0, groups, z) / count
    return (z - mean[groups]).square().sum(-1).mean()


def crowded(codes_KD: torch.Tensor, usage_K: torch.Tensor, separation: float) -> torch.Tensor:
    """Which codes [K] have a more used code within ``separation`` (squared distance)."""
    close = 2 - 2 * codes_KD @ codes_KD.T < separation
    rank = torch.empty_like(usage_K, dtype=torch.long)
    rank[usage_K.argsort(descending=True, stable=True)] = torch.arange(len(rank), device=rank.device)
    return (close & (rank < rank.unsqueeze(-1))).any(-1)


def object_weight(pixels_BCHW: torch.Tensor, extra: float) -> torch.Tensor:
    """Weights of mean 1 that favour pixels unlike the image's median colour."""
    median = pixels_BCHW.flatten(2).median(-1).values[..., None, None]
    differs = (pixels_BCHW - median).abs().amax(1, keepdim=True) > 0.15
    weight = 1 + extra * differs.float()
    return weight / weight.mean()


def train_vq(recipe: VqRecipe, resume: bool = False) -> Path:
    """Train the image tokenizer of a from-scratch model; ``<out>/vq`` then holds it."""
    stage = VqStage(recipe)
    with running(recipe, stage.module, stage.optimizers, resume=resume) as run:
        for step in run.steps():
            figures = run.update(stage.batches(step), partial(stage.loss, step=step))
            stage.follow(step)
            run.end_step(figures, stage.preview)
    stage.module.model.save_pretrained(run.out / "vq")
    return run.out / "vq"
