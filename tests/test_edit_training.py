"""What trains on edits: pretraining, SFT, rollouts and reinforcement learning."""

from __future__ import annotations

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

from janus_r1.chain import Settings
from janus_r1.data.edit_plan import COMPARED
from janus_r1.data.own_edits import OwnEditsRecipe
from janus_r1.data.seeing import CHECKED, Seeing, SeeingRecipe
from janus_r1.errors import UserError
from janus_r1.layout import Drawn, Text
from janus_r1.train.loop import RunOptions
from janus_r1.train.objective import targets
from janus_r1.train.rl.edit_prompts import EditTask, tasks
from janus_r1.train.rl.figures import chain_figures
from janus_r1.train.rl.recipe import RlRecipe
from janus_r1.train.rl.rollout import roll_out
from janus_r1.train.rl.stage import RlStage
from janus_r1.train.sft import SftRecipe, SftStage
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
    loss, _ = stage.loss(stage.module, mixed, 0)
    assert torch.isfinite(loss)


def test_the_corpus_of_a_tokenizer_knows_edits_only_when_asked(words):
    plain, more = tokenizer_corpus(20), tokenizer_corpus(20, edits=True)
    assert more[: len(plain)] == plain
    added = more[len(plain) :]
    assert " Please generate an image.\n\n" in added
    assert any(text.startswith("No, ") for text in added) and any(parse_instruction(text) for text in added)


def test_sft_on_edits_alone_needs_no_candidates(tiny_folder, tmp_path):
    recipe = SftRecipe(run=options(tmp_path), model=str(tiny_folder), candidates="/nowhere", rows=8)
    recipe = dataclasses.replace(recipe, mix=[0.0, 0.0, 0.0, 1.0], edit_mix=[0.5, 0.25, 0.25])
    assert len(SftStage(recipe).batches(1)[0][1]) == 2
    stage = SftStage(dataclasses.replace(recipe, edit_mix=[0.5, 0.125, 0.25, 0.125]))
    (batch,) = stage.batches(1)
    images, verdicts, _ = batch
    assert len(images) == 6 and len(verdicts) == 2
    assert COMPARED in {len(targets([row]).text_ids) for row in verdicts}
    assert targets([*images]).image_ids.shape == (6 * stage.janus.image_tokens,)
    loss, figures = stage.loss(stage.module, batch, 1)
    assert torch.isfinite(loss) and set(figures) == {"image_loss", "verdict_loss"}


def test_sft_rehearses_seeing_beside_the_rest(tiny_folder, tmp_path):
    recipe = SftRecipe(run=options(tmp_path), model=str(tiny_folder), rows=8, mix=[0, 0, 0, 1], edit_mix=[0.5, 0.5, 0])
    (plain,) = SftStage(recipe).batches(0)
    assert not plain.seen
    stage = SftStage(dataclasses.replace(recipe, mix=[0, 0, 0, 1, 0.75], micro_batch=7))
    batches = stage.batches(0)
    assert [len(rows) for rows in batches[0]] == [2, 2, 3] and len(batches) == 2
    assert [sum(len(rows) for rows in kind) for kind in zip(*batches, strict=True)] == [4, 4, 6]
    figures = [stage.loss(stage.module, batch, 0)[1] for batch in batches]
    assert all(f["seeing_loss"] > 0 for f in figures)
    assert stage.batches(1)[0].seen != batches[0].seen, "every step sees fresh scenes"


