"""Reinforcement learning of the format repair: log-probs, credit by decision, repairs of one draft, variety."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from by_hand import Uneven
from janus_r1.chain import Chain, Round, Settings, Task, Verdict
from janus_r1.errors import UserError
from janus_r1.introspect import introspect
from janus_r1.model.loading import load, save
from janus_r1.rewards.score import Claimed, RewardRecipe
from janus_r1.train.credit import (
    EPSILON,
    Credit,
    Scored,
    Trajectory,
    decisions_credit,
    image_tokens,
    listed,
    text_tokens,
)
from janus_r1.train.loop import RunOptions
from janus_r1.train.policy import Policy, rows_of
from janus_r1.train.repairing import branch_out, token_marks, varied, wrong_drafts
from janus_r1.train.rl import Parts, credited, rl
from janus_r1.train.rl_recipe import RlRecipe
from janus_r1.train.rollout import Group
from janus_r1.worlds.base import world
from janus_r1.worlds.shapes.scene import Scene, SceneObject, render

SETTINGS = Settings(
    rounds=3, guidance=2.0, text_temperature=1.0, text_top_k=0, max_list_tokens=7, max_reason_tokens=6, redraw="repair"
)


@pytest.fixture
def repairing(tiny):
    tiny.core.config.introspection = "repair"
    return tiny


@pytest.fixture
def repairing_folder(repairing, tmp_path) -> Path:
    save(repairing, tmp_path / "repairing")
    return tmp_path / "repairing"


def test_policy_recomputes_lists_words_and_repairs_at_their_own_temperature(repairing):
    chains = introspect(repairing, [Task(p) for p in ("a red circle", "two stars", "a blue ring") * 4], SETTINGS)
    assert any(r.repairs is not None for c in chains for r in c.rounds), "no repair: the test would show little"
    image, text = Policy(repairing, SETTINGS, chunk=50)(rows_of(repairing.layout, chains))
    drawn = [p for c in chains for r in c.rounds for p in r.logprobs]
    said = [p for c in chains for r in c.rounds for p in (*r.verdict.list_logprobs, *r.verdict.logprobs)]
    assert torch.allclose(image, torch.tensor(drawn), atol=1e-4)
    assert torch.allclose(text, torch.tensor(said), atol=1e-4)


def test_chains_that_go_on_from_one_draft_share_it_and_do_not_learn_it(repairing):
    first = introspect(repairing, [Task("a red circle")], Settings(rounds=1, max_list_tokens=4, max_reason_tokens=4))
    group = Group("a red circle", tuple(first), ((0.0,),))
    begun = wrong_drafts([group], 0.5, random.Random(0))
    (branched,) = branch_out(repairing, begun, 6, SETTINGS, Uneven()).groups
    assert len(branched.chains) == 6 and all(c.rounds[0].ids == first[0].rounds[0].ids for c in branched.chains)
    assert len({c.rounds[0].verdict.list_ids for c in branched.chains}) > 1  # each looks for itself
    assert {len(c.rounds) for c in branched.chains} <= {1, 2}
    image, _ = Policy(repairing, SETTINGS)(rows_of(repairing.layout, branched.chains))
    assert len(image) == sum(len(c.rounds) - 1 for c in branched.chains) * repairing.image_tokens
    assert wrong_drafts([Group("a red circle", tuple(first), ((1.0,),))], 0.5, random.Random(0)) == []


def scored(*rewards: float, p_yes: float = 0.25, said: float = 0.0) -> Scored:
    n = len(rewards)
    return Scored(rewards, (said,) * n, (p_yes,) * n, tuple(float(r >= 0.99) for r in rewards))


def test_repairs_are_credited_by_what_they_improve():
    one, other, none = decisions_credit([scored(0.5, 1.0), scored(0.5, 0.5), scored(0.5)], 2, 1.0, 1.0)
    up = 0.25 / (0.25 + EPSILON)  # gains 0.5 and 0: mean and standard deviation 0.25
    assert one.draft == pytest.approx((0.0, up)) and other.draft == pytest.approx((0.0, -up)) and none.draft == (0.0,)
    assert one.reason == pytest.approx((up, 0.0)) and none.reason == (0.0,)  # the instruction by the repair it led to
    # No was said with P(No) = 0.75: of a wrong draft (p - 0) / p of the log score's slope, of a right one (p - 1) / p.
    assert one.word == pytest.approx((0.25 / 0.25, -0.75 / 0.25))


def test_marks_are_paid_by_the_log_score_of_their_truth_alone(repairing):
    yes, no = (next(i for i, is_yes in repairing.layout.marks.items() if is_yes == w) for w in (True, False))
    pixels = render(Scene("black", (SceneObject("circle", "pink", "small", 4, 8),)))
    listing = "small pink circle: red circle Yes, small blue star: nothing No"
    verdict = Verdict(False, "No.", 0.5, (1,), (-1.0,), listing, (5, yes, 6, no, 9), tuple(np.log([1, 0.8, 1, 0.5, 1])))
    chain = Chain("a red circle", (Round((1,), pixels, verdict, (-1.0,)),), 0, Settings())
    (marks,) = token_marks(repairing.layout, chain, world("shapes"))
    assert marks == [None, (True, False), None, None, None]  # of a star that is not there nobody can tell
    (credit,) = listed([Credit((0.0,), (0.0,), (0.0,))], [chain], [[marks]], 2.0)
    assert credit.lists == (pytest.approx((0.0, 2.0 * (0 - 0.8) / (1 - 0.8), 0.0, 0.0, 0.0)),)
    trajectory = [Trajectory(chain, scored(0.0), credit)]
    text = text_tokens(trajectory, "decisions")
    assert text.weights.tolist()[:5] == [0.0, 1.0, 0.0, 0.0, 0.0] and len(text.old) == 6
    assert len(image_tokens(trajectory, "decisions").old) == 1


def test_marks_are_held_to_the_claims_that_a_reward_tells(repairing):
    yes, no = (next(i for i, is_yes in repairing.layout.marks.items() if is_yes == w) for w in (True, False))
    blank = np.zeros((64, 64, 3), np.uint8)
    listing, logprobs = "a dog Yes, the dog is black No", tuple(np.log([1, 0.8, 1, 0.5]))
    verdict = Verdict(False, "No.", 0.5, (1,), (-1.0,), listing, (5, yes, 6, no), logprobs)
    chain = Chain("a black dog", (Round((1,), blank, verdict, (-1.0,)),), 0, Settings())
    its = world("shapes")  # which knows no dogs

    def marks(*claims):
        return token_marks(repairing.layout, chain, its, (Claimed(0.6, claims),))[0]

    assert token_marks(repairing.layout, chain, its)[0] == marks() == marks(("a cat", 1.0)) == [None] * 4
    told = marks(("A dog.", 1.0), ("the dog is  black", 0.25), ("it is night", 0.0))
    assert told == [None, (True, 1.0), None, (False, 0.25)]
    (credit,) = listed([Credit((0.0,), (0.0,), (0.0,))], [chain], [[told]], 2.0)
    # Yes with p = 0.8 of a claim that holds: (1 - p) / (1 - p); No with p(Yes) = 0.5 of one at 0.25: (p - r) / p
    assert credit.lists == (pytest.approx((0.0, 2.0, 0.0, 2.0 * (0.5 - 0.25) / 0.5)),)
    longer = replace(verdict, list_ids=(5, yes, 6, no, no), list_logprobs=(*logprobs, 0.0))  # a mark too many
    chain = replace(chain, rounds=(replace(chain.rounds[0], verdict=longer),))
    assert marks(("a dog", 1.0)) == [None] * 5


def test_drafts_that_differ_from_their_group_earn_more_of_what_they_earned():
    def chain(level: int) -> Chain:
        return Chain(
            "a ring", (Round((1,), np.full((4, 4, 3), level, np.uint8), Verdict(True, "Yes.", 1.0)),), 0, Settings()
        )

    chains = [chain(0), chain(0), chain(25), chain(200)]
    rewards = [one.rewards[0] for one in varied([scored(1.0)] * 3 + [scored(0.0)], chains, 0.3)]
    # Apart from the others: 0, 25/50 and 1, of three; 25/50 twice and 1; a wrong draft stays wrong.
    assert rewards == pytest.approx([1 + 0.3 * 0.5, 1 + 0.3 * 0.5, 1 + 0.3 * 2 / 3, 0.0])


def test_a_run_learns_from_drafts_lists_and_repairs(repairing_folder, tmp_path):
    recipe = RlRecipe(
        run=RunOptions(out=str(tmp_path / "run"), steps=2, warmup=1, log_every=1, trackers=[], precision="no"),
        model=str(repairing_folder),
        prompts_per_step=2,
        group=3,
        branches=3,
        variety=0.2,
        credit="decisions",
        judge_threshold=0.99,
        reason_weight=0.5,
        max_list_tokens=6,
        max_reason_tokens=6,
        lr=1e-3,
        eval_every=0,
        kl=0.01,
    )
    before = load(str(repairing_folder)).core.state_dict()
    rl(recipe)
    after = load(str(tmp_path / "run" / "model"))
    assert after.format == "repair"
    assert any(not torch.equal(before[name], value) for name, value in after.core.state_dict().items())
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"branch_rejected", "kl_text", "kl_image"} <= logged[-1].keys()


CLAIMS = """
def score(prompts, images, **columns):
    light = [image.resize((1, 1)).convert("L").getpixel((0, 0)) for image in images]
    return [{"a dog": float(level > 50), "it is black": 0.0} for level in light]
