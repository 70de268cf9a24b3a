"""What training on edits reads: rows of the world's cases with their mistakes, the user's pairs, rollouts."""

from __future__ import annotations

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

from janus_r1.chain import Settings, Source
from janus_r1.data.edit_examples import FileEdits, WorldEdits
from janus_r1.data.edit_pairs import PairReader, read_pairs
from janus_r1.data.edit_plan import COMPARED, EditCounts, plan
from janus_r1.data.own_edits import OwnEdits, OwnEditsRecipe
from janus_r1.errors import UserError
from janus_r1.introspect import introspect
from janus_r1.layout import Drawn, Row, Seen, Text
from janus_r1.train.loop import RunOptions
from janus_r1.train.objective import targets
from janus_r1.train.pretrain import PretrainRecipe, PretrainStage, tokenizer_corpus
from janus_r1.train.rl.edit_prompts import EditTask, tasks
from janus_r1.train.rl.figures import chain_figures
from janus_r1.train.rl.recipe import RlRecipe
from janus_r1.train.rl.rollout import roll_out
from janus_r1.train.rl.stage import RlStage
from janus_r1.train.sft import SftRecipe, SftStage
from janus_r1.world.differences import FATES, fates, statements
from janus_r1.world.edit_cases import train_edits
from janus_r1.world.instructions import parse_instruction
from janus_r1.world.scene import Scene, SceneObject
from janus_r1.world.verify import find_objects
from janus_r1.world.verify_edit import verify_edit

# ----------------------------------------------------------------------------------- world's cases


class Lossless:
    """A stand-in whose image tokenizer keeps every pixel: an image's ids are its number, repeated."""

    def __init__(self, tiny) -> None:
        self.layout, self.image_tokens, self.device, self.images = tiny.layout, tiny.image_tokens, tiny.device, []

    def sources(self, images):
        self.images += images
        first = len(self.images) - len(images)
        return [Source((first + i,) * self.image_tokens, image) for i, image in enumerate(images)]

    def decode_image(self, ids, half):
        return np.stack([self.images[row[0]] for row in ids])


@pytest.fixture
def lossless(tiny):
    return Lossless(tiny)


def rows_of(edits: WorldEdits, counts: EditCounts, seed: int) -> list[Row]:
    """Image rows, then verdict rows."""
    made = plan(counts, random.Random(seed))
    images, verdicts = edits.rows(made, counts.redraw_rounds, counts.judge_rounds, seed)
    return [*images, *verdicts]


def words(tiny, row) -> str:
    return tiny.tokenizer.decode([i for s in row if isinstance(s, Text) for i in s.ids])


def instruction(tiny, row) -> str:
    return words(tiny, row).split("<|User|>:")[1].split("\n<begin_of_image>")[0].strip()


def parted(shown: list) -> tuple:
    """The source, which stands before every result, and the results."""
    sources, results = shown[0::2], shown[1::2]
    assert all(np.array_equal(sources[0], source) for source in sources) and len(sources) == len(results)
    return sources[0], results


def test_edit_rows_lead_from_the_source_to_a_right_result(tiny, lossless):
    for row in WorldEdits(lossless).draw(12, random.Random(0), dropout=0.0):
        source, target = (s.ids[0] for s in row if isinstance(s, Drawn))
        edits = parse_instruction(instruction(tiny, row))
        assert verify_edit(lossless.images[source], lossless.images[target], edits).correct
        assert tuple(targets([row]).image_ids.tolist()) == (target,) * tiny.image_tokens


def test_dropout_takes_the_instruction_alone(tiny, lossless):
    kept, dropped = (WorldEdits(lossless).draw(4, random.Random(0), share) for share in (0.0, 1.0))
    pad = tiny.tokenizer.decode([tiny.layout.special.pad])
    for one, other in zip(kept, dropped, strict=True):
        assert instruction(tiny, other).replace(pad, "") == "" != instruction(tiny, one)
        assert [len(s) for s in one] == [len(s) for s in other]
        assert (lossless.images[one[1].ids[0]] == lossless.images[other[1].ids[0]]).all(), "the source stays"


