"""Stage 2: supervised finetuning on draw, judge, redraw and edit (paper section 3.1, design section 6).

Departures from the paper, all recipe keys: the tiny model is trained with Muon and a larger rate;
the verdict word carries a fixed share of its row's loss (official code: 0.8, the paper is silent).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from janus_r1.data.candidates import CandidateSet
from janus_r1.data.edit_examples import FileEdits, WorldEdits
from janus_r1.data.edit_plan import EditCounts, EditPlan, plan
from janus_r1.data.examples import Examples
from janus_r1.data.own_edits import OwnEdits, OwnEditsRecipe
from janus_r1.data.seeing import Seeing, SeeingRecipe
from janus_r1.errors import UserError, require
from janus_r1.fields import Above0, AtLeast0, Checked, Count, Positive, Share
from janus_r1.layout import Row, row_length
from janus_r1.model.loading import load, save
from janus_r1.train.ahead import Ahead
from janus_r1.train.loop import RunOptions, Stage, run, share
from janus_r1.train.objective import NextToken
from janus_r1.train.optim import adamw, muon_and_adamw
from janus_r1.train.prepare import prepare
from janus_r1.train.preview import chain_sheet
from janus_r1.train.processes import sharded, this_process
from janus_r1.train.replica import Replica
from janus_r1.worlds.shapes.edit_cases import FAMILIES, Family


@dataclass
class SftRecipe(Checked):
    """Recipe of ``janus-r1 train sft``."""

    run: RunOptions = field(default_factory=lambda: RunOptions(out="runs/sft", steps=1200))
    model: str = "runs/base/model"
    """Model to start from: a folder, an embedded model or a Hub id."""
    candidates: str | list[str] = "runs/candidates"
    """Folder of ``janus-r1 data build``, or several taken together."""
    rows: Positive = 64
    """Rows a step over all tasks and processes."""
    micro_batch: Count = 0
    """Rows that go through the model together in a process, alike in length; sets the memory. 0: all of a step.
    Where short and long rows meet (mix), a few parts a step are also faster: less is padded."""
    mix: list[AtLeast0] = field(default_factory=lambda: [0.2, 0.3, 0.5])
    """Shares of draw, judge and redraw (paper: 0.2, 0.3, 0.5), a fourth of edit, and a fifth of seeing. Without the
    first three no candidates are needed."""
    seeing: SeeingRecipe = field(default_factory=SeeingRecipe)
    """What the rows of seeing are made of: rendered pictures of the world, as in pretraining, so that what judging
    needs is not unlearnt. Their loss stands beside that of the verdicts, with the same weight."""
    edit_mix: list[AtLeast0] = field(default_factory=lambda: [0.5, 0.25, 0.25])
    """Of the edit rows, shares that make an edit, judge one, and redraw a rejected one; perhaps a fourth that
    compares a result with its source, statement by statement, which judging needs. Each statement weighs as much as a
    whole verdict: where verdicts are to be learnt, too, let the fourth be small."""
    edits: str = "shapes"
    """Where edits come from: the world's fresh training cases, or the user's pairs as JSONL, which can only be
    made (edit_mix: [1, 0, 0])."""
    edit_families: list[Family] = field(default_factory=lambda: list(FAMILIES))
    """Families of the world's edits, each as often as it is named: what a model is worst at can come more often."""
    own_edits: OwnEditsRecipe = field(default_factory=OwnEditsRecipe)
    """Drafts of its own that the model judges and redraws among the edit rows."""
    own_drafts: str | list[str] = ""
    """Folder of candidates whose drafts alone are judged, any as likely as another: verdicts then know what the
    model is bad at. Of several folders, each as often. Empty: all images of ``candidates`` are judged, every prompt
    alike."""
    judge_wrong_rounds: Count = 2
    """Rejected drafts before the judged one: 0 to this many (t - 1 of the paper, t = 3)."""
    redraw_wrong_rounds: Positive = 2
    """Rejected drafts before the redrawn one: 1 to this many (t of the paper)."""
    caption_dropout: Share = 0.1
    word_weight: Share | None = 0.5
    """Share of a verdict's loss on its Yes/No; null weighs all tokens alike."""
    text_weight: AtLeast0 = 1.0
    """Weight of the verdict loss beside the image loss."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: Above0 = 2e-5
    weight_decay: AtLeast0 = 0.05
    compile: bool = False
    """Compile the language model (needs a C++ compiler): 30 % faster steps after a minute or two."""
    recompute: bool = False
    """Recompute the layers' activations backwards: a third more work for a fraction of the memory."""
    train_vision: bool = False
    """Also train the understanding encoder (the paper's code freezes it)."""

    def __post_init__(self) -> None:
        """One folder is a list of one, so that a run may be resumed by a recipe or by the command line."""
        super().__post_init__()
        self.candidates, self.own_drafts = _folders(self.candidates), _folders(self.own_drafts)

    @property
    def shares(self) -> Shares:
        return Shares(*self.mix)

    @property
    def edit_shares(self) -> EditShares:
        return EditShares(*self.edit_mix)