def test_rows_of_seeing_are_of_the_kinds_asked_for(tiny):
    def answers(**shares) -> list[list[str]]:
        rows = Seeing(tiny.layout, SeeingRecipe(**shares)).rows(12, random.Random(0))
        return [[tiny.tokenizer.decode(s.ids) for s in row if isinstance(s, Text) and s.learn] for row in rows]

    assert all(len(row) == CHECKED for row in answers(judge=0.0, checklist=1.0))
    verdicts = answers(judge=1.0)
    assert {row[0].split(",")[0] for row in verdicts} == {"Yes", "No"}
    assert all(" on a " in row[0] for row in answers(judge=0.0, checklist=0.0, describe=1.0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_own_edits_are_drawn_with_the_weights_of_the_step(tmp_path, tiny_folder, dtype):
    recipe = SftRecipe(run=options(tmp_path), model=str(tiny_folder), candidates="/nowhere", rows=4)
    own = OwnEditsRecipe(drafts=1, dtype=dtype)
    stage = SftStage(dataclasses.replace(recipe, mix=[0, 0, 0, 1], edit_mix=[0, 0, 1], own_edits=own))
    before, again = (drawn(stage.batches(0)) for _ in range(2))
    with torch.no_grad():
        for weight in stage.janus.core.model.generation_head.parameters():
            weight.mul_(-1.0)
    after = drawn(stage.batches(0))
    assert before == again
    for (source, wrong, *_), (same, other, *_) in zip(before, after, strict=True):
        assert source == same and wrong != other, "the rejected draft is another one"


def drawn(batches) -> list[list[tuple[int, ...]]]:
    return [[s.ids for s in row if isinstance(s, Drawn)] for batch in batches for row in batch.images]


def test_own_edits_need_a_verifier(tmp_path):
    own = OwnEditsRecipe(drafts=1)
    changes = {"mix": [0, 0, 0, 1], "edit_mix": [1, 0, 0], "edits": "pairs.jsonl", "own_edits": own}
    with pytest.raises(UserError, match="own_edits"):
        SftStage(SftRecipe(run=options(tmp_path), **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"mix": [1.0, 1.0]},
        {"mix": [0.2] * 6},
        {"mix": [0.0] * 4},
        {"edit_mix": [1.0]},
        {"mix": [0, 0, 0, 1], "edits": "pairs.jsonl"},
    ],
    ids=str,
)
def test_shares_that_cannot_be_meant_are_refused(tmp_path, changes):
    with pytest.raises(UserError, match="mix"):
        SftStage(SftRecipe(run=options(tmp_path), **changes))


@pytest.mark.parametrize(("stage", "recipe"), [(SftStage, SftRecipe), (RlStage, RlRecipe)])
def test_no_families_of_edits_are_refused(tmp_path, stage, recipe):
    with pytest.raises(UserError, match="edit_families is empty"):
        stage(recipe(run=options(tmp_path), edit_families=[]))


# ---------------------------------------------------------------------------------- reinforcement


def test_tasks_of_a_step_follow_from_seed_and_step_and_mix():
    quarter = tasks("both", "shapes", "shapes", held_out=8, edit_share=0.75).step(8, 0, 3)
    assert sum(isinstance(task, EditTask) for task in quarter) == 6
    both = tasks("both", "shapes", "shapes", held_out=5)
    kinds = [isinstance(task, EditTask) for task in both.step(6, 0, 3)]
    assert sum(kinds) == 3 and kinds != sorted(kinds) and len(both.held_out) == 5
    edits = tasks("edit", "shapes", "shapes", held_out=3)
    step = [[(t.instruction, t.source.tobytes()) for t in edits.step(4, 0, i)] for i in (0, 0, 1)]
    assert step[0] == step[1] != step[2]


def test_tasks_to_train_on_are_of_the_families_named_and_those_to_evaluate_on_of_all():
    source = tasks("edit", "shapes", "shapes", held_out=60, families=["move"])
    step, held_out = (
        {parse_instruction(task.instruction)[0].kind for task in found}
        for found in (source.step(20, 0, 0), source.held_out)
    )
    assert step == {"move"} and held_out == set(KINDS)


def test_tasks_from_a_file_need_no_results(tmp_path):
    Image.new("RGB", (80, 60), "red").save(tmp_path / "a.png")
    lines = [{"instruction": f"make it {i}", "source": "a.png"} for i in range(4)]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = tasks("edit", "shapes", str(tmp_path / "few.jsonl"), held_out=1)
    assert [task.instruction for task in source.held_out] == ["make it 0"]
    seen = {task.instruction for step in range(8) for task in source.step(3, 0, step)}
    assert seen == {"make it 1", "make it 2", "make it 3"}
    with pytest.raises(UserError, match="eval_prompts"):
        tasks("edit", "shapes", str(tmp_path / "few.jsonl"), held_out=4)


class Uneven:
    """A reward with spread that follows from the picture; remembers what it was shown."""

    name = "uneven"

    def __init__(self) -> None:
        self.items = []

    def score(self, items):
        self.items += items
        return [int(item.image.astype(int).sum()) % 100 / 99 for item in items]


def test_rollouts_show_the_reward_the_source_of_an_edit_only(tiny):
    wide = np.random.default_rng(0).integers(0, 255, (40, 80, 3), dtype=np.uint8)
    reward, settings = Uneven(), Settings(rounds=1, guidance=1.5, text_temperature=1.0, max_reason_tokens=2)
    rollout = roll_out(tiny, ["a red circle", EditTask("add a ring", wide)], 2, settings, reward)
    drawn, edited = rollout.groups
    assert edited.prompt == "add a ring" and [c.source is None for c in drawn.chains] == [True] * 2
    assert [item.source is None for item in reward.items] == [True, True, False, False]
    assert reward.items[2].source.shape == (64, 64, 3)
    assert edited.chains[0].rounds[0].ids != edited.chains[1].rounds[0].ids


def test_reinforcement_on_both_tasks_agrees_with_the_engine(tiny_folder, tmp_path):
    values = {"prompts_per_step": 2, "group": 3, "rounds": 2, "max_reason_tokens": 6, "eval_every": 0}
    stage = RlStage(RlRecipe(run=options(tmp_path), model=str(tiny_folder), task="both", eval_prompts=2, **values))
    stage.rewards = Uneven()
    batches = stage.batches(0)
    chains = [t.chain for batch in batches for t in batch]
    assert {chain.source is None for chain in chains} == {True, False}
    figures = [stage.loss(stage.module, batch, 0)[1] for batch in batches]
    assert sum(f["gap_image"] for f in figures) < 1e-4 and sum(f["gap_text"] for f in figures) < 1e-4


def test_what_counts_as_right_follows_the_threshold():
    from janus_r1.train.rl.credit import Scored

    copied = Scored((0.67,), (1.0,), (0.9,), (0.0,))
    assert chain_figures([copied], 3)["final_right"] == 1
    strict = chain_figures([copied], 3, right=0.99)
    assert strict["final_right"] == 0 and strict["verdicts_right"] == 0
