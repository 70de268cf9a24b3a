"""GenEval's rules: the original's verdicts on recorded detections, and every quirk worked by hand."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from janus_r1.eval.geneval import (
    TAGS,
    Rules,
    class_names,
    fault_of_row,
    flow_grpo_reward,
    judge,
    keep,
    needs_color,
    prompts,
    relations,
    summary,
)


@pytest.fixture(scope="module")
def official() -> dict:
    """What the published script answered; ``raw`` are a detector's boxes [x1, y1, x2, y2, score] by class."""
    with gzip.open(Path(__file__).parent / "data" / "geneval_official.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)


def kept(record: dict, row: dict) -> dict[str, list[int]]:
    chosen = {}
    for name, found in record["raw"].items():
        array = np.array(found, dtype=np.float32)
        if mine := keep(array[:, 4], array[:, :4], row["tag"]):
            chosen[name] = mine
    return chosen


def detections(record: dict, chosen: dict[str, list[int]]) -> dict[str, list[dict]]:
    colors = record["colors"]
    return {
        name: [{"box": record["raw"][name][i], "color": colors[name][i] if name in colors else None} for i in mine]
        for name, mine in chosen.items()
    }


def words(reason: str) -> list[list[str]]:
    """The original prints two relations in the order of a set, which is chance."""
    return [sorted(line.split(" ")) for line in reason.split("\n")]


# --------------------------------------------------------------------------------------- parity


def test_every_recorded_verdict_is_the_originals(official):
    rows = prompts()
    tags = Counter()
    for record in official["records"]:
        row = rows[record["row"]]
        chosen = kept(record, row)
        theirs = {name: [record["raw"][name][i] for i in mine] for name, mine in record["kept"].items()}
        assert {name: [record["raw"][name][i] for i in mine] for name, mine in chosen.items()} == theirs
        correct, reason = judge(row, detections(record, chosen))
        assert correct == record["correct"], (row, reason, record["reason"])
        assert words(reason) == words(record["reason"])
        tags[row["tag"]] += 1
    assert set(tags) == set(TAGS) and tags.total() >= 3000 and min(tags.values()) >= 600


def test_the_summary_is_the_originals_to_the_last_digit(official):
    rows = prompts()
    verdicts = [
        {"tag": rows[r["row"]]["tag"], "correct": r["correct"], "metadata": json.dumps(rows[r["row"]])}
        for r in official["records"]
    ]
    found = summary(verdicts)
    lines = [
        f"Total images: {found.images}",
        f"Total prompts: {found.prompts}",
        f"% correct images: {found.correct_images:.2%}",
        f"% correct prompts: {found.correct_prompts:.2%}",
        *(f"{tag:<16} = {share:.2%} ({right} / {count})" for tag, (share, right, count) in found.tags.items()),
        f"Overall score (avg. over tasks): {found.overall:.5f}",
    ]
    said = [line for line in official["summary"].splitlines() if ":" in line or " = " in line]
    assert lines == said


# --------------------------------------------------------------------------------- rules by hand


def one(x: float = 0, y: float = 0, side: float = 10, color: str | None = None) -> dict:
    return {"box": [x, y, x + side, y + side, 0.95], "color": color}


def row(tag: str, *include: dict, exclude: list | None = None) -> dict:
    return {"tag": tag, "prompt": "p", "include": list(include), **({"exclude": exclude} if exclude else {})}


DOG_RIGHT_OF_CAT = row(
    "position", {"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": ["right of", 0]}
)


def test_the_prompts_are_the_published_ones():
    counts = Counter(p["tag"] for p in prompts())
    assert [counts[tag] for tag in TAGS] == [80, 99, 80, 94, 100, 100]
    assert [next(i for i, p in enumerate(prompts()) if p["tag"] == tag) for tag in TAGS] == [0, 80, 179, 259, 353, 453]
    assert len(class_names()) == 80 and {"computer mouse", "tv remote", "computer keyboard"} < set(class_names())
    assert all(fault_of_row(p) is None for p in prompts())


def test_a_detection_on_its_threshold_is_dropped():
    """0.3 is compared as a float32, 0.300000012, which is greater than the float64 0.3."""
    boxes = np.zeros((3, 4), np.float32)
    on, above = np.float32(0.3), np.nextafter(np.float32(0.3), np.float32(1))
    assert keep(np.array([on, above, 0.2], np.float32), boxes, "colors") == [1]
    scores = np.array([0.9, 0.91, 0.5], np.float32)
    assert keep(scores, boxes, "counting") == [1]
    assert keep(scores, boxes, "single_object") == [1, 0, 2]


def test_at_most_sixteen_of_a_class_count():
    scores = np.linspace(0.91, 0.99, 20).astype(np.float32)
    assert keep(scores, np.zeros((20, 4), np.float32), "counting") == list(range(19, 3, -1))


def test_of_equal_scores_the_later_comes_first():
    assert keep(np.array([0.5, 0.7, 0.5], np.float32), np.zeros((3, 4), np.float32), "colors") == [1, 2, 0]


def test_overlaps_are_dropped_only_on_request():
    """Boxes of 10 x 10 pixels, the last one included: 0..9 and 5..14 share 50 of 150."""
    boxes = np.array([[0, 0, 9, 9], [5, 0, 14, 9]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    assert keep(scores, boxes, "colors") == [0, 1]
    assert keep(scores, boxes, "colors", Rules(max_overlap=0.34)) == [0, 1]
    assert keep(scores, boxes, "colors", Rules(max_overlap=1 / 3)) == [0]  # an IoU that is reached drops


def test_counting_is_exact_and_other_tags_have_no_penalty():
    three = row("counting", {"class": "dog", "count": 3}, exclude=[{"class": "dog", "count": 4}])
    assert judge(three, {"dog": [one()] * 2}) == (False, "expected dog>=3, found 2")
    assert judge(three, {"dog": [one()] * 3}) == (True, "")
    assert judge(three, {"dog": [one()] * 4}) == (False, "expected dog<4, found 4")
    assert judge(row("single_object", {"class": "dog", "count": 1}), {"dog": [one()] * 4})[0]


def test_only_the_best_detections_are_asked_for_their_color():
    red = row("colors", {"class": "car", "count": 1, "color": "red"})
    assert judge(red, {"car": [one(color="red"), one(color="blue")]})[0]
    assert judge(red, {"car": [one(color="blue"), one(color="red")]}) == (
        False,
        "expected red car>=1, found 0 red; and 1 blue",
    )
    assert needs_color(red) == {"car": 1}


@pytest.mark.parametrize(
    ("dx", "expected"),
    # two boxes of side 10: margin 0.1 * (10 + 10) = 2; dx - 2 must exceed half of dx, so dx > 4
    [(2, []), (3, []), (4, []), (4.001, ["right of"]), (20, ["right of"]), (-4, []), (-4.001, ["left of"])],
)
def test_the_margin_of_a_position(dx, expected):
    assert relations(one(dx)["box"], one(0)["box"]) == expected


def test_two_relations_may_hold_and_the_length_is_of_the_unshortened_offset():
    # offset (40, -40), shortened to 38 on both axes; 38 / 56.57 = 0.672
    assert relations(one(40, 0)["box"], one(0, 40)["box"]) == ["right of", "above"]
    # offset (6, -6), shortened to 4; 4 / 8.49 = 0.471: neither, though 4 / |(4, 4)| would be 0.707
    assert relations(one(6, 0)["box"], one(0, 6)["box"]) == []


def test_the_position_is_of_the_later_clause_towards_the_earlier():
    assert judge(DOG_RIGHT_OF_CAT, {"dog": [one(50)], "cat": [one(0)]})[0]
    assert judge(DOG_RIGHT_OF_CAT, {"dog": [one(0)], "cat": [one(50)]}) == (
        False,
        "expected dog right of target, found left of target",
    )
    assert judge(DOG_RIGHT_OF_CAT, {"dog": [one(0)]}) == (
        False,
        "expected cat>=1, found 0\nno target for dog to be right of",
    )
    assert judge(DOG_RIGHT_OF_CAT, {"dog": [one(50), one(-99)], "cat": [one(0), one(99)]})[0]  # the best of each


def test_a_position_must_hold_between_all_that_are_asked_for():
    two = row("position", {"class": "cat", "count": 2}, {"class": "dog", "count": 1, "position": ["right of", 0]})
    assert judge(two, {"cat": [one(0), one(10)], "dog": [one(60)]})[0]
    assert not judge(two, {"cat": [one(0), one(100)], "dog": [one(60)]})[0]


def test_a_metadata_row_that_cannot_be_judged_says_why():
    good = prompts()[400]
    assert "unknown tag 'colour'" in fault_of_row({**good, "tag": "colour"})
    assert "none of the 80" in fault_of_row(row("single_object", {"class": "mouse", "count": 1}))
    assert "count" in fault_of_row(row("single_object", {"class": "dog", "count": True}))
    assert "color" in fault_of_row(row("colors", {"class": "dog", "count": 1, "color": "teal"}))
    assert "position" in fault_of_row(row("position", {"class": "dog", "count": 1, "position": ["right of", 0]}))
    assert fault_of_row(["a"]) and fault_of_row({"prompt": "x", "tag": "colors", "include": {}})


def test_overall_is_the_mean_of_the_tags():
    rows = [{"tag": "colors", "correct": i < 3, "metadata": str(i // 2)} for i in range(4)]
    rows.append({"tag": "counting", "correct": False, "metadata": "c"})
    found = summary(rows)
    assert found.overall == 0.375 and found.correct_images == 0.6 and found.correct_prompts == pytest.approx(2 / 3)


# ------------------------------------------------------------------------------ flow_grpo's reward


def test_the_reward_of_flow_grpo_is_another_measure():
    single = row("single_object", {"class": "dog", "count": 1})
    assert judge(single, {"dog": [one()] * 2})[0] and flow_grpo_reward(single, {"dog": [one()] * 2}) == (False, 0.0)
    assert flow_grpo_reward(single, {"dog": [one()] * 4}) == (False, -2.0)  # 1 - 3 / 1
    four = row("counting", {"class": "dog", "count": 4}, exclude=[{"class": "dog", "count": 5}])
    assert flow_grpo_reward(four, {"dog": [one()] * 3}) == (False, 0.75)
    red = row("colors", {"class": "car", "count": 1, "color": "red"})
    assert flow_grpo_reward(red, {}) == (False, 0.0)
    assert flow_grpo_reward(red, {"car": [one(color="blue")]}) == (False, 0.5)  # 1 for the count, 0 for the color
    assert flow_grpo_reward(DOG_RIGHT_OF_CAT, {"dog": [one(50)], "cat": [one(0)]}) == (True, 1.0)
    # counts 1 and 1, the relation's 0, and the 1 that follows it all the same
    assert flow_grpo_reward(DOG_RIGHT_OF_CAT, {"dog": [one(0)], "cat": [one(50)]}) == (False, 0.75)
    # cat 0, dog 1, no target 0
    assert flow_grpo_reward(DOG_RIGHT_OF_CAT, {"dog": [one(0)]}) == (False, pytest.approx(1 / 3))