class Shares(NamedTuple):
    """``mix`` by name."""

    draw: float
    judge: float
    redraw: float
    edit: float = 0.0
    see: float = 0.0


class EditShares(NamedTuple):
    """``edit_mix`` by name."""

    draw: float
    judge: float
    redraw: float
    compare: float = 0.0


class Batch(NamedTuple):
    images: Sequence[Row]
    """Of draw and redraw."""
    verdicts: Sequence[Row]
    seen: Sequence[Row]


@dataclass(frozen=True)
class Begun:
    """A step's rows of candidates, and what its edits follow from."""

    images: list[Row]
    verdicts: list[Row]
    seen: list[Row]
    counts: EditCounts
    rng: random.Random


class SftStage(Stage):
    reloads_frozen = True

    def __init__(self, recipe: SftRecipe) -> None:
        check(recipe)
        self.recipe = recipe
        self.janus = load(recipe.model, device=str(this_process().device))
        prepare(self.janus, recipe.train_vision, recipe.compile, recipe.recompute)
        half = sharded() and recipe.run.precision == "bf16"
        self.replica = Replica(self.janus, recipe.model, "bfloat16" if half else "float32")
        self.examples: Examples | None = None
        if any(recipe.shares[:3]):
            own_drafts = [CandidateSet(folder) for folder in recipe.own_drafts]
            candidates = CandidateSet(*recipe.candidates)
            self.examples = Examples(candidates, self.janus.layout, recipe.word_weight, own_drafts)
        self.edits = self._edits()
        self.ahead = Ahead(recipe.run.workers if self.edits else 0, recipe.run.steps, self._begin)
        self.parts = 1
        self.module = NextToken(self.janus)
        make = muon_and_adamw if recipe.optimizer == "muon" else adamw
        self.optimizers = make(self.janus, recipe.lr, recipe.weight_decay)

    def _edits(self) -> WorldEdits | FileEdits | None:
        if not self.recipe.shares.edit:
            return None
        if self.recipe.edits == "shapes":
            half = self.recipe.run.precision == "bf16"
            return WorldEdits(self.replica.model, self.recipe.word_weight, half, self._own_edits())
        return FileEdits(self.replica.model, self.recipe.edits)

    def _own_edits(self) -> OwnEdits | None:
        """Drawn with the weights of the step."""
        own = self.recipe.own_edits
        if not own.drafts:
            return None
        return OwnEdits(own, Replica(self.janus, self.recipe.model, own.dtype).refresh)

    def batches(self, step: int) -> list[Batch]:
        """A step's rows share their number of rounds."""
        begun, made = self.ahead(step)
        images, verdicts = [*begun.images], [*begun.verdicts]
        if isinstance(self.edits, FileEdits):
            images += self.edits.draw(begun.counts.draw, begun.rng, begun.counts.dropout)
        elif self.edits is not None:
            counts, seed = begun.counts, self.recipe.run.seed_of(step)
            edited, judged = self.edits.rows(made, counts.redraw_rounds, counts.judge_rounds, seed)
            images, verdicts = [*images, *edited], [*verdicts, *judged]
        return self._micro_batches(images, verdicts, begun.seen)

    def _begin(self, step: int) -> tuple[Begun, Callable[[], EditPlan]]:
        """A step as far as its candidates go, and the planning of its edits, which may happen in another process."""
        recipe = self.recipe
        rng = random.Random(recipe.run.seed_of(step))
        redraw_rounds = rng.randint(1, max(1, recipe.redraw_wrong_rounds))
        judge_rounds = rng.randint(0, recipe.judge_wrong_rounds)
        images, verdicts = self._drawing_rows(rng, redraw_rounds, judge_rounds)
        seen = Seeing(self.janus.layout, recipe.seeing).rows(round(recipe.shares.see * recipe.rows), rng)
        draw, judge, redraw, compare = (round(recipe.shares.edit * part * recipe.rows) for part in recipe.edit_shares)
        families = tuple(recipe.edit_families)
        counts = EditCounts(draw, redraw, judge, compare, redraw_rounds, judge_rounds, recipe.caption_dropout, families)
        wanted = counts if isinstance(self.edits, WorldEdits) else EditCounts(0)
        return Begun(images, verdicts, seen, counts, rng), partial(plan, wanted, rng)

    def _drawing_rows(self, rng: random.Random, redraw_rounds: int, judge_rounds: int) -> tuple[list[Row], list[Row]]:
        recipe, examples = self.recipe, self.examples
        if examples is None:
            return [], []
        draw, judge, redraw = (round(share * recipe.rows) for share in recipe.shares[:3])
        images = [examples.draw(rng, recipe.caption_dropout) for _ in range(draw)]
        images += [examples.redraw(rng, redraw_rounds, recipe.caption_dropout) for _ in range(redraw)]
        return images, [examples.judge(rng, judge_rounds, positive=i % 2 == 0) for i in range(judge)]

    def _micro_batches(self, *kinds: list[Row]) -> list[Batch]:
        """This process's share of a step's rows; as many as in the other processes, with rows of every kind."""
        if self.recipe.micro_batch:
            own = [len(rows) / this_process().num_processes for rows in kinds if rows]
            self.parts = max(1, min(math.ceil(sum(own) / self.recipe.micro_batch), *map(int, own)))
        return [Batch(*rows) for rows in zip(*(_alike(share(rows), self.parts) for rows in kinds), strict=True)]

    def loss(self, module, batch: Batch, step: int):
        total = torch.zeros((), device=self.janus.device)
        figures = {}
        if batch.images:
            image = module(batch.images)[0] / self.parts
            total = total + image
            figures["image_loss"] = image.detach()
        for name, rows in (("verdict_loss", batch.verdicts), ("seeing_loss", batch.seen)):
            if rows:
                text = module(rows)[1] / self.parts
                total = total + self.recipe.text_weight * text
                figures[name] = text.detach()
        return total, figures

    def preview(self, step: int) -> np.ndarray:
        return chain_sheet(self.replica.refresh(), rounds=3, edits=3 if self.edits else 0)


