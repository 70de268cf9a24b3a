"""Reinforcement learning: log-probs agree with the engine's, rewards that fail leave, a killed run resumes."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from by_hand import Uneven, figures_of, first_minibatch, groups_of
from janus_r1.chain import Settings, Task
from janus_r1.data.tasks import check_families, prompt_stream
from janus_r1.errors import UserError
from janus_r1.introspect import introspect
from janus_r1.rewards.score import Abstained, Claimed, Ensemble, claims_of
from janus_r1.train.checkpoint import newest_checkpoint
from janus_r1.train.credit import Credit, Scored, Trajectory, image_tokens, text_tokens
from janus_r1.train.log import RunLog
from janus_r1.train.loop import RunOptions
from janus_r1.train.policy import Policy, rescored, rows_of
from janus_r1.train.prepare import prepare
from janus_r1.train.rl import HEADLINE, Parts, draw_rollout, rl, rollouts_alike
from janus_r1.train.rl_recipe import RlRecipe
from janus_r1.train.rollout import abstentions, roll_out, told_figures
from killing import kill_after_first_checkpoint, run_code

PROMPTS = ["a red circle", "two small green stars", "a blue ring left of a pink heart"]
SAMPLED = {"rounds": 3, "guidance": 2.0, "text_temperature": 1.0, "text_top_k": 0, "max_reason_tokens": 9, "seed": 1}


def chains_of(tiny, **changes):
    """Enough of them that some are redrawn, though the random model changes with the world's language."""
    return introspect(tiny, [Task(p) for p in PROMPTS * 4], Settings(**(SAMPLED | changes)))


# --------------------------------------------------------------------------------------- log-probs


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"history": "last"},
        {"guidance": 1.0},
        {"early_stop": False},
        {"top_k": 20, "text_top_k": 12},
        {"temperature": 0.7},
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_policy_recomputes_what_the_engine_reported(tiny, changes):
    """The gap that reinforcement learning lives on: below 1e-4 nats a token in float32."""
    chains = chains_of(tiny, **changes)
    assert max(len(c.rounds) for c in chains) > 1, "no redraft: the test would show little"
    image, text = Policy(tiny, chains[0].settings, chunk=50)(rows_of(tiny.layout, chains))
    expected_image = torch.tensor([p for c in chains for r in c.rounds for p in r.logprobs])
    expected_text = torch.tensor([p for c in chains for r in c.rounds for p in r.verdict.logprobs])
    assert torch.allclose(image, expected_image, atol=1e-4)
    assert torch.allclose(text, expected_text, atol=1e-4)


def test_the_other_policies_by_their_formulas(tiny):
    chains = chains_of(tiny)
    settings, rows = chains[0].settings, rows_of(tiny.layout, chains)
    guided, tempered, conditional = (
        Policy(tiny, settings, name)(rows)[0] for name in ("guided", "tempered", "conditional")
    )
    plain = Policy(tiny, dataclasses.replace(settings, guidance=1.0))
    unguided = dataclasses.replace(rows, unconditional=None)
    assert torch.allclose(conditional, plain(unguided)[0], atol=1e-5)
    colder = Policy(tiny, dataclasses.replace(settings, temperature=settings.guidance), "guided")
    assert torch.allclose(tempered, colder(rows)[0], atol=1e-5)
    assert not torch.allclose(guided, tempered, atol=1e-2)
    assert not torch.allclose(guided, conditional, atol=1e-2)


def test_rescored_chains_carry_the_policys_own_log_probs(tiny):
    chains = chains_of(tiny)
    policy = Policy(tiny, chains[0].settings, "conditional")
    renewed = rescored(policy, chains, at_once=2)
    again = policy(rows_of(tiny.layout, renewed))[0]
    assert torch.allclose(again, torch.tensor([p for c in renewed for r in c.rounds for p in r.logprobs]), atol=1e-4)
    assert [c.rounds[0].ids for c in renewed] == [c.rounds[0].ids for c in chains]


