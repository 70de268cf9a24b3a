"""What trains on edits: pretraining, SFT, rollouts and reinforcement learning."""

from __future__ import annotations

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

from by_hand import Uneven, first_minibatch
from janus_r1.chain import Settings, Task
from janus_r1.data.edit_plan import COMPARED
from janus_r1.data.edit_rows import OwnEditsRecipe
from janus_r1.data.seeing import SeeingRecipe, SeeingRows
from janus_r1.data.tasks import tasks
from janus_r1.errors import UserError
from janus_r1.segments import Drawn, Seen, Text
from janus_r1.train import sft
from janus_r1.train.loop import RunOptions
from janus_r1.train.objective import targets
from janus_r1.train.rl import Parts
from janus_r1.train.rl_recipe import RlRecipe
from janus_r1.train.rollout import chain_figures, roll_out
from janus_r1.train.sft import SftRecipe, micro_batches, rows_loss, step_rows
from janus_r1.worlds.shapes.edits import KINDS
from janus_r1.worlds.shapes.language import parse_instruction
from janus_r1.worlds.shapes.training.model import tokenizer_corpus
from janus_r1.worlds.shapes.training.pretrain import PretrainRecipe, PretrainStage

# ------------------------------------------------------------------------------------------ stages


def options(out, **changes) -> RunOptions:
    return RunOptions(**({"out": str(out), "steps": 2, "save_every": 2, "threads": 1, "precision": "no"} | changes))


def test_pretraining_adds_edit_rows_and_leaves_the_others_alone(tiny_folder, tmp_path):
    recipe = PretrainRecipe(run=options(tmp_path), model=str(tiny_folder), draw_rows=2, see_rows=1)
    (plain,) = PretrainStage(recipe).batches(0)
    stage = PretrainStage(dataclasses.replace(recipe, edit_rows=3))
    (mixed,) = stage.batches(0)
    assert [[len(s) for s in row] for row in mixed[:3]] == [[len(s) for s in row] for row in plain]
    assert len(mixed) == 6 and all(sum(isinstance(s, Drawn) for s in row) == 2 for row in mixed[3:])
    loss, _ = stage.loss(stage.module, mixed)
    assert torch.isfinite(loss)


def test_the_corpus_of_a_tokenizer_knows_edits_only_when_asked(words):
    plain, more = tokenizer_corpus(20), tokenizer_corpus(20, edits=True)
    assert more[: len(plain)] == plain
    added = more[len(plain) :]
    assert " Please generate an image.\n\n" in added
    assert any(text.startswith("No, ") for text in added) and any(parse_instruction(text) for text in added)


def test_sft_on_edits_alone_needs_no_candidates(tiny_folder, tmp_path):
    recipe = SftRecipe(run=options(tmp_path), model=str(tiny_folder), candidates="/nowhere", rows=8)
    shares = {"edit": 0.5, "judge_edit": 0.25, "redraw_edit": 0.25}
    assert len(step_rows(sft.Parts(dataclasses.replace(recipe, shares=shares)), 1).verdicts) == 2
    shares |= {"judge_edit": 0.125, "compare_edit": 0.125}
    stage = sft.Parts(dataclasses.replace(recipe, shares=shares))
    batch = step_rows(stage, 1)
    images, verdicts, _ = batch
    assert len(images) == 6 and len(verdicts) == 2
    assert COMPARED in {len(targets([row]).text_ids) for row in verdicts}
    assert targets([*images]).image_ids.shape == (6 * stage.janus.image_tokens,)
    loss, figures = rows_loss(stage.module, batch, parts=1, text_weight=1.0)
    assert torch.isfinite(loss) and set(figures) == {"image_loss", "verdict_loss"}