def _folders(named: str | list[str]) -> list[str]:
    return [folder for folder in ([named] if isinstance(named, str) else named) if folder]


def _alike(rows: Sequence[Row], parts: int) -> list[Sequence[Row]]:
    """Rows in ``parts`` of equal size and alike lengths: what is padded is computed, too."""
    rows = sorted(rows, key=row_length)
    return [rows[len(rows) * i // parts : len(rows) * (i + 1) // parts] for i in range(parts)]


def check(recipe: SftRecipe) -> None:
    """Raises UserError for shares that cannot be meant, before anything is loaded."""
    shares = [*recipe.mix, *recipe.edit_mix]
    lengths_fit = 3 <= len(recipe.mix) <= 5 and 3 <= len(recipe.edit_mix) <= 4
    if not lengths_fit or min(shares) < 0 or not sum(recipe.mix):
        raise UserError(
            "mix holds the shares of draw, judge, redraw and perhaps edit and see; edit_mix of draw, judge, redraw and "
            "perhaps compare"
        )
    if recipe.shares.edit and recipe.edits != "shapes" and any(recipe.edit_mix[1:]):
        raise UserError(f"{recipe.edits} holds right results only, none to judge or reject: set edit_mix to [1, 0, 0]")
    require(bool(recipe.edit_families), "edit_families is empty: name at least one family of edits")
    if recipe.own_edits.drafts and recipe.edits != "shapes":
        raise UserError(f"the world's verifier cannot check edits of {recipe.edits}: set own_edits.drafts to 0")


def sft(recipe: SftRecipe, resume: bool = False) -> Path:
    """Finetune on candidates: draw, judge, redraw, edit; ``<out>/model`` then holds the model."""
    stage = SftStage(recipe)
    out = run(stage, recipe, recipe.run, resume)
    model = stage.replica.refresh()
    if this_process().is_main_process:
        save(model, out / "model", torch.bfloat16)
    return out / "model"
