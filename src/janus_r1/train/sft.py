"""Stage 2: supervised finetuning on rows of named shares (paper section 3.1).

:func:`sft` is the loop; who makes the rows of which share is said in :func:`row_makers`. Departures from the paper, all
recipe keys: the tiny model is trained with Muon and a larger rate; the verdict word carries a fixed share of its row's
loss (official code: 0.8, the paper is silent).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from janus_r1.data.candidates import CandidateRows, CandidateSet
from janus_r1.data.edit_rows import FileEditRows, OwnEdits, OwnEditsRecipe, WorldEditRows
from janus_r1.data.rows import SHARES, Begun, RowMaker, Rows, Told, Wanted, in_parts, together
from janus_r1.data.seeing import SeeingRecipe, SeeingRows
from janus_r1.data.store_rows import StoreRows
from janus_r1.data.tasks import OF_WORLD, check_families, store_tasks
from janus_r1.errors import UserError, nearest, require
from janus_r1.fields import Above0, AtLeast0, Checked, Count, Positive, Share
from janus_r1.model.janus import Janus
from janus_r1.model.loading import load
from janus_r1.segments import Row
from janus_r1.train.ahead import Ahead
from janus_r1.train.loop import RunOptions, running
from janus_r1.train.lora import Adapters, LoraRecipe
from janus_r1.train.objective import NextToken
from janus_r1.train.optim import adamw, muon_and_adamw
from janus_r1.train.prepare import Replica, chain_sheet, prepare
from janus_r1.train.processes import sharded, share, this_process
from janus_r1.worlds.base import DEFAULT

OF_CANDIDATES = ("draw", "judge", "redraw")
OF_STORE = ("draw", "judge", "redraw", "edit")
PREVIEWED = 6  # tasks of the data
OF_EDITS = ("edit", "judge_edit", "redraw_edit", "compare_edit")


@dataclass
class SftRecipe(Checked):
    """Recipe of ``janus-r1 train sft``."""

    run: RunOptions = field(default_factory=lambda: RunOptions(out="runs/sft", steps=1200))
    model: str = "runs/base/model"
    """Model to start from: a folder, an embedded model or a Hub id."""
    candidates: str | list[str] = "runs/candidates"
    """Folder of the world's candidates, or several taken together."""
    data: str | list[str] = ""
    """Folder of ``janus-r1 data import`` or ``data make``, or several taken together: draw, judge, redraw and edit are
    then made of it, and ``candidates`` and ``edits`` are not looked at."""
    format: Literal["own", "paper", "repair"] = "own"
    """How the model's chains are laid out from now on: as they are, as the paper has it, or look, list, decide, repair;
    the rows of ``data`` are laid out so. Its config remembers."""
    lora: LoraRecipe = field(default_factory=LoraRecipe)
    """Train small matrices beside the model's; <out>/adapter then holds them, <out>/model both together."""
    rows: Positive = 64
    """Rows a step over all tasks and processes."""
    micro_batch: Count = 0
    """Rows that go through the model together in a process, alike in length; sets the memory. 0: all of a step.
    Where short and long rows meet (shares), a few parts a step are also faster: less is padded."""
    shares: dict[str, AtLeast0] = field(default_factory=lambda: {"draw": 0.2, "judge": 0.3, "redraw": 0.5})
    """Shares of the rows by name (the default: paper). draw, judge and redraw are made of candidates; edit, judge_edit,
    redraw_edit and compare_edit of ``edits``; see rehearses the seeing of pretraining. Each statement that compare_edit
    asks of weighs as much as a whole verdict: where verdicts are to be learnt, too, let it be small."""
    seeing: SeeingRecipe = field(default_factory=SeeingRecipe)
    """What the rows of seeing are made of: rendered pictures of the world, as in pretraining, so that what judging
    needs is not unlearnt. Their loss stands beside that of the verdicts, with the same weight."""
    world: str = DEFAULT
    """Where edits and pictures to see come from: shapes, a Python file with a world of your own, or module:name."""
    edits: str = "world"
    """Where edits come from: the world's fresh training cases, or the user's pairs as JSONL, which can only be
    made (the share edit)."""
    edit_families: list[str] = field(default_factory=list)
    """Families of the world's edits, each as often as it is named: what a model is worst at can come more often. All
    when empty."""
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
        self.data, self.own_drafts = _folders(self.data), _folders(self.own_drafts)
        self.candidates = [] if self.data else _folders(self.candidates)

    def count(self, *names: str) -> float:
        """The shares of ``names`` together."""
        return sum(self.shares.get(name, 0.0) for name in names)


