"""Rows that teach editing: of fresh edits in the world, with their typical mistakes, or of the user's own.

The tasks are those of drawing, with a source image behind the instruction: make the edit, judge a result, redraw after
rejected ones. A fourth teaches what judging needs: to compare a result with its source. Results that are looked at or
rejected pass through the image tokenizer, as the model's own drafts do, and the verdict on them is the verifier's on
what is left. Where the model draws some itself, these come first: the world thinks of an edit too many or another one
than was asked for; a model's own faults are others, a corner missing or an object half moved, and a judge that never
saw them takes every one for right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch

from janus_r1.chain import Task
from janus_r1.data.edit_plan import EditCounts, EditPlan, Exercise, plan
from janus_r1.data.rows import Begun, RowMaker, Rows, Wanted
from janus_r1.data.task_files import EditReader, read_edits
from janus_r1.engine.decoder import Decoder
from janus_r1.engine.sampling import DRAW, uniforms
from janus_r1.errors import require
from janus_r1.fields import AtLeast0, Checked, Count, Range
from janus_r1.images import square
from janus_r1.introspect import encoded_sources, first_drafts
from janus_r1.model.janus import Janus
from janus_r1.segments import Drawn, Row, Seen, Source
from janus_r1.worlds.base import DEFAULT, world


@dataclass(frozen=True)
class Result:
    """A picture made of a source, through the tokenizer, and what the verifier says about it."""

    ids: tuple[int, ...]
    pixels: np.ndarray
    correct: bool
    verdict: str


@dataclass(frozen=True)
class Tried:
    """A task with its source as the model takes it, and results of it, right and wrong."""

    task: Task
    source: Source
    right: Result
    """The model's own where it drew a right one, else the rendered target."""
    wrong: tuple[Result, ...]
    """The model's own first, then the world's mistakes."""
    own: tuple[Result, ...] = ()
    """All that the model drew."""

    @property
    def own_wrong(self) -> int:
        return sum(not draft.correct for draft in self.own)