def test_flat_arrays_follow_the_tokens(tiny):
    chain = next(c for c in chains_of(tiny) if len(c.rounds) > 1)
    rounds = len(chain.rounds)
    credit = Credit(tuple(map(float, range(rounds))), (10.0,) * rounds, (20.0,) * rounds)
    scored = Scored((0.0,) * rounds, (0.0,) * rounds, (0.5,) * rounds, (0.0,) * rounds)
    held = [Trajectory(chain, scored, credit)]
    image, text = image_tokens(held, "direct"), text_tokens(held, "direct")
    assert image.advantages.tolist() == [float(i) for i in range(rounds) for _ in range(tiny.image_tokens)]
    assert image.weights.sum().item() == pytest.approx(rounds)
    words = [i == 0 for r in chain.rounds for i in range(len(r.verdict.ids))]
    assert [a == 10.0 for a in text.advantages.tolist()] == words
    everything = image_tokens(held, "chain").weights.sum() + text_tokens(held, "chain").weights.sum()
    assert everything.item() == pytest.approx(1.0)


def test_gradients_reach_the_language_model_and_both_heads_but_not_the_encoders(tiny):
    prepare(tiny, train_vision=False, compile_model=False)
    chains = chains_of(tiny)
    policy = Policy(tiny, chains[0].settings)
    image, text = policy(rows_of(tiny.layout, chains))
    (image.sum() + text.sum()).backward()
    reached = {name for name, p in tiny.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    for part in ("language_model.layers.0", "generation_head", "generation_aligner", "aligner.", "lm_head"):
        assert any(part in name for name in reached), part
    assert not any("vision_model" in name or "vqmodel" in name for name in reached)


# ----------------------------------------------------------------------------------------- rewards


class Says:
    """A reward that answers from a list, in turn."""

    name = "says"

    def __init__(self, answers) -> None:
        self.answers, self.asked = answers, 0

    def score(self, items):
        self.asked += len(items)
        return [self.answers[i % len(self.answers)] for i in range(self.asked - len(items), self.asked)]


ONE_ROUND = Settings(rounds=1, guidance=1.0, text_temperature=1.0, max_reason_tokens=2)


def test_a_chain_whose_reward_fails_leaves_its_group_and_is_counted(tiny):
    reward = Says([0.5, Abstained("HTTP 500: overloaded"), 0.25])
    rollout = roll_out(tiny, [Task("a red circle"), Task("a blue star")], 3, ONE_ROUND, reward)
    assert [g.rewards for g in rollout.groups] == [((0.5,), (0.25,)), ((0.5,), (0.25,))]
    assert rollout.abstained == {"HTTP 500": 2} and rollout.lost_groups == 0
    alone = roll_out(tiny, [Task("a red circle")], 2, ONE_ROUND, Says([Abstained("HTTP 500"), 1.0]))
    assert not alone.groups and alone.lost_groups == 1


def test_abstentions_are_logged_by_cause_and_shown_where_they_are_asked_for(tmp_path, capsys):
    assert abstentions(Counter()) == {}
    causes = abstentions(Counter({"HTTP 500": 2, "no answer": 1}))
    assert causes == {"abstained: HTTP 500": 2.0, "abstained: no answer": 1.0}
    log = RunLog(tmp_path, 0, 2, 1, 0.0, headline=HEADLINE)
    log.step(0, {"abstained": 3.0, "unasked": 1.0, **causes})
    log.step(1, {"abstained": 0.0})
    log.close()
    first, second = capsys.readouterr().out.splitlines()
    assert "abstained: HTTP 500 2" in first and "unasked" not in first
    assert "abstained: HTTP 500 0" in second
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["abstained: no answer"] == 1 and rows[1] == {"step": 1, "abstained": 0.0}


def test_the_log_tells_of_claims_and_families(tiny):
    half, whole = Claimed(0.4, [("a ring", 1.0), ("red", 0.2)]), Claimed(0.9, [("a star", 0.8), ("blue", 1.0)])
    tasks = [Task("a red ring", columns={"tag": "colors"}), Task("a blue star", columns={"tag": "position"}), Task("x")]
    rollout = roll_out(tiny, tasks, 2, ONE_ROUND, Says([half, half, whole, half, 0.7, Abstained("none")]), fewest=1)
    assert [group.family for group in rollout.groups] == ["colors", "position", ""]
    assert told_figures(rollout.groups) == pytest.approx(
        {
            "claims_first": 0.625,
            "claims_final": 0.625,
            "reward/colors": 0.4,
            "final_right/colors": 0.0,
            "claims_final/colors": 0.5,
            "reward/position": 0.65,
            "final_right/position": 0.5,
            "claims_final/position": 0.75,
        }
    )
    merged = Ensemble([(Says([half]), 1.0), (Named("other"), 3.0)]).score([(tasks[0], None)])
    assert merged == [pytest.approx(0.25)] and claims_of(merged[0]) == half.claims


class Named(Says):
    def __init__(self, name) -> None:
        super().__init__([0.2])
        self.name = name


def test_rollouts_do_not_depend_on_how_they_are_batched(tiny):
    settings = Settings(**SAMPLED)
    together = roll_out(tiny, [Task(p) for p in PROMPTS], 2, settings, Says([0.5]))
    apart = roll_out(tiny, [Task(p) for p in PROMPTS], 2, settings, Says([0.5]), max_batch=2)
    for one, other in zip(together.groups, apart.groups, strict=True):
        assert [[r.ids for r in c.rounds] for c in one.chains] == [[r.ids for r in c.rounds] for c in other.chains]


def small(folder: Path, out: Path, **changes) -> RlRecipe:
    run = RunOptions(out=str(out), steps=6, save_every=2, preview_every=100, log_every=1, threads=1, precision="no")
    values = {"prompts_per_step": 2, "group": 3, "rounds": 2, "max_reason_tokens": 6, "micro_batch": 4}
    return RlRecipe(**({"run": run, "model": str(folder), "lr": 1e-4, "eval_every": 0} | values | changes))


def test_a_run_without_rewards_stops_and_says_why(tiny_folder, tmp_path):
    parts = Parts(small(tiny_folder, tmp_path))
    parts.rewards = Says([Abstained("HTTP 503: down")])
    with pytest.raises(UserError, match="HTTP 503"):
        draw_rollout(parts, 0)


def test_a_run_without_spread_stops_and_says_why(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("janus_r1.train.rl.PATIENCE", 2)
    parts = Parts(small(tiny_folder, tmp_path))
    parts.rewards = Says([0.25])
    assert rollouts_alike(groups_of(parts), 0) == 1
    with pytest.raises(UserError, match=r"same reward \(0\.25\)"):
        rollouts_alike(groups_of(parts, 1), 1)
    parts.rewards = Uneven()
    assert rollouts_alike(groups_of(parts), 1) == 0


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"group": 1}, "group"),
        ({"text_temperature": 0.0}, "temperature"),
        ({"minibatches": 3}, "minibatches"),
        ({"passes": 4}, "save_every"),
        ({"prompts": "/nowhere.txt"}, "nowhere"),
        ({"reason_weight": 1.0, "prompts": "mine.txt"}, "of the world"),
        ({"reason_weight": 1.0, "task": "both", "edits": "mine.jsonl"}, "of the world"),
    ],
)
def test_recipes_that_cannot_be_meant_are_refused(tiny_folder, tmp_path, changes, complaint):
    with pytest.raises(UserError, match=complaint):
        Parts(small(tiny_folder, tmp_path, **changes))


