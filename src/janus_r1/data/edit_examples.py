"""Rows that teach editing: of fresh edits in the world, with their typical mistakes, or of the user's pairs.

The three tasks are those of drawing, with a source image behind the instruction: make the edit, judge a
result, redraw after rejected ones. A fourth teaches what judging needs: to compare a result with its source. Results
that are looked at or rejected pass through the image tokenizer, as the model's own drafts do, and the verdict on them
is the verifier's on what is left.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from janus_r1.chain import Source
from janus_r1.data.edit_pairs import PairReader, read_pairs
from janus_r1.images import square
from janus_r1.layout import Drawn, Row, Seen
from janus_r1.model.janus import Janus
from janus_r1.world.differences import statements
from janus_r1.world.edit_cases import EditCase, train_edits
from janus_r1.world.edits import CannotEdit
from janus_r1.world.mistakes import side_effects, wrong_edits
from janus_r1.world.render import render
from janus_r1.world.scene import Scene
from janus_r1.world.verify_edit import check_edit, look

COMPARED = 7  # statements a checklist


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

    def draw(self, count: int, rng: random.Random, dropout: float) -> list[Row]:
        """A source and an instruction to the edited picture; loss on its ids."""
        cases = list(islice(train_edits(rng), count))
        sources = self.model.sources([render(case.source) for case in cases])
        targets = self.model.sources([render(case.target) for case in cases])
        return [
            self.layout.draw(case.instruction.text, target.ids, rng.random() < dropout, source)
            for case, source, target in zip(cases, sources, targets, strict=True)
        ]

    def judge(self, count: int, rng: random.Random, wrong_rounds: int) -> list[Row]:
        """The verdict on a result, after up to ``wrong_rounds`` rejected ones; every other result is a mistake."""
        rows = []
        for index, lesson in enumerate(self.lessons(count, wrong_rounds + 1, rng)):
            *earlier, last = lesson.wrong or (lesson.right,)
            judged = lesson.right if index % 2 == 0 else last
            rows.append(self._judge_row(lesson, earlier[:wrong_rounds], judged))
        return rows

    def _judge_row(self, lesson: Lesson, earlier: Sequence[Result], judged: Result) -> Row:
        before = [(self._seen(result), result.verdict) for result in earlier]
        return self.layout.judge(
            lesson.instruction, before, self._seen(judged), judged.verdict, self.word_weight, source=lesson.source
        )

    def compare(self, count: int, rng: random.Random) -> list[Row]:
        """What became of the source in a result, every other one a mistake, as a checklist."""
        if not count:
            return []  # nothing to decode
        cases = list(islice(train_edits(rng), count))
        after = [case.target if i % 2 == 0 else _mistakes(case, 1, rng)[0] for i, case in enumerate(cases)]
        sources = self.model.sources([render(case.source) for case in cases])
        results = self.model.sources([render(scene) for scene in after])
        pictures = self.model.decode_image(self.model.ids_of(results), self.half)
        return [
            self.layout.compare(
                case.instruction.text,
                source,
                Seen(pixels, self.model.image_tokens),
                statements(case.source, scene, COMPARED, rng),
            )
            for case, source, scene, pixels in zip(cases, sources, after, pictures, strict=True)
        ]

    def redraw(self, count: int, rng: random.Random, wrong_rounds: int, dropout: float) -> list[Row]:
        """From ``wrong_rounds`` mistakes and the verdicts on them to the edited picture."""
        rows = []
        for lesson in self.lessons(count, wrong_rounds, rng):
            earlier = [(Drawn(result.ids), result.verdict) for result in lesson.wrong]
            dropped = rng.random() < dropout
            rows.append(self.layout.redraw(lesson.instruction, earlier, lesson.right.ids, dropped, lesson.source))
        return rows

    def _seen(self, result: Result) -> Seen:
        return Seen(result.pixels, self.model.image_tokens)

    # ---------------------------------------------------------------------------------- lessons

    def lessons(self, count: int, mistakes: int, rng: random.Random) -> list[Lesson]:
        """Training cases, each with up to ``mistakes`` wrong results, which the verifier found to be wrong.

        A case that the tokenizer blurs beyond the verifier's reading is replaced by another.
        """
        lessons: list[Lesson] = []
        stream = train_edits(rng)
        while len(lessons) < count:
            cases = list(islice(stream, count - len(lessons)))
            scenes = [[case.source, case.target, *_mistakes(case, mistakes, rng)] for case in cases]
            coded = iter(self.model.sources([render(scene) for row in scenes for scene in row]))
            for case, row in zip(cases, scenes, strict=True):
                source, *results = (next(coded) for _ in row)
                if lesson := self._lesson(case, source, results):
                    lessons.append(lesson)
        return lessons

    def _lesson(self, case: EditCase, source: Source, results: list[Source]) -> Lesson | None:
        before = look(source.pixels)
        checked = []
        pictures = self.model.decode_image(self.model.ids_of(results), self.half)
        for result, pixels in zip(results, pictures, strict=True):
            try:
                found = check_edit(before, look(pixels), case.instruction.edits)
            except CannotEdit:
                return None
            checked.append(Result(result.ids, pixels, found.correct, found.verdict))
        right, *wrong = checked
        return Lesson(case.instruction.text, source, right, tuple(r for r in wrong if not r.correct))


def _mistakes(case: EditCase, count: int, rng: random.Random) -> list[Scene]:
    """Different wrong results: as often another edit than the one asked for as one change too many."""
    kinds = [list(mistakes(case, rng).values()) for mistakes in (wrong_edits, side_effects)]
    for scenes in kinds:
        rng.shuffle(scenes)
    chosen: list[Scene] = []
    while len(chosen) < count and any(kinds):
        chosen.append(rng.choice([scenes for scenes in kinds if scenes]).pop())
    return chosen


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
