"""Stage 1 of a from-scratch model: draw from captions, edit, describe and answer questions about images.

Stands in for Janus-Pro's own pretraining. Every step sees fresh scenes, so nothing is memorised;
images are encoded by the trained tokenizer as they are rendered.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from janus_r1.data.edit_rows import WorldEditRows
from janus_r1.data.seeing import SeeingRecipe, SeeingRows
from janus_r1.fields import Above0, AtLeast0, Checked, Count, Positive, Share
from janus_r1.model.janus import Janus, from_uint8
from janus_r1.model.loading import load, save
from janus_r1.segments import Row
from janus_r1.train.loop import RunOptions, running
from janus_r1.train.objective import NextToken
from janus_r1.train.optim import muon_and_adamw
from janus_r1.train.prepare import chain_sheet, prepare
from janus_r1.train.processes import share
from janus_r1.worlds.shapes.prompts import Prompt, train_prompts
from janus_r1.worlds.shapes.scene import Scene, render, sample_scene
from janus_r1.worlds.shapes.training.model import from_nothing, tokenizer_corpus


@dataclass
class PretrainRecipe(Checked):
    """Recipe of ``janus-r1 train pretrain``."""

    run: RunOptions = field(default_factory=lambda: RunOptions(out="runs/base", steps=6000))
    vq: str = "runs/vq/vq"
    """Folder of the trained image tokenizer, for a model from nothing."""
    model: str | None = None
    """Go on from this model instead; then ``vq``, the tokenizer and the sizes below are the model's."""
    draw_rows: Count = 80
    """Caption -> image rows a step."""
    see_rows: Count = 24
    """Rows about a picture a step: questions, and verdicts on whether it is what a prompt asks for."""
    edit_rows: Count = 0
    """Rows a step from a source image and an instruction to the edited image. The text tokenizer of a model
    from nothing then learns the words of edits, too."""
    seeing: SeeingRecipe = field(default_factory=SeeingRecipe)
    """What ``see_rows`` are made of."""
    text_weight: AtLeast0 = 0.3
    """Weight of the text loss beside the image loss."""
    train_vision: bool = True
    """Also train the understanding encoder and its aligner; not after ``train vision`` has taught them."""
    caption_dropout: Share = 0.1
    """Share of drawing and editing rows whose prompt or instruction is replaced by pads, for guidance."""
    lr: Above0 = 3e-3
    weight_decay: AtLeast0 = 0.01
    compile: bool = False
    """Compile the language model (needs a C++ compiler): 30 % faster steps after a minute or two."""
    vocab_size: Positive = 640
    """Largest text vocabulary; the world's words need about 530."""
    tokenizer_prompts: Positive = 2500
    """Prompts whose texts the text tokenizer is trained on."""
    hidden: Positive = 256
    layers: Positive = 5
    intermediate: Positive = 640


def _from_nothing(recipe: PretrainRecipe) -> Janus:
    corpus = tokenizer_corpus(recipe.tokenizer_prompts, edits=recipe.edit_rows > 0)
    sizes = (recipe.vocab_size, recipe.hidden, recipe.layers, recipe.intermediate)
    return from_nothing(recipe.vq, corpus, *sizes, recipe.run.seed)


class PretrainStage:
    def __init__(self, recipe: PretrainRecipe) -> None:
        self.recipe = recipe
        self.janus = load(recipe.model) if recipe.model else _from_nothing(recipe)
        prepare(self.janus, recipe.train_vision, recipe.compile)
        self.janus.aligner.requires_grad_(recipe.train_vision)
        self.module = NextToken(self.janus)
        self.optimizers = muon_and_adamw(self.janus, recipe.lr, recipe.weight_decay)

    def batches(self, step: int) -> list[list[Row]]:
        rng = random.Random(self.recipe.run.seed_of(step))
        seen = SeeingRows(self.janus.layout, self.recipe.seeing).rows
        rows = [*share(self._draw_rows(rng)), *share(seen(self.recipe.see_rows, rng))]
        edits = WorldEditRows(self.janus).draw(self.recipe.edit_rows, rng, self.recipe.caption_dropout)
        return [[*rows, *share(edits)]]

    def _draw_rows(self, rng: random.Random) -> list[Row]:
        prompts, scenes = _scenes(self.recipe.draw_rows, rng)
        images = from_uint8(np.stack([render(scene) for scene in scenes]))
        ids = self.janus.encode_image(images.to(self.janus.device)).tolist()
        dropped = [rng.random() < self.recipe.caption_dropout for _ in prompts]
        return [
            self.janus.layout.draw(p.text, tuple(i), drop) for p, i, drop in zip(prompts, ids, dropped, strict=True)
        ]

    def loss(self, module, batch: list[Row]):
        image, text = module(batch)
        figures = {"image_loss": float(image.detach()), "text_loss": float(text.detach())}
        return image + self.recipe.text_weight * text, figures

    def preview(self) -> np.ndarray:
        """Drafts; the base model's verdicts on them mean little yet."""
        return chain_sheet(self.janus, rounds=1, edits=3 if self.recipe.edit_rows else 0)


def _scenes(count: int, rng: random.Random) -> tuple[list[Prompt], list[Scene]]:
    prompts = list(itertools.islice(train_prompts(rng), count))
    return prompts, [sample_scene(prompt.description, rng) for prompt in prompts]


def pretrain(recipe: PretrainRecipe, resume: bool = False) -> Path:
    """Train a base model from nothing; ``<out>/model`` then holds it in transformers' layout."""
    stage = PretrainStage(recipe)
    with running(recipe, stage.module, stage.optimizers, resume=resume) as run:
        for step in run.steps():
            run.end_step(run.update(stage.batches(step), stage.loss), stage.preview)
    save(stage.janus, run.out / "model", torch.bfloat16)
    return run.out / "model"
