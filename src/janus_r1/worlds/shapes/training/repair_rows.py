"""Rows of the format ``repair``: look at a picture and say what to change, change it, draw, edit, answer questions.

Pictures that are looked at or mended are the model's own drafts and renderings, right ones and spoilt ones, all of them
through the image tokenizer; what is to be said of them is computed from the pixels that the model sees.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch

from janus_r1.layout import Layout
from janus_r1.model.janus import Janus, from_uint8
from janus_r1.segments import Row, Seen, Source, unseen
from janus_r1.worlds.base import WorldTask, world
from janus_r1.worlds.shapes.edit_cases import EditTask
from janus_r1.worlds.shapes.edits import CannotEdit
from janus_r1.worlds.shapes.findings import Finding, look_and_say, look_at_edit, mend, nearest
from janus_r1.worlds.shapes.mistakes import spoil
from janus_r1.worlds.shapes.prompts import Prompt, train_prompts
from janus_r1.worlds.shapes.repairs import as_scene, as_seen, background_of
from janus_r1.worlds.shapes.scene import HELD_OUT, Scene, render, sample_scene
from janus_r1.worlds.shapes.verifier import View
from janus_r1.worlds.shapes.verifier import look as view_of
from janus_r1.worlds.shapes.verify_edit import check_edit


@dataclass(frozen=True, eq=False)
class Picture:
    """An image of a prompt as the model sees it, and what is to be said of it."""

    prompt: Prompt
    ids: tuple[int, ...]
    pixels: np.ndarray
    view: View
    finding: Finding


def prompts(rng: random.Random, dense: float) -> Iterator[Prompt]:
    """Training prompts, of which about a share ``dense`` is of the family dense."""
    stream = train_prompts(rng)
    while True:
        hard = rng.random() < dense
        yield next(p for p in stream if (p.family == "dense") == hard)


def pictures(model: Janus, asked: Sequence[Prompt], ids: Sequence[tuple[int, ...]]) -> list[Picture]:
    """Images of ``ids`` with what the verifier sees in them."""
    if not ids:
        return []
    images = model.decode_image(torch.tensor(ids, device=model.device), half=True)
    found = []
    for prompt, row, pixels in zip(asked, ids, images, strict=True):
        view = view_of(pixels)
        found.append(Picture(prompt, tuple(row), pixels, view, look_and_say(view.objects, prompt.description)))
    return found


def exchanged(shown: Sequence[Picture], share: float) -> list[Picture]:
    """``shown``, the first ``share`` of them with each other's prompts: what is said of them cannot be guessed."""
    count = round(share * len(shown))
    asked = [picture.prompt for picture in (*shown[1:count], *shown[:1])][:count]
    changed = [
        replace(picture, prompt=prompt, finding=look_and_say(picture.view.objects, prompt.description))
        for picture, prompt in zip(shown, asked, strict=False)
    ]
    return [*changed, *shown[count:]]


def encoded(model: Janus, scenes: Sequence[Scene]) -> list[tuple[int, ...]]:
    """VQ ids of the scenes' renderings."""
    if not scenes:
        return []
    images = from_uint8(np.stack([render(scene) for scene in scenes]))
    return [tuple(row) for row in model.encode_image(images.to(model.device)).tolist()]


