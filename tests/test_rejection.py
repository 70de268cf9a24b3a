"""Rejection sampling: what a rollout leaves as candidates, and that SFT learns from these alone."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from janus_r1.chain import Chain, Round, Settings, Verdict
from janus_r1.data.candidates import Candidate, CandidateRows, CandidateSet, write_part
from janus_r1.errors import UserError
from janus_r1.recipe import load_recipe
from janus_r1.train.checkpoint import training
from janus_r1.train.loop import RunOptions
from janus_r1.train.rl import Parts, draw_rollout, rl
from janus_r1.train.rl_recipe import RlRecipe
from janus_r1.train.rollout import Group, candidates, write_candidates
from janus_r1.train.sft import SftRecipe, sft

ROOT = Path(__file__).parent.parent
YES, NO = "Yes, the image matches the prompt.", "No, the ring is red, not blue."
# (accepted, reward) of every draft; the first verdict of the second chain and the third's are wrong.
CHAINS = [[(True, 1.0)], [(False, 1.0), (False, 0.2), (True, 1.0)], [(True, 0.1)]]


def group(prompt: str, scripts) -> Group:
    """A picture's grey is its number, so that pictures and candidates can be matched."""
    chains, rewards, number = [], [], 0
    for script in scripts:
        rounds = []
        for accepted, _ in script:
            pixels = np.full((64, 64, 3), number, np.uint8)
            rounds.append(Round((number,) * 64, pixels, Verdict(accepted, YES if accepted else NO, 0.5)))
            number += 1
        chains.append(Chain(prompt, tuple(rounds), len(rounds) - 1, Settings()))
        rewards.append(tuple(reward for _, reward in script))
    return Group(prompt, tuple(chains), tuple(rewards))


def test_every_draft_is_a_candidate_and_only_true_verdicts_are_kept():
    found = candidates(group("a blue ring", CHAINS), 7)
    assert [c.p_yes for c in found] == [1.0, 1.0, 0.2, 1.0, 0.1]
    assert [c.reason for c in found] == [YES, "", NO, YES, ""]
    assert [c.source for c in found] == ["round 1", "round 1", "round 2", "round 3", "round 1"]
    assert {(c.prompt_id, c.prompt) for c in found} == {(7, "a blue ring")}


def test_a_part_lies_as_sft_reads_it_with_the_right_pictures(tmp_path):
    write_candidates(tmp_path, 3, 0, [group("a ring", CHAINS[:1]), group("a star", CHAINS)], first_id=30)
    write_candidates(tmp_path, 3, 1, [group("a heart", CHAINS)], first_id=32)
    held = CandidateSet(tmp_path)
    assert {c.prompt_id: c.prompt for c in held} == {30: "a ring", 31: "a star", 32: "a heart"}
    assert all((held.image(i) == c.ids[0]).all() for i, c in enumerate(held))


def test_drafts_without_a_true_verdict_are_drawn_but_neither_judged_nor_a_context(tiny, tmp_path):
    write_candidates(tmp_path, 0, 0, [group("a ring", CHAINS)], first_id=0)
    examples = CandidateRows(CandidateSet(tmp_path), tiny.layout, None)
    pools = examples.drawn
    assert pools.good == {"a ring": [0, 1, 3]} and pools.yes == {"a ring": [0, 3]} and pools.no == {"a ring": [2]}
    rng = random.Random(0)
    for _ in range(20):
        redrawn, judged = examples.redraw(rng, 2, 0.0), examples.judge(rng, 1, positive=False)
        assert 4 not in {ids[0] for ids in drawn_ids(redrawn)}, "a wrong draft that was accepted as a rejected one"
        assert all((segment.pixels == 2).all() for segment in judged if hasattr(segment, "pixels"))


def drawn_ids(row) -> list[tuple[int, ...]]:
    return [segment.ids for segment in row if type(segment).__name__ == "Drawn"]


def test_candidates_that_nothing_can_be_said_yes_to_are_refused(tiny, tmp_path):
    mute = [
        Candidate(0, "a ring", (0,) * 64, 1.0, "", "round 1"),
        Candidate(0, "a ring", (1,) * 64, 0.1, NO, "round 2"),
    ]
    write_part(tmp_path / "part_0", mute, np.zeros((2, 64, 64, 3), np.uint8))
    with pytest.raises(UserError, match="nothing to say Yes to"):
        CandidateRows(CandidateSet(tmp_path), tiny.layout, None)


# ------------------------------------------------------------------------------------------ a run


def small(folder: Path, out: Path, **changes) -> RlRecipe:
    run = RunOptions(out=str(out), steps=4, save_every=2, preview_every=100, threads=1, precision="no")
    values = {"prompts_per_step": 2, "group": 3, "rounds": 2, "max_reason_tokens": 4, "minibatches": 2, "eval_every": 0}
    return RlRecipe(run=run, model=str(folder), keep_candidates=True, **(values | changes))


def test_a_run_leaves_what_sft_can_learn_from(tiny_folder, tmp_path, monkeypatch):
    """Two rollouts of two prompts; the model that SFT makes of them knows its recipe and its steps."""
    monkeypatch.setattr("janus_r1.train.rollout.true_reason", lambda verdict, reward: NO if reward < 0.5 else YES)
    monkeypatch.setattr("janus_r1.train.rl.draw_rollout", scored(draw_rollout))
    rl(small(tiny_folder, tmp_path / "rl"))
    folder = tmp_path / "rl" / "candidates"
    assert [part.name for part in sorted(folder.iterdir())] == ["part_000000_000", "part_000001_000"]
    held = CandidateSet(folder)
    drafts = Counter(candidate.prompt_id for candidate in held)
    assert set(drafts) == {0, 1, 2, 3} and min(drafts.values()) >= 3

    recipe = load_recipe(SftRecipe, "shapes/rejection")
    recipe.run = RunOptions(out=str(tmp_path / "sft"), steps=1, threads=1, precision="no")
    model = sft(dataclasses.replace(recipe, model=str(tiny_folder), candidates=str(folder), rows=8, compile=False))
    record = training(str(model))
    assert record["steps"] == 1 and record["seconds"] > 0 and record["recipe"]["candidates"] == [str(folder)]
    assert training("tiny-sft") is None and training(str(tiny_folder)) is None


def scored(roll_out):
    """Rollouts whose first chains are right: a random model earns nothing."""

    def changed(parts, index):
        rollout = roll_out(parts, index)
        rewards = [tuple((float(i == 0),) * len(r) for i, r in enumerate(g.rewards)) for g in rollout.groups]
        rollout.groups = [dataclasses.replace(g, rewards=r) for g, r in zip(rollout.groups, rewards, strict=True)]
        return rollout

    return changed


def test_edits_cannot_be_kept(tiny_folder, tmp_path):
    with pytest.raises(UserError, match="keep_candidates"):
        Parts(small(tiny_folder, tmp_path, task="edit"))
