"""Rows of edits: of the world's cases with their mistakes and the model's own drafts, and of the user's pairs."""

from __future__ import annotations

import dataclasses
import json
import random

import numpy as np
import pytest
from PIL import Image

from janus_r1.chain import Settings, Task
from janus_r1.data.edit_plan import EditCounts, plan
from janus_r1.data.edit_rows import FileEditRows, OwnEdits, OwnEditsRecipe, WorldEditRows
from janus_r1.data.rows import Wanted
from janus_r1.data.task_files import EditReader, read_edits
from janus_r1.errors import UserError
from janus_r1.introspect import introspect
from janus_r1.segments import Drawn, Row, Seen, Source, Text
from janus_r1.train.objective import targets
from janus_r1.worlds.shapes.edit_cases import train_edits
from janus_r1.worlds.shapes.language import parse_instruction
from janus_r1.worlds.shapes.questions import FATES, fates, statements
from janus_r1.worlds.shapes.scene import Scene, SceneObject
from janus_r1.worlds.shapes.verifier import find_objects
from janus_r1.worlds.shapes.verify_edit import verify_edit

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


def rows_of(edits: WorldEditRows, counts: EditCounts, seed: int) -> list[Row]:
    """Image rows, then verdict rows."""
    rng = random.Random(seed)
    made, wanted = plan(counts, rng), Wanted({}, seed, rng, counts.judge_rounds, counts.redraw_rounds)
    images, verdicts, _ = edits.finish(made, wanted)
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
    for row in WorldEditRows(lossless).draw(12, random.Random(0), dropout=0.0):
        source, target = (s.ids[0] for s in row if isinstance(s, Drawn))
        edits = parse_instruction(instruction(tiny, row))
        assert verify_edit(lossless.images[source], lossless.images[target], edits).correct
        assert tuple(targets([row]).image_ids.tolist()) == (target,) * tiny.image_tokens


def test_dropout_takes_the_instruction_alone(tiny, lossless):
    kept, dropped = (WorldEditRows(lossless).draw(4, random.Random(0), share) for share in (0.0, 1.0))
    pad = tiny.tokenizer.decode([tiny.layout.special.pad])
    for one, other in zip(kept, dropped, strict=True):
        assert instruction(tiny, other).replace(pad, "") == "" != instruction(tiny, one)
        assert [len(s) for s in one] == [len(s) for s in other]
        assert (lossless.images[one[1].ids[0]] == lossless.images[other[1].ids[0]]).all(), "the source stays"


def test_judge_rows_say_what_the_verifier_says(tiny, lossless):
    rows = rows_of(WorldEditRows(lossless, word_weight=0.5), EditCounts(0, judge=12, judge_rounds=2), 1)
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
    for row in rows_of(WorldEditRows(lossless), EditCounts(0, compare=40), 3):
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
    for row in rows_of(WorldEditRows(lossless), EditCounts(0, redraw=8, redraw_rounds=2), 2):
        source, (*wrong, target) = parted([lossless.images[s.ids[0]] for s in row if isinstance(s, Drawn)])
        edits = parse_instruction(instruction(tiny, row))
        assert len(wrong) == 2 and verify_edit(source, target, edits).correct
        for image in wrong:
            found = verify_edit(source, image, edits)
            assert not found.correct and found.reason in words(tiny, row)
        assert sum(s.learn for s in row if isinstance(s, Drawn)) == 1 and row[-1].learn


def test_rows_of_every_task_are_of_the_families_named():
    made = plan(EditCounts(3, 3, 3, 3, families=("move", "add", "move")), random.Random(0))
    tasks = (made.draw, made.redraw, made.judge, made.compare)
    assert all({exercise.task.family for exercise in task} <= {"move", "add"} for task in tasks)
    many = plan(EditCounts(600, families=("move", "add", "move")), random.Random(0)).draw
    assert 360 < sum(exercise.task.family == "move" for exercise in many) < 440


def test_a_blurred_source_does_not_stop_the_lessons(tiny):
    """The random model's tokenizer leaves nothing to read: everything is wrong, nothing raises."""
    rows = rows_of(WorldEditRows(tiny), EditCounts(0, judge=2), 0)
    said = [tiny.tokenizer.decode(targets([row]).text_ids[:1]) for row in rows]
    assert said == ["No", "No"]


