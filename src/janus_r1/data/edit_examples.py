"""Rows that teach editing: of fresh edits in the world, with their typical mistakes, or of the user's pairs.

The three tasks are those of drawing, with a source image behind the instruction: make the edit, judge a
result, redraw after rejected ones. A fourth teaches what judging needs: to compare a result with its source. Results
that are looked at or rejected pass through the image tokenizer, as the model's own drafts do, and the verdict on them
is the verifier's on what is left.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from janus_r1.chain import Source
from janus_r1.data.edit_pairs import PairReader, read_pairs
from janus_r1.data.edit_plan import EditPlan, Sketch, to_compare, to_draw, to_learn, to_redraw
from janus_r1.images import square
from janus_r1.layout import Drawn, Row, Seen
from janus_r1.model.janus import Janus
from janus_r1.world.verify import look
from janus_r1.world.verify_edit import check_edit


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
    wrong: tuple[Result, ...]


class WorldEdits:
    """Rows of fresh training cases; everything random comes from the generator passed in."""

    def __init__(self, model: Janus, word_weight: float | None = None, half: bool = False) -> None:
        """``half`` decodes results in bfloat16."""
        self.model, self.layout, self.word_weight, self.half = model, model.layout, word_weight, half

    def rows(self, made: EditPlan, wrong_rounds: int) -> tuple[list[Row], list[Row]]:
        """Image rows (made and redrawn) and verdict rows (judged and compared) of a plan."""
        images = [*self._drawn(made.draw), *self._redrawn(made.redraw)]
        return images, [*self._judged(made.judge, wrong_rounds), *self._compared(made.compare)]

    def draw(self, count: int, rng: random.Random, dropout: float) -> list[Row]:
        """A source and an instruction to the edited picture; loss on its ids."""
        return self._drawn(to_draw(count, rng, dropout))

    def judge(self, count: int, rng: random.Random, wrong_rounds: int) -> list[Row]:
        """The verdict on a result, after up to ``wrong_rounds`` rejected ones; every other result is a mistake."""
        return self._judged(to_learn(count, rng, wrong_rounds + 1), wrong_rounds)

    def compare(self, count: int, rng: random.Random) -> list[Row]:
        """What became of the source in a result, every other one a mistake, as a checklist."""
        return self._compared(to_compare(count, rng))

    def redraw(self, count: int, rng: random.Random, wrong_rounds: int, dropout: float) -> list[Row]:
        """From ``wrong_rounds`` mistakes and the verdicts on them to the edited picture."""
        return self._redrawn(to_redraw(count, rng, wrong_rounds, dropout))

    def lessons(self, count: int, mistakes: int, rng: random.Random) -> list[Lesson]:
        """Training cases, each with up to ``mistakes`` wrong results, which the verifier found to be wrong."""
        return list(self._lessons(to_learn(count, rng, mistakes)))

    # -------------------------------------------------------------------------- what the model adds

    def _drawn(self, sketches: Sequence[Sketch]) -> list[Row]:
        return [
            self.layout.draw(sketch.instruction.text, target.ids, sketch.dropped, source)
            for sketch, (source, target) in zip(sketches, self._coded(sketches), strict=True)
        ]

    def _redrawn(self, sketches: Sequence[Sketch]) -> list[Row]:
        rows = []
        for sketch, lesson in zip(sketches, self._lessons(sketches), strict=True):
            earlier = [(Drawn(result.ids), result.verdict) for result in lesson.wrong]
            rows.append(
                self.layout.redraw(lesson.instruction, earlier, lesson.right.ids, sketch.dropped, lesson.source)
            )
        return rows

    def _judged(self, sketches: Sequence[Sketch], wrong_rounds: int) -> list[Row]:
        rows = []
        for index, lesson in enumerate(self._lessons(sketches)):
            *earlier, last = lesson.wrong or (lesson.right,)
            judged = lesson.right if index % 2 == 0 else last
            rows.append(self._judge_row(lesson, earlier[:wrong_rounds], judged))
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
        pictures = self._decoded([result for _, result in coded])
        return [
            self.layout.compare(sketch.instruction.text, source, self._seen(pixels), list(sketch.statements))
            for sketch, (source, _), pixels in zip(sketches, coded, pictures, strict=True)
        ]

    def _lessons(self, sketches: Sequence[Sketch]) -> Iterator[Lesson]:
        coded = self._coded(sketches)
        pictures = self._decoded([result for _, *results in coded for result in results])
        ends = list(accumulate(len(sketch.results) for sketch in sketches))
        for sketch, (source, *results), end in zip(sketches, coded, ends, strict=True):
            right, *wrong = self._checked(sketch, results, pictures[end - len(results) : end])
            yield Lesson(sketch.instruction.text, source, right, tuple(r for r in wrong if not r.correct))

    def _checked(self, sketch: Sketch, results: Sequence[Source], pictures: Sequence[np.ndarray]) -> Iterator[Result]:
        assert sketch.view is not None, "a plan looks at the sources of lessons"
        for result, pixels in zip(results, pictures, strict=True):
            found = check_edit(sketch.view, look(pixels), sketch.instruction.edits)
            yield Result(result.ids, pixels, found.correct, found.verdict)

    def _coded(self, sketches: Sequence[Sketch]) -> list[list[Source]]:
        """The source and the results of every sketch, with their ids."""
        coded = iter(self.model.sources([image for sketch in sketches for image in (sketch.source, *sketch.results)]))
        return [[next(coded) for _ in (sketch.source, *sketch.results)] for sketch in sketches]

    def _decoded(self, results: Sequence[Source]) -> list[np.ndarray]:
        """What the tokenizer makes of them, uint8 [H, W, 3] each."""
        return list(self.model.decode_image(self.model.ids_of(results), self.half)) if results else []

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