def check(recipe: SftRecipe) -> None:
    """Raises UserError for shares that cannot be meant, before anything is loaded."""
    for name in recipe.shares:
        if name not in SHARES:
            hint = nearest(name, SHARES, f"choose from {', '.join(SHARES)}")
            raise UserError(f"shares.{name}: there is no such share; {hint}")
    require(recipe.count(*SHARES) > 0, "all shares are 0: there is nothing to learn")
    if recipe.format == "repair" and not recipe.data and recipe.count("judge", "redraw"):
        raise UserError("candidates are laid out as the paper has it: for the format repair let data name a store")
    if recipe.data and recipe.count(*OF_EDITS[1:]):
        raise UserError(f"data teaches {', '.join(OF_STORE)}: leave the other shares of edits out, or leave data empty")
    if recipe.edits != OF_WORLD and recipe.count(*OF_EDITS[1:]):
        raise UserError(
            f"{recipe.edits} holds right results only, none to judge or reject: of edits take the share edit"
        )
    check_families(recipe.world, recipe.edit_families)
    if recipe.own_edits.drafts and recipe.edits != OF_WORLD:
        raise UserError(f"the world's verifier cannot check edits of {recipe.edits}: set own_edits.drafts to 0")


# -------------------------------------------------------------------------------------- the loop


def sft(recipe: SftRecipe, resume: bool = False) -> Path:
    """Finetune on rows of named shares: draw, judge, redraw, edit, see.

    ``<out>/model`` then holds the model; with LoRA ``<out>/adapter`` what was trained.
    """
    parts = Parts(recipe)
    with running(recipe, parts.module, parts.optimizers, resume=resume, reloads_frozen=True) as run:
        for step in run.steps():
            batches = micro_batches(step_rows(parts, step), recipe.micro_batch)
            told = _Told()
            figures = run.update(
                batches, partial(rows_loss, parts=len(batches), text_weight=recipe.text_weight, told=told)
            )
            run.end_step(figures | told.means(), partial(_preview, parts))
    if parts.adapters:
        parts.adapters.save(run.out / "adapter")
    return parts.replica.save(run.out / "model")


class Parts:
    """What a run works with: its model, and the makers of its rows. Raises UserError as :func:`check` does."""

    def __init__(self, recipe: SftRecipe) -> None:
        check(recipe)
        self.recipe = recipe
        self.janus = load(
            recipe.model, recipe.lora.base_dtype if recipe.lora.rank else "float32", str(this_process().device)
        )
        prepare(self.janus, recipe.train_vision, recipe.compile, recipe.recompute)
        self.adapters = Adapters(self.janus, recipe.lora, recipe.model, recipe.run.seed) if recipe.lora.rank else None
        half = sharded() and recipe.run.precision == "bf16"
        self.replica = Replica(self.janus, recipe.model, "bfloat16" if half else "float32", self.adapters)
        if recipe.format != "own":
            self.janus.format = self.replica.model.format = recipe.format
        self.makers = row_makers(recipe, self.janus, self.replica)
        workers = recipe.run.workers if recipe.count(*OF_EDITS) or recipe.data else 0
        self.ahead = Ahead(workers, recipe.run.steps, partial(begin, recipe, self.makers))
        self.module = NextToken(self.janus)
        make = muon_and_adamw if recipe.optimizer == "muon" else adamw
        self.optimizers = make(self.janus, recipe.lr, recipe.weight_decay)


def row_makers(recipe: SftRecipe, janus: Janus, replica: Replica) -> list[RowMaker]:
    """Those whose shares the recipe wants, in the order in which they draw from a step's random numbers."""
    makers: list[RowMaker] = []
    if recipe.data:
        wanted = [name for name in OF_STORE if recipe.count(name)]
        part = (this_process().process_index, this_process().num_processes)
        makers.append(StoreRows(recipe.data, replica.model, wanted, recipe.word_weight, part))
    elif recipe.count(*OF_CANDIDATES):
        own_drafts = [CandidateSet(folder) for folder in recipe.own_drafts]
        candidates = CandidateSet(*recipe.candidates)
        for one in (candidates, *own_drafts):
            one.check(janus.image_tokens, janus.codes, janus.image_size)
        wanted = [name for name in OF_CANDIDATES if recipe.count(name)]
        makers.append(CandidateRows(candidates, janus.layout, recipe.word_weight, own_drafts, wanted))
    if recipe.count("see"):
        makers.append(SeeingRows(janus.layout, recipe.seeing, recipe.world))
    if recipe.data:
        return makers
    if recipe.count(*OF_EDITS) and recipe.edits != OF_WORLD:
        makers.append(FileEditRows(replica.model, recipe.edits))
    elif recipe.count(*OF_EDITS):
        own, half = None, recipe.run.precision == "bf16"
        if recipe.own_edits.drafts:  # drawn with the weights of the step
            own = OwnEdits(recipe.own_edits, Replica(janus, recipe.model, recipe.own_edits.dtype).refresh)
        makers.append(WorldEditRows(replica.model, recipe.word_weight, half, own, recipe.edit_families, recipe.world))
    return makers