def test_judge_rows_say_what_the_verifier_says(tiny, lossless):
    rows = rows_of(WorldEdits(lossless, word_weight=0.5), EditCounts(0, judge=12, judge_rounds=2), 1)
    said = []
    for row in rows:
        source, (*earlier, last) = parted([s.pixels for s in row if isinstance(s, Seen)])
        edits = parse_instruction(instruction(tiny, row))
        assert not any(verify_edit(source, image, edits).correct for image in earlier)
        expected = verify_edit(source, last, edits)
        spoken = tiny.tokenizer.decode(targets([row]).text_ids.tolist(), skip_special_tokens=True)
        assert spoken == expected.verdict
        said.append(expected.correct)
        assert float(targets([row]).text_weights[0]) == 0.5
    assert said == [True, False] * 6, "every other result is a mistake"
    assert any(sum(isinstance(s, Seen) for s in row) == 6 for row in rows), "three results, two of them rejected"


def test_compare_rows_tell_true_statements_from_false(tiny, lossless):
    answers = []
    for row in rows_of(WorldEdits(lossless), EditCounts(0, compare=40), 3):
        source, result = (find_objects(s.pixels) for s in row if isinstance(s, Seen))
        look = {str(o) for o in source}, {str(o) for o in result}
        items = [s for s in row if isinstance(s, Text)][-14:]
        for said, answer in zip(items[::2], items[1::2], strict=True):
            true = tiny.tokenizer.decode(answer.ids) == "Yes"
            *name, fate = tiny.tokenizer.decode(said.ids).split()
            answers.append(true)
            assert answer.learn and not said.learn and fate in FATES
            if true and name[-1] != "background":
                before, after = (" ".join(name[1:]) in objects for objects in look)
                assert before if fate != "new" else after
                assert after or fate == "gone"
    assert 0.35 < np.mean(answers) < 0.65


def test_fates_by_hand():
    ring, star = SceneObject("ring", "red", "small", 4, 4), SceneObject("star", "blue", "large", 32, 32)
    before, after = Scene("black", (ring, star)), Scene("grey", (dataclasses.replace(ring, x=12), star))
    assert fates(before, after) == {
        "small red ring": "moved",
        "large blue star": "kept",
        "black background": "gone",
        "grey background": "new",
    }
    bigger = Scene("black", (dataclasses.replace(ring, size="large"), star))
    assert fates(before, bigger)["small red ring"] == "gone" and fates(before, bigger)["large red ring"] == "new"
    twins = Scene("black", (ring, dataclasses.replace(ring, y=40)))
    assert fates(before, twins) == {"large blue star": "gone", "black background": "kept"}, "which ring is not told"


def test_false_statements_change_fate_or_name():
    case = next(iter(train_edits(random.Random(0))))
    known = fates(case.source, case.target)
    for text, true in statements(case.source, case.target, 200, random.Random(1)):
        name, _, fate = text.rpartition(" ")
        assert true == (known.get(name) == fate)


def test_redraw_rows_lead_from_mistakes_to_a_right_result(tiny, lossless):
    for row in rows_of(WorldEdits(lossless), EditCounts(0, redraw=8, redraw_rounds=2), 2):
        source, (*wrong, target) = parted([lossless.images[s.ids[0]] for s in row if isinstance(s, Drawn)])
        edits = parse_instruction(instruction(tiny, row))
        assert len(wrong) == 2 and verify_edit(source, target, edits).correct
        for image in wrong:
            found = verify_edit(source, image, edits)
            assert not found.correct and found.reason in words(tiny, row)
        assert sum(s.learn for s in row if isinstance(s, Drawn)) == 1 and row[-1].learn


