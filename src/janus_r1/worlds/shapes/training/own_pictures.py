"""What the model in training draws, mends and edits itself, to be looked at: made every few steps, kept for a while.

All of it follows from ids and seeds, which a checkpoint holds: a killed run goes on with the very same pictures.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from janus_r1.engine.decoder import Decoder
from janus_r1.engine.sampling import DRAW, uniforms
from janus_r1.introspect import first_drafts
from janus_r1.model.janus import Janus
from janus_r1.segments import Lead, Row, Source
from janus_r1.worlds.base import world
from janus_r1.worlds.shapes.language import parse
from janus_r1.worlds.shapes.prompts import Prompt
from janus_r1.worlds.shapes.training.repair_rows import Picture, RepairRows, pictures, prompts

MENDING = 0.5  # temperature of repairs and edits
Ids = tuple[int, ...]


class Drawn(NamedTuple):
    """Drafts that were drawn together, first ones or repairs."""

    asked: list[Prompt]
    ids: list[Ids]


class Edited(NamedTuple):
    """Results of the edits that follow from ``seed``."""

    seed: int
    ids: list[Ids]


class OwnPictures:
    """``drafts`` are drawn at every refresh, half as many wrong ones mended; the latest ``kept`` pictures stay."""

    def __init__(
        self, model: Janus, make: RepairRows, drafts: int, kept: int, guidance: float, with_edits: bool
    ) -> None:
        """``model``: as it is when :meth:`refresh` is called."""
        self.model, self.make = model, make
        self.drafts, self.kept, self.guidance, self.with_edits = drafts, kept, guidance, with_edits
        self.pictures: list[Picture] = []
        self.edits: list[Row] = []
        self.figures: dict[str, float] = {}
        self._drawn: list[Drawn] = []
        self._edited: list[Edited] = []

    def refresh(self, rng: random.Random, seed: int) -> None:
        """Drafts of the model as it is, and drafts that mend the wrong ones of them as they should be mended."""
        layout = self.model.layout
        asked = [next(prompts(rng, self.make.dense)) for _ in range(self.drafts)]
        drawn = self._add(Drawn(asked, self._ids([layout.opening(p.text) for p in asked], seed, 1.0)))
        wrong = [picture for picture in drawn if picture.finding.repairs][: self.drafts // 2]
        leads = [layout.opening(p.finding.instruction, Source(p.ids, p.pixels)) for p in wrong]
        mended = self._add(Drawn([p.prompt for p in wrong], self._ids(leads, seed + 1, MENDING)))
        if self.with_edits:
            tasks, sources = self._edit_tasks(seed + 2)
            leads = [layout.opening(task.prompt, source) for task, source in zip(tasks, sources, strict=True)]
            self._add_edits(Edited(seed + 2, self._ids(leads, seed + 2, MENDING)))
        self.figures = _figures(drawn, wrong, mended)

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` takes, as JSON."""
        return {
            "drawn": [{"asked": [[p.text, p.family] for p in d.asked], "ids": d.ids} for d in self._drawn],
            "edited": [{"seed": e.seed, "ids": e.ids} for e in self._edited],
            "figures": self.figures,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The pictures of a checkpoint, as they were."""
        for drawn in state.get("drawn", []):
            self._add(Drawn([_prompt(*said) for said in drawn["asked"]], [tuple(row) for row in drawn["ids"]]))
        for edited in state.get("edited", []):
            self._add_edits(Edited(edited["seed"], [tuple(row) for row in edited["ids"]]))
        self.figures = state.get("figures", {})

    def _add(self, drawn: Drawn) -> list[Picture]:
        """Pictures are decoded with those that they were drawn with: rounding may depend on the company."""
        new = pictures(self.model, drawn.asked, drawn.ids)
        self._drawn.append(drawn)
        self.pictures = [*self.pictures, *new][-self.kept :]
        self._drawn = _latest(self._drawn, len(self.pictures))
        return new

    def _add_edits(self, edited: Edited) -> None:
        self.edits = [*self.edits, *self.make.look_at_results(*self._edit_tasks(edited.seed), edited.ids)][-self.kept :]
        self._edited = _latest([*self._edited, edited], len(self.edits))

    def _edit_tasks(self, seed: int) -> tuple[list[Any], list[Source]]:
        """The world's edits, a quarter as many as drafts."""
        lessons = world("shapes").lessons(self.drafts // 4, 0, random.Random(f"own edits {seed}"))
        tasks = [lesson.task for lesson in lessons]
        return tasks, self.make.sources(tasks)

    def _ids(self, leads: list[Lead], seed: int, temperature: float) -> list[Ids]:
        if not leads:
            return []
        uniform = uniforms(seed, list(range(len(leads))), 0, DRAW, self.model.image_tokens)
        ids = first_drafts(Decoder(self.model), leads, uniform, self.guidance, temperature)
        return [tuple(row) for row in ids.tolist()]


def _latest(groups: list[Any], count: int) -> list[Any]:
    """The last groups, as many as ``count`` pictures need."""
    held, first = 0, len(groups)
    while first and held < count:
        first -= 1
        held += len(groups[first].ids)
    return groups[first:]


def _prompt(text: str, family: str) -> Prompt:
    description = parse(text)
    assert description is not None  # the world wrote it
    return Prompt(text, family, description)


def _figures(drawn: Sequence[Picture], wrong: Sequence[Picture], mended: Sequence[Picture]) -> dict[str, float]:
    changed = [
        after.finding.instruction != before.finding.instruction for before, after in zip(wrong, mended, strict=True)
    ]
    return {
        "drafts_right": _share(drawn, lambda p: p.prompt.family != "dense"),
        "dense_right": _share(drawn, lambda p: p.prompt.family == "dense"),
        "mended": sum(changed) / max(1, len(changed)),
        "mended_right": _share(mended, lambda p: True),
    }


def _share(drawn: Sequence[Picture], wanted: Callable[[Picture], bool]) -> float:
    chosen = [picture.finding.correct for picture in drawn if wanted(picture)]
    return sum(chosen) / max(1, len(chosen))