# ---------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("credit", ["chain", "segment", "direct"])
def test_a_small_step_makes_credited_tokens_likelier(tiny_folder, tmp_path, credit):
    stage = Parts(small(tiny_folder, tmp_path, credit=credit, group=6, micro_batch=100))
    stage.rewards = Uneven()
    (batch,), loss_of = first_minibatch(stage)
    rows = rows_of(stage.janus.layout, [t.chain for t in batch])
    flats = image_tokens(batch, credit), text_tokens(batch, credit)
    loss, _ = loss_of(stage.policy, batch)
    loss.backward()
    with torch.no_grad():
        for parameter in stage.janus.parameters():
            if parameter.grad is not None:
                parameter -= 1e-6 * parameter.grad
    for now, flat in zip(stage.policy(rows), flats, strict=True):
        assert (flat.weights * flat.advantages * (now - flat.old)).sum() > 0


def test_reasons_are_paid_for_being_true(tiny_folder, tmp_path, monkeypatch):
    """Here those are true that end oddly: the random model rejects too little to tell by true ones."""

    def odd(chain, world_name=""):
        return tuple(float(r.verdict.ids[-1] % 2) for r in chain.rounds)

    monkeypatch.setattr("janus_r1.train.rl.true_reasons", odd)
    stage = Parts(small(tiny_folder, tmp_path, group=8, micro_batch=100, draw_weight=0.0, reason_weight=1.0))
    stage.rewards = Uneven()
    (batch,), _ = first_minibatch(stage)
    pairs = [(a, truth) for t in batch for a, truth in zip(t.credit.reason, odd(t.chain), strict=True)]
    assert {truth for _, truth in pairs} == {0.0, 1.0}
    assert all(a >= 0 if truth else a <= 0 for a, truth in pairs) and any(a for a, _ in pairs)
    assert 0 < figures_of(stage)["reasons_true"] < 1


