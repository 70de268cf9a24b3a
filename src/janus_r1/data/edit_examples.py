"""Rows that teach editing: of fresh edits in the world, with their typical mistakes, or of the user's pairs.

The three tasks are those of drawing, with a source image behind the instruction: make the edit, judge a
result, redraw after rejected ones. A fourth teaches what judging needs: to compare a result with its source. Results
that are looked at or rejected pass through the image tokenizer, as the model's own drafts do, and the verdict on them
is the verifier's on what is left. Where the model draws some itself (:mod:`janus_r1.data.own_edits`), these come first.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from janus_r1.chain import Source
from janus_r1.data.edit_pairs import PairReader, read_pairs
from janus_r1.data.edit_plan import EditCounts, EditPlan, Sketch, plan
from janus_r1.data.own_edits import OwnEdits
from janus_r1.images import square
from janus_r1.layout import Drawn, Row, Seen
from janus_r1.model.janus import Janus
from janus_r1.worlds.shapes.verifier import look
from janus_r1.worlds.shapes.verify_edit import check_edit


@dataclass(frozen=True)
class Result:
    """A picture made of a source, through the tokenizer, and what the verifier says about it."""

    ids: tuple[int, ...]
    pixels: np.ndarray
    correct: bool
    verdict: str


@dataclass(frozen=True)
class Lesson:
    instruction: str
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


class WorldEdits:
    """Rows of fresh training cases; everything random comes from the generator passed in."""

    def __init__(
        self, model: Janus, word_weight: float | None = None, half: bool = False, own: OwnEdits | None = None
    ) -> None:
        """``half`` decodes results in bfloat16."""
        self.model, self.layout, self.word_weight, self.half, self.own = model, model.layout, word_weight, half, own

    def rows(self, made: EditPlan, redraw_rounds: int, judge_rounds: int, seed: int) -> tuple[list[Row], list[Row]]:
        """Image rows (made and redrawn) and verdict rows (judged and compared) of a plan.

        Before a redrawn result stand ``redraw_rounds`` rejected ones, before a judged one up to ``judge_rounds``;
        the model's own drafts follow from ``seed``.
        """
        lessons = list(self._lessons([*made.redraw, *made.judge], seed))  # drawn together
        redrawn, judged = lessons[: len(made.redraw)], lessons[len(made.redraw) :]
        images = [*self._drawn(made.draw), *self._redrawn(made.redraw, redrawn, redraw_rounds)]
        verdicts = self._judged_as_drawn if self.own and self.own.as_drawn else self._judged
        return images, [*verdicts(judged, judge_rounds), *self._compared(made.compare)]

    def draw(self, count: int, rng: random.Random, dropout: float) -> list[Row]:
        """A source and an instruction to the edited picture; loss on its ids."""
        return self._drawn(plan(EditCounts(count, dropout=dropout), rng).draw)

    # -------------------------------------------------------------------------- what the model adds

    def _drawn(self, sketches: Sequence[Sketch]) -> list[Row]:
        return [
            self.layout.draw(sketch.instruction.text, target.ids, sketch.dropped, source)
            for sketch, (source, target) in zip(sketches, self._coded(sketches), strict=True)
        ]

    def _redrawn(self, sketches: Sequence[Sketch], lessons: Sequence[Lesson], wrong_rounds: int) -> list[Row]:
        """From ``wrong_rounds`` rejected results and the verdicts on them to a right one."""
        rows = []
        for sketch, lesson in zip(sketches, lessons, strict=True):
            earlier = [(Drawn(result.ids), result.verdict) for result in lesson.wrong[:wrong_rounds]]
            rows.append(
                self.layout.redraw(lesson.instruction, earlier, lesson.right.ids, sketch.dropped, lesson.source)
            )
        return rows

    def _judged(self, lessons: Sequence[Lesson], wrong_rounds: int) -> list[Row]:
        """The verdict on one result of each, after up to ``wrong_rounds`` rejected ones; every other one is wrong.

        The lessons in which the model itself went wrong are those of wrong results, as far as they reach.
        """
        ranked = sorted(lessons, key=lambda lesson: -lesson.own_wrong)
        half = len(ranked) // 2
        rows = []
        for index in range(len(ranked)):
            lesson = ranked[index // 2 if index % 2 else half + index // 2]
            first, *others = lesson.wrong or (lesson.right,)
            judged, earlier = (first, others) if index % 2 else (lesson.right, lesson.wrong)
            rows.append(self._judge_row(lesson, earlier[:wrong_rounds], judged))
        return rows

    def _judged_as_drawn(self, lessons: Sequence[Lesson], wrong_rounds: int) -> list[Row]:
        """The verdict on the model's first draft of each, after up to ``wrong_rounds`` other rejected results."""
        rows = []
        for lesson in lessons:
            first = lesson.own[0]
            earlier = [result for result in lesson.wrong if result is not first]
            rows.append(self._judge_row(lesson, earlier[:wrong_rounds], first))
        return rows

    def _judge_row(self, lesson: Lesson, earlier: Sequence[Result], judged: Result) -> Row:
        before = [(self._seen(result.pixels), result.verdict) for result in earlier]
        return self.layout.judge(
            lesson.instruction,
            before,
            self._seen(judged.pixels),
            judged.verdict,
            self.word_weight,
            source=lesson.source,
        )

    def _compared(self, sketches: Sequence[Sketch]) -> list[Row]:
        coded = self._coded(sketches)
        pictures = self._decoded([result.ids for _, result in coded])
        return [
            self.layout.compare(sketch.instruction.text, source, self._seen(pixels), list(sketch.statements))
            for sketch, (source, _), pixels in zip(sketches, coded, pictures, strict=True)
        ]

    def _lessons(self, sketches: Sequence[Sketch], seed: int) -> Iterator[Lesson]:
        coded = self._coded(sketches)
        asked = [(sketch.instruction.text, source) for sketch, (source, *_) in zip(sketches, coded, strict=True)]
        own = self.own.draw(asked, seed) if self.own else [[] for _ in sketches]
        given = [[result.ids for result in results] for _, *results in coded]
        found = self._checked(sketches, [[*g, *o] for g, o in zip(given, own, strict=True)])
        for (instruction, source), world, results in zip(asked, given, found, strict=True):
            (target, *mistakes), drafts = results[: len(world)], results[len(world) :]
            right = next((draft for draft in drafts if draft.correct), target)
            faults = [draft for draft in drafts if not draft.correct]
            wrong = (*faults, *(mistake for mistake in mistakes if not mistake.correct))
            yield Lesson(instruction, source, right, wrong, tuple(drafts))

    def _checked(self, sketches: Sequence[Sketch], ids: Sequence[Sequence[tuple[int, ...]]]) -> Iterator[list[Result]]:
        """What the tokenizer makes of each sketch's results, and the verifier of that."""
        pictures = iter(self._decoded([row for rows in ids for row in rows]))
        for sketch, rows in zip(sketches, ids, strict=True):
            assert sketch.view is not None, "a plan looks at the sources of lessons"
            results = []
            for row in rows:
                pixels = next(pictures)
                found = check_edit(sketch.view, look(pixels), sketch.instruction.edits)
                results.append(Result(row, pixels, found.correct, found.verdict))
            yield results

    def _coded(self, sketches: Sequence[Sketch]) -> list[list[Source]]:
        """The source and the results of every sketch, with their ids."""
        coded = iter(self.model.sources([image for sketch in sketches for image in (sketch.source, *sketch.results)]))
        return [[next(coded) for _ in (sketch.source, *sketch.results)] for sketch in sketches]

    def _decoded(self, ids: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
        """What the tokenizer makes of them, uint8 [H, W, 3] each."""
        return list(self.model.decode_image(torch.tensor(ids, device=self.model.device), self.half)) if ids else []

    def _seen(self, pixels: np.ndarray) -> Seen:
        return Seen(pixels, self.model.image_tokens)


class FileEdits:
    """Rows of the user's own pairs. They hold right results only, so there is nothing to judge or to reject."""

    def __init__(self, model: Janus, path: str) -> None:
        self.model, self.reader = model, PairReader(read_pairs(path))

    def draw(self, count: int, rng: random.Random, dropout: float) -> list[Row]:
        """As :meth:`WorldEdits.draw`."""
        picked, size = [self.reader.pick(rng) for _ in range(count)], self.model.image_size
        sources = self.model.sources([square(source, size) for _, source, _ in picked])
        targets = self.model.sources([square(target, size) for _, _, target in picked if target is not None])
        return [
            self.model.layout.draw(pair.instruction, target.ids, rng.random() < dropout, source)
            for (pair, _, _), source, target in zip(picked, sources, targets, strict=True)
        ]