# ------------------------------------------------------------------------------------------ rows


def begin(
    recipe: SftRecipe, makers: Sequence[RowMaker], step: int
) -> tuple[tuple[Wanted, list[Begun]], Callable[[], list[Any]]]:
    """A step as far as its weights do not matter, and work for it that may happen in another process.

    The rows of a step share their number of rounds.
    """
    seed = recipe.run.seed_of(step)
    rng = random.Random(seed)
    redraw_rounds = rng.randint(1, max(1, recipe.redraw_wrong_rounds))
    judge_rounds = rng.randint(0, recipe.judge_wrong_rounds)
    counts = {name: round(value * recipe.rows) for name, value in recipe.shares.items()}
    wanted = Wanted(counts, seed, rng, judge_rounds, redraw_rounds, recipe.caption_dropout)
    begun = [maker.begin(wanted) for maker in makers]
    return (wanted, begun), partial(_work, [one.job for one in begun])


def _work(jobs: Sequence[Callable[[], Any] | None]) -> list[Any]:
    return [job and job() for job in jobs]


def step_rows(parts: Parts, step: int) -> Rows:
    """All rows of a step, of the weights as they are."""
    (wanted, begun), made = parts.ahead(step)
    finished = [maker.finish(of_one, wanted) for maker, of_one in zip(parts.makers, made, strict=True)]
    return together([*(one.rows for one in begun), *finished])


def micro_batches(rows: Rows, size: int) -> list[Rows]:
    """This process's share of a step's rows in parts of about ``size``; as many as in the other processes, with rows of
    every kind. 0: in one."""
    parts = 1
    if size:
        own = [len(kind) / this_process().num_processes for kind in rows if kind]
        parts = max(1, min(math.ceil(sum(own) / size), *map(int, own)))
    return [Rows(*kinds) for kinds in zip(*(in_parts(share(kind), parts) for kind in rows), strict=True)]


# ------------------------------------------------------------------------------------------ loss


class _Told:
    """Losses of rows that say what they are of, by what they say; of one process alone, since others have others."""

    def __init__(self) -> None:
        self.losses: dict[str, list[float]] = {}

    def asked(self, rows: Sequence[Row]) -> list[float] | None:
        """To be filled with the rows' losses; None where no row says anything."""
        return [] if any(isinstance(row, Told) for row in rows) else None

    def add(self, rows: Sequence[Row], losses: list[float] | None) -> None:
        for row, loss in zip(rows, losses or [], strict=False):
            for label in row.labels if isinstance(row, Told) else ():
                self.losses.setdefault(f"loss/{label}", []).append(loss)

    def means(self) -> dict[str, float]:
        return {name: sum(values) / len(values) for name, values in self.losses.items()}


def rows_loss(
    module: torch.nn.Module, batch: Rows, *, parts: int, text_weight: float, told: _Told | None = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The losses of a batch, one of ``parts``: of images, of verdicts and of answers about pictures."""
    total, figures, told = torch.zeros((), device=this_process().device), {}, told or _Told()
    if batch.images:
        own = told.asked(batch.images)
        image = module(batch.images, own)[0] / parts
        told.add(batch.images, own)
        total = total + image
        figures["image_loss"] = image.detach()
    for name, rows in (("verdict_loss", batch.verdicts), ("seeing_loss", batch.seen)):
        if rows:
            own = told.asked(rows)
            text = module(rows, own)[1] / parts
            told.add(rows, own)
            total = total + text_weight * text
            figures[name] = text.detach()
    return total, figures


def _preview(parts: Parts) -> np.ndarray:
    own = store_tasks(parts.recipe.data, PREVIEWED) if parts.recipe.data else None
    return chain_sheet(
        parts.replica.refresh(),
        rounds=3,
        edits=3 if parts.recipe.count(*OF_EDITS) else 0,
        world_name=parts.recipe.world,
        tasks=own,
    )


def _folders(named: str | list[str]) -> list[str]:
    return [folder for folder in ([named] if isinstance(named, str) else named) if folder]