class RepairRows:
    """Everything random comes from the generator passed in."""

    def __init__(self, model: Janus, dense: float, dropout: float) -> None:
        self.model, self.layout, self.dense, self.dropout = model, model.layout, dense, dropout

    def draw(self, count: int, rng: random.Random) -> list[Row]:
        """Captions and fresh renderings."""
        asked = list(islice(prompts(rng, self.dense), count))
        ids = encoded(self.model, [sample_scene(prompt.description, rng) for prompt in asked])
        return [self.layout.draw(p.text, row, rng.random() < self.dropout) for p, row in zip(asked, ids, strict=True)]

    def draw_again(self, shown: Sequence[Picture], rng: random.Random) -> list[Row]:
        """Captions and the model's own pictures of them, which should be right: drawn or mended."""
        return [self.layout.draw(p.prompt.text, p.ids, rng.random() < self.dropout) for p in shown]

    def rendered(self, count: int, right: float, rng: random.Random) -> list[Picture]:
        """Renderings of prompts, a share ``right`` of them right, the others with one to three faults."""
        asked = list(islice(prompts(rng, self.dense), count))
        scenes = [sample_scene(prompt.description, rng) for prompt in asked]
        scenes = [
            scene if rng.random() < right else spoil(scene, prompt.description, rng)
            for scene, prompt in zip(scenes, asked, strict=True)
        ]
        return pictures(self.model, asked, encoded(self.model, scenes))

    def look(self, shown: Sequence[Picture]) -> list[Row]:
        """The list, the word and the instruction for each picture."""
        return [looking(self.layout, picture) for picture in shown]

    def compare(self, count: int, right: float, rng: random.Random) -> list[Row]:
        """As :meth:`rendered` and :meth:`look`, of lists that are given: what is in no picture need not be seen."""
        rows = []
        for prompt in islice(prompts(rng, self.dense), count):
            scene = sample_scene(prompt.description, rng)
            if rng.random() >= right:
                scene = spoil(scene, prompt.description, rng)
            finding = look_and_say(as_seen(scene), prompt.description)
            rows.append(self.layout.compare_list(prompt.text, finding.listing, finding.verdict))
        return rows

    def look_at_edits(self, count: int, wrong: float, rng: random.Random) -> list[Row]:
        """Results of the world's edits, a share ``wrong`` of them with its mistakes."""
        lessons = world("shapes").lessons(count, 1, rng)
        results = [lesson.results[-1 if rng.random() < wrong else 0] for lesson in lessons]
        tasks = [lesson.task for lesson in lessons]
        ids = [result.ids for result in self.model.sources(results)]
        return self.look_at_results(tasks, self.sources(tasks), ids)

    def sources(self, tasks: Sequence[WorldTask]) -> list[Source]:
        """Those of edits, as the model takes them."""
        return self.model.sources([task.source for task in tasks if task.source is not None])

    def look_at_results(
        self, tasks: Sequence[WorldTask], sources: Sequence[Source], ids: Sequence[tuple[int, ...]]
    ) -> list[Row]:
        """What is to be said of ``ids`` as the edited ``sources``."""
        if not ids:
            return []
        images = self.model.decode_image(torch.tensor(ids, device=self.model.device), half=True)
        rows = []
        for task, source, pixels in zip(tasks, sources, images, strict=True):
            view = view_of(pixels)
            assert isinstance(task, EditTask)
            finding = look_at_edit(view.objects, check_edit(view_of(source.pixels), view, task.edits))
            seen, said = Seen(pixels, self.layout.image_tokens), (finding.listing, finding.verdict)
            rows.append(self.layout.look(task.prompt, seen, *said, source=source))
        return rows

    def mend_spoilt(self, count: int, rng: random.Random) -> list[Row]:
        """Spoilt renderings and what an instruction makes of them: any of those that lead to a right picture."""
        steps: list[tuple[Scene, str, Scene]] = []
        for prompt in prompts(rng, self.dense):
            if len(steps) == count:
                break
            scene = spoil(sample_scene(prompt.description, rng), prompt.description, rng)
            path = nearest(scene, prompt.description, rng)
            if path:
                before = [scene, *(after for _, after in path[:-1])]
                at = rng.randrange(len(path))
                steps.append((before[at], *path[at]))
        return self._edits(encoded(self.model, [s[0] for s in steps]), steps, rng)

    def mend_drafts(self, shown: Sequence[Picture], rng: random.Random) -> list[Row]:
        """The model's own wrong drafts and what the repair that they need makes of them."""
        ids, steps = [], []
        for picture in shown:
            if not picture.finding.repairs:
                continue
            try:
                scene = as_scene(picture.view.objects, background_of(picture.view))
                after = mend(scene, picture.finding.repairs, rng)
            except CannotEdit:
                continue
            if not any((item.shape, item.colour) in HELD_OUT for item in after.objects):
                ids.append(picture.ids)
                steps.append((scene, picture.finding.instruction, after))
        return self._edits(ids, steps, rng)

    def _edits(
        self, sources: Sequence[tuple[int, ...]], steps: Sequence[tuple[Scene, str, Scene]], rng: random.Random
    ) -> list[Row]:
        targets = encoded(self.model, [after for _, _, after in steps])
        return [
            self.layout.draw(instruction, target, rng.random() < self.dropout, unseen(source))
            for source, (_, instruction, _), target in zip(sources, steps, targets, strict=True)
        ]


def looking(layout: Layout, picture: Picture) -> Row:
    """One row of looking."""
    seen, finding = Seen(picture.pixels, layout.image_tokens), picture.finding
    return layout.look(picture.prompt.text, seen, finding.listing, finding.verdict)
