"""SFT of the format ``repair``: draw, look, say what to change, change it, edit, see (design section 6).

All tasks from the first step, by rows a step. The model's own drafts, and what its repairs make of them, are looked at
as they come; they are drawn anew every few steps with the weights that it then has.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch

from janus_r1.data.edit_rows import WorldEditRows
from janus_r1.data.rows import in_parts
from janus_r1.data.seeing import SeeingRecipe, SeeingRows
from janus_r1.fields import Above0, AtLeast0, Checked, Count, Positive, Range, Share
from janus_r1.model.loading import load, save
from janus_r1.segments import Row
from janus_r1.train.loop import RunOptions, running
from janus_r1.train.objective import NextToken
from janus_r1.train.optim import muon_and_adamw
from janus_r1.train.prepare import Replica, chain_sheet, prepare
from janus_r1.worlds.shapes.training.own_pictures import OwnPictures
from janus_r1.worlds.shapes.training.repair_rows import RepairRows, exchanged


@dataclass
class Rows(Checked):
    """Rows a step of each task."""

    draw: Count = 14
    """A caption to a fresh rendering."""
    look: Count = 24
    """A picture to what is seen, the word, and what to change."""
    repair: Count = 10
    """A wrong picture and what to change to the changed picture: half spoilt renderings, half own drafts."""
    edit: Count = 10
    """The world's own edits, in all wordings."""
    judge_edit: Count = 0
    """The result of an edit to whether it is made and the rest unchanged: half renderings, half the model's own."""
    compare: Count = 0
    """A prompt and a list, without a picture, to the list's marks, the word and what to change: comparing alone."""
    see: Count = 6
    """Questions of pretraining."""


@dataclass
class RepairRecipe(Checked):
    """Recipe of ``janus-r1 train repair``."""

    run: RunOptions = field(default_factory=lambda: RunOptions(out="runs/repair", steps=1200))
    model: str = "runs/tiny/places/model"
    """Model to start from: one that edits, and whose encoder says where things are."""
    rows: Rows = field(default_factory=Rows)
    micro_batch: Positive = 16
    """Rows that go through the model together, alike in length."""
    dense: Share = 0.4
    """Share of dense prompts among those that are drawn, looked at and repaired."""
    own_drawn: Share = 0.0
    """Share of drawing rows whose image is a right one of the model's own, drawn or mended, in place of a rendering."""
    own: Share = 0.5
    """Share of looks at the model's own drafts; the rest are renderings."""
    right: Share = 0.35
    """Share of the renderings that are right."""
    foreign: Share = 0.0
    """Share of the renderings that are looked at with another picture's prompt, which says nothing of what is seen."""
    drafts: Positive = 64
    """Drawn at every refresh; half as many wrong ones of them are then repaired, too."""
    refresh: Positive = 25
    """Steps between refreshes."""
    kept: Positive = 768
    """Latest pictures that looks are taken from."""
    guidance: Annotated[float, Range(ge=1)] = 1.5
    caption_dropout: Share = 0.1
    seeing: SeeingRecipe = field(default_factory=lambda: SeeingRecipe(judge=0.0, checklist=0.3, describe=0.6))
    look_weight: AtLeast0 = 1.0
    """Weight of the loss of looks beside the image loss."""
    see_weight: AtLeast0 = 0.5
    lr: Above0 = 2e-3
    weight_decay: AtLeast0 = 0.01
    compile: bool = False


class Batch(NamedTuple):
    images: Sequence[Row]
    looks: Sequence[Row]
    seen: Sequence[Row]


