"""Rows about rendered pictures: questions, checklists, and verdicts on whether a picture is what a prompt asks for.

The seeing side is pretrained on them, and may rehearse them later: every row sees a fresh scene.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from janus_r1.fields import Checked, Share
from janus_r1.layout import Layout, Row, Seen
from janus_r1.worlds.shapes.prompts import Prompt, near_miss, train_prompts
from janus_r1.worlds.shapes.questions import ask, checklist
from janus_r1.worlds.shapes.scene import Scene, render, sample_scene
from janus_r1.worlds.shapes.verifier import verify_scene

WORD_WEIGHT = 0.6  # share of a verdict's loss on its Yes/No
CHECKED = 7  # items a checklist
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


class Seeing:
    """Everything random comes from the generator passed in."""

    def __init__(self, layout: Layout, recipe: SeeingRecipe) -> None:
        self.layout, self.recipe = layout, recipe

    def rows(self, count: int, rng: random.Random) -> list[Row]:
        prompts = list(itertools.islice(train_prompts(rng), count))
        scenes = [sample_scene(prompt.description, rng) for prompt in prompts]
        return [self._row(prompt, scene, rng) for prompt, scene in zip(prompts, scenes, strict=True)]

    def _row(self, prompt: Prompt, scene: Scene, rng: random.Random) -> Row:
        recipe, kind = self.recipe, rng.random()
        if kind < recipe.judge:
            return self._judged(prompt, rng)
        if kind < recipe.judge + recipe.checklist:
            return self.layout.checklist(render(scene), "Which are there?", checklist(scene, CHECKED, rng))
        question, answer = ask(scene, prompt, rng, recipe.describe)
        return self.layout.question(render(scene), question, answer)

    def _judged(self, prompt: Prompt, rng: random.Random) -> Row:
        """Half the pictures are made to be right."""
        easy = self.recipe.easy
        if rng.random() < easy:
            prompt = next(p for p in train_prompts(rng) if p.family in ("single_object", "colors"))
        wanted = prompt.description
        if rng.random() < 0.5:
            other = next(p for p in train_prompts(rng) if p.family == prompt.family)
            wanted = other.description if rng.random() < easy else near_miss(prompt, rng)
        scene = sample_scene(wanted, rng)
        seen, verdict = Seen(render(scene), self.layout.image_tokens), verify_scene(scene, prompt.description).verdict
        return self.layout.judge(prompt.text, [], seen, verdict, WORD_WEIGHT, VERDICT_WEIGHT)