def test_a_blurred_source_does_not_stop_the_lessons(tiny):
    """The random model's tokenizer leaves nothing to read: everything is wrong, nothing raises."""
    rows = rows_of(WorldEdits(tiny), EditCounts(0, judge=2), 0)
    said = [tiny.tokenizer.decode(targets([row]).text_ids[:1]) for row in rows]
    assert said == ["No", "No"]


class Drafting:
    """A stand-in for the model's own drafts: of every other edit a right one and a black one."""

    def __init__(self, lossless) -> None:
        self.lossless, self.right = lossless, []

    def draw(self, asked, seed):
        return [self._drafts(*pair) if index % 2 else [] for index, pair in enumerate(asked)]

    def _drafts(self, text, source):
        edits = parse_instruction(text)
        target = next(image for image in self.lossless.images if verify_edit(source.pixels, image, edits).correct)
        right, black = self.lossless.sources([target, np.zeros_like(target)])
        self.right.append(right.ids[0])
        return [right.ids, black.ids]


def test_own_drafts_come_before_the_worlds(tiny, lossless):
    """A wrong draft is rejected first, a right one is what redrawing leads to; who erred is judged to be wrong."""
    own = Drafting(lossless)
    counts = EditCounts(0, redraw=4, judge=4, redraw_rounds=1)
    rows = rows_of(WorldEdits(lossless, own=own), counts, 5)
    shown = [parted([s.ids[0] for s in row if isinstance(s, Drawn)]) for row in rows[:4]]
    for index, (_, (wrong, target)) in enumerate(shown):
        assert lossless.images[wrong].any() != index % 2 and (target in own.right) == index % 2
    judged = [[s.pixels for s in row if isinstance(s, Seen)][-1] for row in rows[4:]]
    assert [image.any() for image in judged] == [True, False, True, False]
    assert [tiny.tokenizer.decode(targets([row]).text_ids[:1]) for row in rows[4:]] == ["Yes", "No"] * 2


def test_own_drafts_are_what_editing_draws(tiny):
    """Greedily, with and without guidance: the first drafts of chains."""
    texts = ["remove the red ring", "make it blue", "add a star"]
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    sources = tiny.sources(list(images))
    for guidance in (1.0, 3.0):
        own = OwnEdits(OwnEditsRecipe(drafts=1, guidance=guidance, temperature=0.0), lambda: tiny)
        settings = Settings(rounds=1, guidance=guidance, temperature=0.0, max_reason_tokens=1)
        chains = introspect(tiny, texts, settings, sources=sources)
        drafts = own.draw(list(zip(texts, sources, strict=True)), seed=0)
        assert drafts == [[chain.rounds[0].ids] for chain in chains]


def test_own_drafts_differ_and_follow_from_the_seed(tiny):
    own = OwnEdits(OwnEditsRecipe(drafts=3), lambda: tiny)
    asked = [("make it blue", tiny.sources([np.zeros((64, 64, 3), np.uint8)])[0])] * 2
    one, again, other = own.draw(asked, 0), own.draw(asked, 0), own.draw(asked, 1)
    assert one == again != other and len({ids for drafts in one for ids in drafts}) == 6
    with pytest.raises(UserError, match="drafts must not be negative"):
        OwnEditsRecipe(drafts=-1)


# ----------------------------------------------------------------------------------- user's pairs