@dataclass
class OwnEditsRecipe(Checked):
    """Drafts of the world's edits by the model as it is now. Off by default."""

    drafts: Count = 0
    """Of every edit that is judged or redrawn. A right one is then accepted in the place of the rendered result, a
    wrong one rejected before the world's mistakes."""
    as_drawn: bool = False
    """Judge the first draft of every edit, right or wrong as it comes. Else every other verdict is on a wrong result,
    and a model that is mostly right learns to say No too often."""
    guidance: Annotated[float, Range(ge=1)] = 1.5
    temperature: AtLeast0 = 1.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the drawing copy; bfloat16 is twice as fast on a CPU that multiplies it."""

    def __post_init__(self) -> None:
        """Raises UserError for values that cannot be meant."""
        super().__post_init__()
        require(self.drafts > 0 or not self.as_drawn, "own_edits.as_drawn judges drafts: set own_edits.drafts to 1")


class OwnEdits:
    """Draws edits with the model that ``current`` returns at that moment."""

    def __init__(self, recipe: OwnEditsRecipe, current: Callable[[], Janus]) -> None:
        self.recipe, self.current, self.as_drawn = recipe, current, recipe.as_drawn

    def draw(self, asked: Sequence[tuple[str, Source]], seed: int) -> list[list[tuple[int, ...]]]:
        """VQ ids of the drafts of every instruction and source; random numbers follow from ``seed``."""
        count = self.recipe.drafts
        if not count or not asked:
            return [[] for _ in asked]
        decoder = Decoder(self.current())
        openings = [decoder.model.layout.opening(*pair) for pair in asked for _ in range(count)]
        uniform = uniforms(seed, list(range(len(openings))), 0, DRAW, decoder.model.image_tokens)
        ids = first_drafts(decoder, openings, uniform, self.recipe.guidance, self.recipe.temperature)
        rows = [tuple(row) for row in ids.tolist()]
        return [rows[i : i + count] for i in range(0, len(rows), count)]


class WorldEditRows(RowMaker):
    """Makes the shares ``edit``, ``judge_edit``, ``redraw_edit`` and ``compare_edit`` of fresh training cases."""

    def __init__(
        self,
        model: Janus,
        word_weight: float | None = None,
        half: bool = False,
        own: OwnEdits | None = None,
        families: Sequence[str] = (),
        world_name: str = DEFAULT,
    ) -> None:
        """``half`` decodes results in bfloat16."""
        self.model, self.layout, self.word_weight, self.half, self.own = model, model.layout, word_weight, half, own
        self.families, self.world_name = tuple(families), world_name

    def begin(self, wanted: Wanted) -> Begun:
        count = wanted.count
        counts = EditCounts(
            count("edit"),
            count("redraw_edit"),
            count("judge_edit"),
            count("compare_edit"),
            wanted.redraw_rounds,
            wanted.judge_rounds,
            wanted.dropout,
            self.families,
            self.world_name,
        )
        return Begun(job=partial(plan, counts, wanted.rng))

    def finish(self, made: EditPlan, wanted: Wanted) -> Rows:
        """Before a redrawn result stand rejected ones, before a judged one up to so many; the model's own drafts
        follow from the step's seed."""
        tried = list(self._tried([*made.redraw, *made.judge], wanted.seed))  # drawn together
        redrawn, judged = tried[: len(made.redraw)], tried[len(made.redraw) :]
        images = [*self._drawn(made.draw), *self._redrawn(made.redraw, redrawn, wanted.redraw_rounds)]
        verdicts = self._judged_as_drawn if self.own and self.own.as_drawn else self._judged
        return Rows(images, [*verdicts(judged, wanted.judge_rounds), *self._compared(made.compare)], [])

    def draw(self, count: int, rng: random.Random, dropout: float) -> list[Row]:
        """A source and an instruction to the edited picture; loss on its ids."""
        return self._drawn(plan(EditCounts(count, dropout=dropout, world=self.world_name), rng).draw)

    # -------------------------------------------------------------------------- what the model adds

    def _drawn(self, exercises: Sequence[Exercise]) -> list[Row]:
        return [
            self.layout.draw(exercise.task.prompt, target.ids, exercise.dropped, source)
            for exercise, (source, target) in zip(exercises, self._coded(exercises), strict=True)
        ]

    def _redrawn(self, exercises: Sequence[Exercise], tried: Sequence[Tried], wrong_rounds: int) -> list[Row]:
        """From ``wrong_rounds`` rejected results and the verdicts on them to a right one."""
        rows = []
        for exercise, one in zip(exercises, tried, strict=True):
            earlier = [(Drawn(result.ids), result.verdict) for result in one.wrong[:wrong_rounds]]
            rows.append(self.layout.redraw(one.task.prompt, earlier, one.right.ids, exercise.dropped, one.source))
        return rows

    def _judged(self, tried: Sequence[Tried], wrong_rounds: int) -> list[Row]:
        """The verdict on one result of each, after up to ``wrong_rounds`` rejected ones; every other one is wrong.

        The tasks in which the model itself went wrong are those with wrong results, as far as they reach.
        """
        ranked = sorted(tried, key=lambda one: -one.own_wrong)
        half = len(ranked) // 2
        rows = []
        for index in range(len(ranked)):
            one = ranked[index // 2 if index % 2 else half + index // 2]
            first, *others = one.wrong or (one.right,)
            judged, earlier = (first, others) if index % 2 else (one.right, one.wrong)
            rows.append(self._judge_row(one, earlier[:wrong_rounds], judged))
        return rows

    def _judged_as_drawn(self, tried: Sequence[Tried], wrong_rounds: int) -> list[Row]:
        """The verdict on the model's first draft of each, after up to ``wrong_rounds`` other rejected results."""
        rows = []
        for one in tried:
            first = one.own[0]
            earlier = [result for result in one.wrong if result is not first]
            rows.append(self._judge_row(one, earlier[:wrong_rounds], first))
        return rows

    def _judge_row(self, one: Tried, earlier: Sequence[Result], judged: Result) -> Row:
        before = [(self._seen(result.pixels), result.verdict) for result in earlier]
        return self.layout.judge(
            one.task.prompt,
            before,
            self._seen(judged.pixels),
            judged.verdict,
            self.word_weight,
            source=one.source,
        )

    def _compared(self, exercises: Sequence[Exercise]) -> list[Row]:
        coded = self._coded(exercises)
        pictures = self._decoded([result.ids for _, result in coded])
        return [
            self.layout.compare(exercise.task.prompt, source, self._seen(pixels), list(exercise.lesson.statements))
            for exercise, (source, _), pixels in zip(exercises, coded, pictures, strict=True)
        ]

    def _tried(self, exercises: Sequence[Exercise], seed: int) -> Iterator[Tried]:
        coded = self._coded(exercises)
        asked = [(exercise.task.prompt, source) for exercise, (source, *_) in zip(exercises, coded, strict=True)]
        own = self.own.draw(asked, seed) if self.own else [[] for _ in exercises]
        given = [[result.ids for result in results] for _, *results in coded]
        found = self._checked(exercises, [[*g, *o] for g, o in zip(given, own, strict=True)])
        for exercise, (_, source), given_ids, results in zip(exercises, asked, given, found, strict=True):
            (target, *mistakes), drafts = results[: len(given_ids)], results[len(given_ids) :]
            right = next((draft for draft in drafts if draft.correct), target)
            faults = [draft for draft in drafts if not draft.correct]
            wrong = (*faults, *(mistake for mistake in mistakes if not mistake.correct))
            yield Tried(exercise.task, source, right, wrong, tuple(drafts))

    def _checked(
        self, exercises: Sequence[Exercise], ids: Sequence[Sequence[tuple[int, ...]]]
    ) -> Iterator[list[Result]]:
        """What the tokenizer makes of each exercise's results, and the verifier of that."""
        pictures = iter(self._decoded([row for rows in ids for row in rows]))
        for exercise, rows in zip(exercises, ids, strict=True):
            results = []
            for row in rows:
                pixels = next(pictures)
                found = world(self.world_name).check(exercise.task, pixels)
                results.append(Result(row, pixels, found.correct, found.verdict))
            yield results

    def _coded(self, exercises: Sequence[Exercise]) -> list[list[Source]]:
        """The source and the results of every exercise, with their ids."""
        coded = iter(self.model.sources([image for exercise in exercises for image in exercise.pictures]))
        return [[next(coded) for _ in exercise.pictures] for exercise in exercises]

    def _decoded(self, ids: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """What the tokenizer makes of them, uint8 [H, W, 3] each."""
        return list(self.model.decode_image(torch.tensor(ids, device=self.model.device), self.half)) if ids else []

    def _seen(self, pixels: np.ndarray) -> Seen:
        return Seen(pixels, self.model.image_tokens)


class FileEditRows(RowMaker):
    """Makes the share ``edit`` of the user's own rows. They hold right results only: nothing to judge or to reject."""

    def __init__(self, model: Janus, path: str) -> None:
        self.model, self.reader = model, EditReader(read_edits(path))

    def begin(self, wanted: Wanted) -> Begun:
        return Begun(Rows(self.draw(wanted.count("edit"), wanted.rng, wanted.dropout), [], []))

    def draw(self, count: int, rng: random.Random, dropout: float) -> list[Row]:
        """As :meth:`WorldEditRows.draw`."""
        picked, size = [self.reader.pick(rng) for _ in range(count)], self.model.image_size
        sources = encoded_sources(self.model, [task for task, _ in picked])
        targets = self.model.sources([square(target, size) for _, target in picked if target is not None])
        return [
            self.model.layout.draw(task.prompt, target.ids, rng.random() < dropout, source)
            for (task, _), source, target in zip(picked, sources, targets, strict=True)
        ]