def test_sft_rehearses_seeing_beside_the_rest(tiny_folder, tmp_path):
    recipe = SftRecipe(run=options(tmp_path), model=str(tiny_folder), rows=8, shares={"edit": 0.5, "judge_edit": 0.5})
    assert not step_rows(sft.Parts(recipe), 0).seen
    stage = sft.Parts(dataclasses.replace(recipe, shares=recipe.shares | {"see": 0.75}))
    batches = micro_batches(step_rows(stage, 0), 7)
    assert [len(rows) for rows in batches[0]] == [2, 2, 3] and len(batches) == 2
    assert [sum(len(rows) for rows in kind) for kind in zip(*batches, strict=True)] == [4, 4, 6]
    figures = [rows_loss(stage.module, batch, parts=2, text_weight=1.0)[1] for batch in batches]
    assert all(f["seeing_loss"] > 0 for f in figures)
    other = [s.pixels.tobytes() for row in step_rows(stage, 1).seen for s in row if isinstance(s, Seen)]
    assert other != [s.pixels.tobytes() for b in batches for row in b.seen for s in row if isinstance(s, Seen)]


def test_rows_of_seeing_are_of_the_kinds_asked_for(tiny):
    def answers(**shares) -> list[list[str]]:
        rows = SeeingRows(tiny.layout, SeeingRecipe(**shares)).rows(12, random.Random(0))
        return [[tiny.tokenizer.decode(s.ids) for s in row if isinstance(s, Text) and s.learn] for row in rows]

    assert all(len(row) == 7 for row in answers(judge=0.0, checklist=1.0))
    verdicts = answers(judge=1.0)
    assert {row[0].split(",")[0] for row in verdicts} == {"Yes", "No"}
    assert all(" on a " in row[0] for row in answers(judge=0.0, checklist=0.0, describe=1.0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_own_edits_are_drawn_with_the_weights_of_the_step(tmp_path, tiny_folder, dtype):
    recipe = SftRecipe(run=options(tmp_path), model=str(tiny_folder), candidates="/nowhere", rows=4)
    own = OwnEditsRecipe(drafts=1, dtype=dtype)
    stage = sft.Parts(dataclasses.replace(recipe, shares={"redraw_edit": 1.0}, own_edits=own))
    before, again = (drawn(step_rows(stage, 0)) for _ in range(2))
    with torch.no_grad():
        for weight in stage.janus.core.model.generation_head.parameters():
            weight.mul_(-1.0)
    after = drawn(step_rows(stage, 0))
    assert before == again
    for (source, wrong, *_), (same, other, *_) in zip(before, after, strict=True):
        assert source == same and wrong != other, "the rejected draft is another one"


def drawn(rows) -> list[list[tuple[int, ...]]]:
    return [[s.ids for s in row if isinstance(s, Drawn)] for row in rows.images]


def test_own_edits_need_a_verifier(tmp_path):
    own = OwnEditsRecipe(drafts=1)
    changes = {"shares": {"edit": 1.0}, "edits": "pairs.jsonl", "own_edits": own}
    with pytest.raises(UserError, match="own_edits"):
        sft.Parts(SftRecipe(run=options(tmp_path), **changes))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"shares": {"drawn": 1.0}}, "shares.drawn: there is no such share; did you mean draw"),
        ({"shares": {"draw": -0.5}}, "shares"),
        ({"shares": {"draw": float("nan")}}, "shares"),
        ({"shares": {"draw": 0.0}}, "nothing to learn"),
        ({"shares": {"edit": 0.5, "judge_edit": 0.5}, "edits": "pairs.jsonl"}, "right results only"),
    ],
)
def test_shares_that_cannot_be_meant_are_refused(tmp_path, changes, complaint):
    with pytest.raises(UserError, match=complaint):
        sft.Parts(SftRecipe(run=options(tmp_path), **changes))


@pytest.mark.parametrize(("stage", "recipe"), [(sft.Parts, SftRecipe), (Parts, RlRecipe)])
def test_unknown_families_of_edits_are_refused(tmp_path, stage, recipe):
    with pytest.raises(UserError, match=r"edit_families: .*no family 'recolor'; did you mean recolour"):
        stage(recipe(run=options(tmp_path), edit_families=["recolor"]))


