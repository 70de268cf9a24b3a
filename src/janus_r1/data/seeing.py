"""Rows about a world's pictures: questions, checklists, and verdicts on whether a picture is what a prompt asks for.

The seeing side is pretrained on them, and may rehearse them later: every row sees a fresh picture.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass

from janus_r1.data.rows import Begun, RowMaker, Rows, Wanted
from janus_r1.fields import Checked, Share
from janus_r1.layout import Layout
from janus_r1.segments import Row, Seen
from janus_r1.worlds.base import DEFAULT, Checklist, Question, Sight, world

WORD_WEIGHT = 0.6  # share of a verdict's loss on its Yes/No
VERDICT_WEIGHT = 10.0  # tokens that a verdict counts for beside descriptions of about 20


@dataclass
class SeeingRecipe(Checked):
    """What the rows are made of."""

    judge: Share = 0.5
    """Share laid out as self-evaluation of a picture that may be right or wrong."""
    checklist: Share = 0.3
    """Share that asks of several words whether they are there; the rest are questions with one answer."""
    easy: Share = 0.5
    """Share of verdicts about one object, and share of wrong pictures that are of another prompt altogether;
    the rest miss one fact. Comparing is learnt on easy cases first (docs/log.md)."""
    describe: Share = 0.4
    """Share of question rows that ask for a description, which names every object."""


class SeeingRows(RowMaker):
    """Makes the share ``see``; everything random comes from the generator passed in."""

    def __init__(self, layout: Layout, recipe: SeeingRecipe, world_name: str = DEFAULT) -> None:
        self.layout, self.recipe, self.world_name = layout, recipe, world_name

    def begin(self, wanted: Wanted) -> Begun:
        return Begun(Rows([], [], self.rows(wanted.count("see"), wanted.rng)))

    def rows(self, count: int, rng: random.Random) -> list[Row]:
        return [self._row(sight) for sight in world(self.world_name).sights(count, rng, **asdict(self.recipe))]

    def _row(self, sight: Sight) -> Row:
        if isinstance(sight, Question):
            return self.layout.question(sight.image, sight.question, sight.answer)
        if isinstance(sight, Checklist):
            return self.layout.checklist(sight.image, sight.question, list(sight.items))
        seen = Seen(sight.image, self.layout.image_tokens)
        return self.layout.judge(sight.prompt, [], seen, sight.verdict, WORD_WEIGHT, VERDICT_WEIGHT)