class RepairStage:
    def __init__(self, recipe: RepairRecipe) -> None:
        self.recipe = recipe
        self.janus = load(recipe.model)
        self.janus.format = "repair"
        prepare(self.janus, train_vision=False, compile_model=recipe.compile)
        self.janus.aligner.requires_grad_(False)  # else its features outgrow the words (docs/log.md)
        self.replica = Replica(self.janus, recipe.model, "bfloat16")
        self.replica.model.format = "repair"
        self.make = RepairRows(self.janus, recipe.dense, recipe.caption_dropout)
        self.edits = WorldEditRows(self.janus)
        self.seeing = SeeingRows(self.janus.layout, recipe.seeing)
        kept = (recipe.drafts, recipe.kept, recipe.guidance, recipe.rows.judge_edit > 0)
        self.own = OwnPictures(self.replica.model, self.make, *kept)
        self.module = NextToken(self.janus)
        self.optimizers = muon_and_adamw(self.janus, recipe.lr, recipe.weight_decay)

    def batches(self, step: int) -> list[Batch]:
        """The rows of a step, in parts."""
        recipe, rows = self.recipe, self.recipe.rows
        rng = random.Random(recipe.run.seed_of(step))
        if not self.own.pictures or step % recipe.refresh == 0:
            self.replica.refresh()
            self.own.refresh(rng, recipe.run.seed_of(step))
        own_pictures = self.own.pictures
        right = [picture for picture in own_pictures if picture.finding.correct]
        again = rng.choices(right, k=round(recipe.own_drawn * rows.draw)) if right else []
        images = [*self.make.draw_again(again, rng), *self.make.draw(rows.draw - len(again), rng)]
        mended = self.make.mend_drafts(rng.choices(own_pictures, k=rows.repair), rng)[: rows.repair // 2]
        images += [*mended, *self.make.mend_spoilt(rows.repair - len(mended), rng)]
        images += self.edits.draw(rows.edit, rng, recipe.caption_dropout)
        own = round(recipe.own * rows.look)
        rendered = self.make.rendered(rows.look - own, recipe.right, rng)
        shown = [*rng.choices(own_pictures, k=own), *exchanged(rendered, recipe.foreign)]
        looks = [*self.make.look(shown), *self.make.look_at_edits(rows.judge_edit // 2, 0.5, rng)]
        looks += self.make.compare(rows.compare, recipe.right, rng)
        if rows.judge_edit:
            looks += rng.choices(self.own.edits, k=rows.judge_edit - rows.judge_edit // 2)
        kinds = images, looks, self.seeing.rows(rows.see, rng)
        parts = max(1, round(sum(map(len, kinds)) / recipe.micro_batch))
        return [Batch(*part) for part in zip(*(in_parts(kind, parts) for kind in kinds), strict=True)]

    def preview(self) -> np.ndarray:
        return chain_sheet(self.replica.refresh(), rounds=4)


def loss(
    module: torch.nn.Module, batch: Batch, *, parts: int, recipe: RepairRecipe
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The losses of a batch, one of ``parts``; rows of text and of images go through the model together."""
    weights = {"image_loss": 1.0, "look_loss": recipe.look_weight, "seeing_loss": recipe.see_weight}
    total, figures = torch.zeros(()), {}
    for (name, weight), rows in zip(weights.items(), batch, strict=True):
        if rows:
            value = module(rows)[int(name != "image_loss")] / parts
            total = total + weight * value
            figures[name] = value.detach()
    return total, figures


def repair(recipe: RepairRecipe, resume: bool = False) -> Path:
    """Finetune a model of the world to look, list, decide and repair; ``<out>/model`` then holds it."""
    stage = RepairStage(recipe)
    headline = ("image_loss", "look_loss", "seeing_loss", "drafts_right")
    with running(recipe, stage.module, stage.optimizers, resume=resume, headline=headline) as run:
        stage.own.restore(run.stage_state)
        for step in run.steps():
            batches = stage.batches(step)
            figures = run.update(batches, partial(loss, parts=len(batches), recipe=recipe))
            run.end_step(figures | stage.own.figures, stage.preview, stage.own.state())
    save(stage.janus, run.out / "model", torch.bfloat16)
    return run.out / "model"