def test_a_batch_without_chains_joins_the_others_and_adds_nothing(tiny_folder, tmp_path):
    """What a process does whose rewards failed more often, where forward passes are collective."""
    stage = Parts(small(tiny_folder, tmp_path, kl=0.1, micro_batch=100))
    stage.rewards = Uneven()
    (batch,), loss_of = first_minibatch(stage)
    _, full = loss_of(stage.policy, batch)
    loss, figures = loss_of(stage.policy, [])
    loss.backward()
    assert loss.item() == 0 and not any(figures.values())
    assert figures.keys() == full.keys()
    assert not any(p.grad.abs().sum() for p in stage.policy.parameters() if p.grad is not None)


OTHERWISE = {"minibatches": 2, "kl": 0.05, "policy": "conditional", "credit": "chain", "keep_candidates": True}


@pytest.mark.parametrize("changes", [{}, OTHERWISE])
def test_killed_and_resumed_equals_uninterrupted(tiny_folder, tmp_path, changes):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    changes = changes | {"eval_every": 3, "eval_prompts": 2}
    run_code(code(small(tiny_folder, whole, **changes)))
    kill_after_first_checkpoint(code(small(tiny_folder, broken, **changes)), broken)
    assert newest_checkpoint(broken).name < "step_0000006", "killed too late to show anything"
    run_code(code(small(tiny_folder, broken, **changes)), "resume")
    one, other = (load_file(newest_checkpoint(run) / "model.safetensors") for run in (whole, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert figures(whole) == figures(broken)
    assert (whole / "rollouts.jsonl").read_text() == (broken / "rollouts.jsonl").read_text()
    assert kept(whole) == kept(broken) and bool(kept(whole)) == ("keep_candidates" in changes)


def kept(out: Path) -> dict[str, bytes]:
    """All files of the candidates, by name."""
    folder = out / "candidates"
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def code(recipe: RlRecipe) -> str:
    imports = "import sys\nfrom janus_r1.train.rl_recipe import *\nfrom janus_r1.train.rl import rl\n"
    return f"{imports}rl({recipe!r}, resume='resume' in sys.argv)\n"


def figures(out: Path) -> list[dict]:
    """Logged figures without times; NaN (nothing to fix) compares as a word."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: str(v) for k, v in row.items() if "second" not in k} for row in rows]


def test_rl_writes_a_model_and_what_to_read(tiny_folder, tmp_path):
    out = rl(small(tiny_folder, tmp_path, eval_every=3, eval_prompts=2))
    assert (out / "config.json").exists() and (tmp_path / "best" / "config.json").exists()
    record = json.loads((tmp_path / "rollouts.jsonl").read_text().splitlines()[0])
    assert record["chains"][0][0].keys() == {"text", "p_yes", "reward"}
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert row["gap_image"] < 1e-4 and row["gap_text"] < 1e-4


# ----------------------------------------------------------------------------------------- prompts


def texts(tasks) -> list[str]:
    return [task.prompt for task in tasks]


def test_prompts_from_files(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"prompt {i}"}) + "\n" for i in range(7)))
    stream = prompt_stream(str(file), held_out=2)
    assert texts(stream.held_out) == ["prompt 0", "prompt 1"]
    epoch = [p for step in range(5) for p in texts(stream.step(1, 3, step))]
    assert sorted(epoch) == [f"prompt {i}" for i in range(2, 7)]
    assert texts(stream.step(5, 3, 0)) == epoch
    file.write_text('{"score": 1}\n')
    with pytest.raises(UserError, match="line 1"):
        prompt_stream(str(file), held_out=0)


def test_world_prompts_of_steps_differ_and_are_not_those_evaluated_on():
    stream = prompt_stream("world", held_out=50)
    first, second, again = (texts(stream.step(8, 0, step)) for step in (0, 1, 1))
    assert first != second == again and len(stream.held_out) == 50
    assert not set(texts(stream.held_out)) <= set(first)


def test_world_prompts_of_families_come_as_often_as_they_are_named():
    named = ["dense", "dense", "dense", "colors"]
    families = [task.family for task in prompt_stream("world", 0, families=named).step(200, 0, 0)]
    assert set(families) == {"dense", "colors"} and 120 <= families.count("dense") <= 180
    with pytest.raises(UserError, match="prompt_families: the world shapes has no family 'desne'; did you mean dense"):
        check_families("shapes", ["desne"], "draw")
