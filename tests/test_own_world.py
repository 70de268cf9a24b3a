"""A world of a user's own, a few lines in a file: what trains in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from janus_r1.errors import UserError
from janus_r1.rewards.score import RewardRecipe
from janus_r1.train.loop import RunOptions
from janus_r1.train.rl import rl
from janus_r1.train.rl_recipe import RlRecipe
from janus_r1.train.sft import SftRecipe, sft

WORLD = """
import numpy as np
from janus_r1.worlds.base import Check, Claim, Question, World, WorldTask

class Greys(World):
    name = "greys"

    def stream(self, rng, kind="draw", families=()):
        while True:
            yield WorldTask(rng.choice(["a ring", "two rings", "a star"]))

    def check(self, task, image):
        claims = [Claim(float(image.mean()) > limit, "it is too dark") for limit in range(1, 255)]
        return Check(tuple(claims))

    def sights(self, count, rng, **shares):
        return [Question(np.full((64, 64, 3), rng.randrange(256), np.uint8), "What is it?", "a ring")] * count
"""


@pytest.fixture
def world(tmp_path) -> str:
    (tmp_path / "greys.py").write_text(WORLD)
    return str(tmp_path / "greys.py")


def run(out: Path) -> RunOptions:
    return RunOptions(str(out), steps=2, threads=1, precision="no", preview_every=0, log_every=1, trackers=[])


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_reinforcement_learning_in_it(tiny_folder, tmp_path, world):
    recipe = RlRecipe(run(tmp_path / "rl"), str(tiny_folder), world, prompts_per_step=2, group=3, eval_every=0)
    recipe.rewards = [RewardRecipe("world", world=world)]
    recipe.rounds, recipe.max_reason_tokens = 1, 3
    rl(recipe)
    figures = rows(tmp_path / "rl")
    assert len(figures) == 2 and all(0 < row["reward_draw"] < 1 and row["no_spread"] == 0 for row in figures)


def test_finetuning_in_it(tiny_folder, tmp_path, world):
    recipe = SftRecipe(run(tmp_path / "sft"), str(tiny_folder), shares={"see": 1.0}, rows=4, world=world)
    sft(recipe)
    assert len(rows(tmp_path / "sft")) == 2 and all(row["seeing_loss"] > 0 for row in rows(tmp_path / "sft"))
    with pytest.raises(UserError, match=r"greys .* edits"):
        recipe.run.out, recipe.shares = str(tmp_path / "edits"), {"judge_edit": 1.0}
        sft(recipe)