@pytest.fixture
def folder(tmp_path):
    """Two pictures, and rows in both forms in a folder of their own."""
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (80, 60), colour).save(tmp_path / name)
    rows = tmp_path / "rows"
    rows.mkdir()
    ours = [{"instruction": "make it blue", "source": "a.png", "target": "b.png"}]
    theirs = [{"sample_id": "x7", "text": "make it red", "input": "b.png", "output": "a.png"}]
    (rows / "1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ours))
    (rows / "2.json").write_text(json.dumps(theirs))
    return tmp_path


def test_pairs_in_both_forms(folder):
    ours, theirs = read_pairs(folder / "rows")
    assert (ours.instruction, ours.source, ours.target) == ("make it blue", folder / "a.png", folder / "b.png")
    assert (theirs.id, theirs.instruction, theirs.source) == ("x7", "make it red", folder / "b.png")


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{", "not JSON"),
        ("[1]", "row 1: expected texts"),
        ('{"instruction": "x", "source": "a.png"}', "row 1: expected texts"),
        ('{"instruction": " ", "source": "a.png", "target": "b.png"}', "row 1: expected texts"),
        ('{"instruction": "a <|User|>", "source": "a.png", "target": "b.png"}', "special token"),
        ('{"instruction": "x", "source": "c.png", "target": "b.png"}', "row 1: no such image: c.png"),
        ("", "holds no edits"),
    ],
)
def test_broken_pairs_are_refused_by_name(folder, row, complaint):
    (folder / "bad.jsonl").write_text(row + "\n")
    with pytest.raises(UserError, match=complaint):
        read_pairs(folder / "bad.jsonl")


def test_an_unreadable_picture_is_named_once_and_passed_over(folder, capsys):
    pairs = read_pairs(folder / "rows")
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:50])
    (folder / "c.png").write_bytes((folder / "b.png").read_bytes())
    whole = dataclasses.replace(pairs[1], id="whole", target=folder / "c.png")
    reader = PairReader([*pairs, whole])
    assert {reader.pick(random.Random(i))[0].id for i in range(9)} == {"whole"}
    assert len(reader.unreadable) == 2 and capsys.readouterr().err.count("x7") == 1
    with pytest.raises(UserError, match="cannot be read"):
        PairReader(pairs).pick(random.Random(0))


def test_pairs_become_rows(tiny, folder):
    row = FileEdits(tiny, str(folder / "rows")).draw(1, random.Random(0), 0.0)[0]
    assert instruction(tiny, row) in ("make it blue", "make it red")
    assert sum(isinstance(s, Drawn) for s in row) == 2 and row[-1].learn


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
    ((images, verdicts),) = stage.batches(1)
    assert len(images) == 6 and len(verdicts) == 2
    assert COMPARED in {len(targets([row]).text_ids) for row in verdicts}
    assert targets([*images]).image_ids.shape == (6 * stage.janus.image_tokens,)
    loss, figures = stage.loss(stage.module, (images, verdicts), 1)
    assert torch.isfinite(loss) and set(figures) == {"image_loss", "verdict_loss"}


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
    return [[s.ids for s in row if isinstance(s, Drawn)] for images, _ in batches for row in images]


def test_own_edits_need_a_verifier(tmp_path):
    own = OwnEditsRecipe(drafts=1)
    changes = {"mix": [0, 0, 0, 1], "edit_mix": [1, 0, 0], "edits": "pairs.jsonl", "own_edits": own}
    with pytest.raises(UserError, match="own_edits"):
        SftStage(SftRecipe(run=options(tmp_path), **changes))


@pytest.mark.parametrize(
    "changes",
    [{"mix": [1.0, 1.0]}, {"mix": [0.0] * 4}, {"edit_mix": [1.0]}, {"mix": [0, 0, 0, 1], "edits": "pairs.jsonl"}],
    ids=str,
)
def test_shares_that_cannot_be_meant_are_refused(tmp_path, changes):
    with pytest.raises(UserError, match="mix"):
        SftStage(SftRecipe(run=options(tmp_path), **changes))


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


def test_tasks_from_a_file_need_no_results(folder):
    lines = [{"instruction": f"make it {i}", "source": "a.png"} for i in range(4)]
    (folder / "few.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = tasks("edit", "shapes", str(folder / "few.jsonl"), held_out=1)
    assert [task.instruction for task in source.held_out] == ["make it 0"]
    seen = {task.instruction for step in range(8) for task in source.step(3, 0, step)}
    assert seen == {"make it 1", "make it 2", "make it 3"}
    with pytest.raises(UserError, match="eval_prompts"):
        tasks("edit", "shapes", str(folder / "few.jsonl"), held_out=4)


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