"""


def test_claims_of_a_users_reward_are_credited_where_they_are_listed(repairing_folder, tmp_path):
    (tmp_path / "mine.py").write_text(CLAIMS)
    (tmp_path / "prompts.txt").write_text("a black dog\na dog at night\n")
    recipe = RlRecipe(
        run=RunOptions(out=str(tmp_path / "run"), steps=1, trackers=[], precision="no"),
        model=str(repairing_folder),
        prompts=str(tmp_path / "prompts.txt"),
        rewards=[RewardRecipe(kind="python", path=f"{tmp_path / 'mine.py'}:score")],
        credit="decisions",
        judge_claims=True,
        eval_prompts=1,
    )
    parts = Parts(recipe)
    yes, no = (next(i for i, is_yes in parts.janus.layout.marks.items() if is_yes == w) for w in (True, False))
    said = Verdict(True, "Yes.", 0.5, (1,), (-1.0,), "a dog Yes, it is black No", (yes, no), (-0.5, -0.5))
    drawn = [np.full((64, 64, 3), level, np.uint8) for level in (0, 200)]
    chains = tuple(Chain("a black dog", (Round((1,), image, said, (-1.0,)),), 0, Settings()) for image in drawn)
    scores = parts.rewards.score([(chain.task, chain.rounds[0].pixels) for chain in chains])
    none, one = credited(parts, Group("a black dog", chains, tuple((score,) for score in scores)))
    assert none.scored.rewards == (0.0,) and one.scored.rewards == (0.5,)
    assert none.scored.truth == one.scored.truth == (0.0,)  # neither draft has all, and both were told Yes
    assert none.credit.word[0] < 0 and one.credit.word == none.credit.word
    assert none.credit.lists[0][0] < 0 < one.credit.lists[0][0]  # whether there is a dog
    assert none.credit.lists[0][1] > 0 and none.credit.lists[0][1] == one.credit.lists[0][1]  # it is black in neither


def test_what_is_for_the_format_repair_is_refused_for_another(tiny_folder, tmp_path):
    for wrong in ({"branches": 3}, {"credit": "decisions"}):
        with pytest.raises(UserError, match="format repair"):
            Parts(RlRecipe(run=RunOptions(out=str(tmp_path)), model=str(tiny_folder), **wrong))