class Drafting:
    """A stand-in for the model's own drafts: of every other edit a right one and a black one."""

    def __init__(self, lossless, as_drawn=False, order=1) -> None:
        """``as_drawn`` draws of every edit, to be judged as they come; ``order`` -1 the black one first."""
        self.lossless, self.as_drawn, self.order, self.right = lossless, as_drawn, order, []

    def draw(self, asked, seed):
        drawn = [self._drafts(*pair) if self.as_drawn or index % 2 else [] for index, pair in enumerate(asked)]
        return [drafts[:: self.order] for drafts in drawn]

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
    rows = rows_of(WorldEditRows(lossless, own=own), counts, 5)
    shown = [parted([s.ids[0] for s in row if isinstance(s, Drawn)]) for row in rows[:4]]
    for index, (_, (wrong, target)) in enumerate(shown):
        assert lossless.images[wrong].any() != index % 2 and (target in own.right) == index % 2
    judged = [[s.pixels for s in row if isinstance(s, Seen)][-1] for row in rows[4:]]
    assert [image.any() for image in judged] == [True, False, True, False]
    assert [tiny.tokenizer.decode(targets([row]).text_ids[:1]) for row in rows[4:]] == ["Yes", "No"] * 2


def test_own_drafts_are_judged_as_they_come(tiny, lossless):
    """Every first draft, right or wrong, whatever else there is; other wrong ones may stand before it."""
    own = Drafting(lossless, as_drawn=True)
    rows = rows_of(WorldEditRows(lossless, own=own), EditCounts(0, judge=6, judge_rounds=1), 5)
    for row, right in zip(rows, own.right, strict=True):
        earlier, last = [s.pixels for s in row if isinstance(s, Seen)][1::2]
        assert (last == lossless.images[right]).all() and not earlier.any()
        assert tiny.tokenizer.decode(targets([row]).text_ids[:1]) == "Yes"
    own = Drafting(lossless, as_drawn=True, order=-1)
    for row in rows_of(WorldEditRows(lossless, own=own), EditCounts(0, judge=6, judge_rounds=1), 5):
        earlier, last = [s.pixels for s in row if isinstance(s, Seen)][1::2]
        assert not last.any() and earlier.any(), "a draft does not stand before itself"
        assert tiny.tokenizer.decode(targets([row]).text_ids[:1]) == "No"
    with pytest.raises(UserError, match="as_drawn"):
        OwnEditsRecipe(drafts=0, as_drawn=True)


def test_own_drafts_are_what_editing_draws(tiny):
    """Greedily, with and without guidance: the first drafts of chains."""
    texts = ["remove the red ring", "make it blue", "add a star"]
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    sources = tiny.sources(list(images))
    for guidance in (1.0, 3.0):
        own = OwnEdits(OwnEditsRecipe(drafts=1, guidance=guidance, temperature=0.0), lambda: tiny)
        settings = Settings(rounds=1, guidance=guidance, temperature=0.0, max_reason_tokens=1)
        tasks = [Task(text, source.pixels) for text, source in zip(texts, sources, strict=True)]
        chains = introspect(tiny, tasks, settings)
        drafts = own.draw(list(zip(texts, sources, strict=True)), seed=0)
        assert drafts == [[chain.rounds[0].ids] for chain in chains]


def test_own_drafts_differ_and_follow_from_the_seed(tiny):
    own = OwnEdits(OwnEditsRecipe(drafts=3), lambda: tiny)
    asked = [("make it blue", tiny.sources([np.zeros((64, 64, 3), np.uint8)])[0])] * 2
    one, again, other = own.draw(asked, 0), own.draw(asked, 0), own.draw(asked, 1)
    assert one == again != other and len({ids for drafts in one for ids in drafts}) == 6
    with pytest.raises(UserError, match="drafts must be at least 0"):
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
    ours, theirs = read_edits(folder / "rows")
    assert (ours.instruction, ours.source, ours.target) == ("make it blue", folder / "a.png", folder / "b.png")
    assert (theirs.id, theirs.instruction, theirs.source) == ("x7", "make it red", folder / "b.png")


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{", "as JSON"),
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
        read_edits(folder / "bad.jsonl")


def test_an_unreadable_picture_is_named_once_and_passed_over(folder, capsys):
    pairs = read_edits(folder / "rows")
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:50])
    (folder / "c.png").write_bytes((folder / "b.png").read_bytes())
    whole = dataclasses.replace(pairs[1], id="whole", instruction="copy it", target=folder / "c.png")
    reader = EditReader([*pairs, whole])
    assert {reader.pick(random.Random(i))[0].prompt for i in range(9)} == {"copy it"}
    assert len(reader.unreadable) == 2 and capsys.readouterr().err.count("x7") == 1
    with pytest.raises(UserError, match="cannot be read"):
        EditReader(pairs).pick(random.Random(0))


def test_pairs_become_rows(tiny, folder):
    row = FileEditRows(tiny, str(folder / "rows")).draw(1, random.Random(0), 0.0)[0]
    assert instruction(tiny, row) in ("make it blue", "make it red")
    assert sum(isinstance(s, Drawn) for s in row) == 2 and row[-1].learn