# ---------------------------------------------------------------------------------- reinforcement


def test_tasks_of_a_step_follow_from_seed_and_step_and_mix():
    quarter = tasks("both", "world", "world", held_out=8, edit_share=0.75).step(8, 0, 3)
    assert sum(task.source is not None for task in quarter) == 6
    both = tasks("both", "world", "world", held_out=5)
    kinds = [task.source is not None for task in both.step(6, 0, 3)]
    assert sum(kinds) == 3 and kinds != sorted(kinds) and len(both.held_out) == 5
    edits = tasks("edit", "world", "world", held_out=3)
    step = [[(t.prompt, t.source.tobytes()) for t in edits.step(4, 0, i)] for i in (0, 0, 1)]
    assert step[0] == step[1] != step[2]


def test_tasks_to_train_on_are_of_the_families_named_and_those_to_evaluate_on_of_all():
    source = tasks("edit", "world", "world", held_out=60, edit_families=["move"])
    step, held_out = (
        {parse_instruction(task.prompt)[0].kind for task in found} for found in (source.step(20, 0, 0), source.held_out)
    )
    assert step == {"move"} and held_out == set(KINDS)


def test_tasks_from_a_file_need_no_results(tmp_path):
    Image.new("RGB", (80, 60), "red").save(tmp_path / "a.png")
    lines = [{"instruction": f"make it {i}", "source": "a.png"} for i in range(4)]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = tasks("edit", "world", str(tmp_path / "few.jsonl"), held_out=1)
    assert [task.prompt for task in source.held_out] == ["make it 0"]
    seen = {task.prompt for step in range(8) for task in source.step(3, 0, step)}
    assert seen == {"make it 1", "make it 2", "make it 3"}
    with pytest.raises(UserError, match="eval_prompts"):
        tasks("edit", "world", str(tmp_path / "few.jsonl"), held_out=4)


def test_rollouts_show_the_reward_the_source_of_an_edit_only(tiny):
    wide = np.random.default_rng(0).integers(0, 255, (40, 80, 3), dtype=np.uint8)
    reward, settings = Uneven(), Settings(rounds=1, guidance=1.5, text_temperature=1.0, max_reason_tokens=2)
    rollout = roll_out(tiny, [Task("a red circle"), Task("add a ring", wide)], 2, settings, reward)
    drawn, edited = rollout.groups
    assert edited.prompt == "add a ring" and [c.source is None for c in drawn.chains] == [True] * 2
    assert [task.source is None for task, _ in reward.items] == [True, True, False, False]
    assert reward.items[2][0].source.shape == (64, 64, 3)
    assert edited.chains[0].rounds[0].ids != edited.chains[1].rounds[0].ids


def test_reinforcement_on_both_tasks_agrees_with_the_engine(tiny_folder, tmp_path):
    values = {"prompts_per_step": 2, "group": 3, "rounds": 2, "max_reason_tokens": 6, "eval_every": 0}
    stage = Parts(RlRecipe(run=options(tmp_path), model=str(tiny_folder), task="both", eval_prompts=2, **values))
    stage.rewards = Uneven()
    batches, loss_of = first_minibatch(stage)
    chains = [t.chain for batch in batches for t in batch]
    assert {chain.source is None for chain in chains} == {True, False}
    figures = [loss_of(stage.policy, batch)[1] for batch in batches]
    assert sum(f["gap_image"] for f in figures) < 1e-4 and sum(f["gap_text"] for f in figures) < 1e-4


def test_what_counts_as_right_follows_the_threshold():
    from janus_r1.train.credit import Scored

    copied = Scored((0.67,), (1.0,), (0.9,), (0.0,))
    assert chain_figures([copied], 3)["final_right"] == 1
    strict = chain_figures([copied], 3, right=0.99)
    assert strict["final_right"] == 0 and strict["verdicts_right"] == 0
