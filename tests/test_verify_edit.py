"""The check of an edit: it accepts nearly all good edits, and nearly none that went wrong, and says why."""

from __future__ import annotations

import itertools
import random
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageFilter

from janus_r1.worlds.base import Check
from janus_r1.worlds.shapes.edit_cases import EditCase, edit_split, train_edits
from janus_r1.worlds.shapes.edits import CannotEdit
from janus_r1.worlds.shapes.language import parse_instruction
from janus_r1.worlds.shapes.mistakes import side_effects, wrong_edits
from janus_r1.worlds.shapes.scene import STEP, Scene, SceneObject, render
from janus_r1.worlds.shapes.verifier import look
from janus_r1.worlds.shapes.verify_edit import check_edit, verify_edit

RED, BLUE = SceneObject("circle", "red", "small", 8, 24), SceneObject("square", "blue", "large", 36, 28)
PINK = SceneObject("circle", "pink", "small", 8, 24)


@cache
def training(count: int) -> list[EditCase]:
    return list(itertools.islice(train_edits(random.Random(2)), count))


def judge(text: str, source: Scene, result: Scene) -> Check:
    edits = parse_instruction(text)
    assert edits is not None
    return verify_edit(render(source), render(result), edits)


def grey(*objects: SceneObject) -> Scene:
    return Scene("grey", objects)


# ------------------------------------------------------------------------------------------ shares


def test_accepts_rendered_edits():
    judged = [judge(c.instruction.text, c.source, c.target) for c in training(1_500)]
    assert np.mean([v.correct for v in judged]) >= 0.99
    assert all(v.following.score == v.preserving.score == 1.0 for v in judged if v.correct)


@pytest.mark.parametrize("split", ["test", "held_out"])
def test_accepts_the_frozen_cases(split):
    assert all(judge(c.instruction.text, c.source, c.target).correct for c in edit_split(split))


def test_following_rejects_the_source_and_other_edits():
    rejected: dict[str, list[bool]] = {}
    rng = random.Random(0)
    for case in training(400):
        source = look(render(case.source))
        for fact, scene in wrong_edits(case, rng).items():
            following = check_edit(source, look(render(scene)), case.instruction.edits).following
            rejected.setdefault(fact, []).append(not following.correct)
            assert following.correct or (following.score <= 0.49 and following.reason)
    assert set(rejected) == {"undone", "colour", "shape", "place", "object"}
    for fact, values in rejected.items():
        assert len(values) > 40 and np.mean(values) >= 0.99, fact


def test_preserving_rejects_side_effects():
    rejected: dict[str, list[bool]] = {}
    rng = random.Random(0)
    for case in training(250):
        source = look(render(case.source))
        for what, scene in side_effects(case, rng).items():
            preserving = check_edit(source, look(render(scene)), case.instruction.edits).preserving
            rejected.setdefault(what, []).append(not preserving.correct)
            assert preserving.correct or (preserving.score <= 0.49 and preserving.reason)
    expected = {"recoloured", "reshaped", "resized", "moved", "vanished", "appeared", "background"}
    assert set(rejected) == expected
    for what, values in rejected.items():
        assert len(values) > 150 and np.mean(values) >= 0.99, what


def test_copying_the_source_preserves_and_does_not_follow():
    for case in training(200):
        source = look(render(case.source))
        judged = check_edit(source, source, case.instruction.edits)
        assert judged.preserving.score == 1.0 and not judged.following.correct, case.instruction.text


def spoiled(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.7))
    return np.clip(np.asarray(blurred) + generator.normal(0, 10, image.shape), 0, 255).astype(np.uint8)


def test_survives_blur_and_noise():
    generator, kept, caught = np.random.default_rng(0), [], []
    for case in training(400):
        source = look(render(case.source))
        result = look(spoiled(render(case.target), generator))
        kept.append(check_edit(source, result, case.instruction.edits).correct)
        undone = look(spoiled(render(case.source), generator))
        caught.append(not check_edit(source, undone, case.instruction.edits).following.correct)
    assert np.mean(kept) >= 0.99 and np.mean(caught) >= 0.99


def test_the_smallest_move_is_seen_through_noise():
    generator, caught = np.random.default_rng(0), []
    for x, y in itertools.product((8 - STEP, 8, 8 + STEP), (24 - STEP, 24, 24 + STEP)):
        moved = SceneObject("circle", "red", "small", x, y)
        for _ in range(10):
            result = spoiled(render(grey(moved, SceneObject("star", "blue", "large", 36, 28))), generator)
            edits = parse_instruction("turn the square into a star")
            judged = verify_edit(render(grey(RED, BLUE)), result, edits)
            caught.append(judged.preserving.correct == ((x, y) == (8, 24)))
    assert np.mean(caught) >= 0.98


# ----------------------------------------------------------------------------------------- reasons

MAKE_PINK = "make the red circle pink"


@pytest.mark.parametrize(
    ("text", "result", "following", "preserving"),
    [
        (MAKE_PINK, (PINK, BLUE), None, None),
        (MAKE_PINK, (RED, BLUE), "the circle is red, not pink", None),
        (MAKE_PINK, (BLUE,), "there is no pink circle", None),
        (MAKE_PINK, (PINK,), None, "the blue square has vanished"),
        (
            MAKE_PINK,
            (PINK, SceneObject("square", "green", "large", 36, 28)),
            None,
            "the square is green, not blue",
        ),
        (MAKE_PINK, (SceneObject("circle", "pink", "large", 4, 20), BLUE), "the pink circle is large, not small", None),
        (MAKE_PINK, (SceneObject("circle", "pink", "small", 8, 40), BLUE), "the pink circle has left its place", None),
        (MAKE_PINK, (PINK, SceneObject("square", "blue", "large", 36, 0)), None, "the blue square has left its place"),
        (MAKE_PINK, (PINK, BLUE, SceneObject("star", "red", "small", 8, 0)), None, "a red star has appeared"),
        ("remove the circle", (BLUE,), None, None),
        ("remove the circle", (RED, BLUE), "the red circle is still there", None),
        (
            "remove the circle",
            (PINK, BLUE),
            "there is a pink circle where the red circle was",
            "a pink circle has appeared",
        ),
        ("remove the circle", (RED,), "the red circle is still there", "the blue square has vanished"),
        ("add a pink star", (RED, BLUE), "there is no pink star", None),
        (
            "turn the circle into a heart",
            (SceneObject("ring", "red", "small", 8, 24), BLUE),
            "there is a red ring instead of a red heart",
            None,
        ),
        ("move the circle to the top", (RED, BLUE), "the red circle is not at the top", None),
        ("move the circle right of the square", (RED, BLUE), "the red circle is not right of the blue square", None),
        (
            "move the circle to the top",
            (RED, SceneObject("circle", "red", "small", 8, 0), BLUE),
            None,
            "a red circle has appeared",
        ),
        (
            "make the circle pink and then move the square to the top",
            (PINK, BLUE),
            "the blue square is not at the top",
            None,
        ),
    ],
)
def test_reasons(text, result, following, preserving):
    judged = judge(text, grey(RED, BLUE), grey(*result))
    assert judged.following.reason == (following or "the instruction is fulfilled")
    assert judged.preserving.reason == (preserving or "everything else is unchanged")
    first = following or preserving
    assert judged.verdict == (f"No, {first}." if first else "Yes, the edit is made and everything else is unchanged.")
    assert judged.correct == (first is None)


def test_a_changed_background_is_not_preserved():
    judged = judge(MAKE_PINK, grey(RED, BLUE), Scene("navy", (PINK, BLUE)))
    assert judged.following.correct and judged.preserving.reason == "the background has changed"


def test_scores_count_the_facts_that_hold():
    undone = judge(MAKE_PINK, grey(RED, BLUE), grey(RED, BLUE))
    assert undone.following.score == pytest.approx(0.49 * 3 / 4)  # shape, size and place hold, colour does not
    green = judge(MAKE_PINK, grey(RED, BLUE), grey(PINK, SceneObject("square", "green", "large", 36, 28)))
    assert green.preserving.score == pytest.approx(0.49 * 5 / 6)  # of four facts of the square, newcomers, background
    assert judge("remove the circle", grey(RED, BLUE), grey(RED, BLUE)).following.score == 0.0


def test_steps_may_build_on_each_other():
    text = "make the circle pink and then move the pink circle to the right of the square"
    square = SceneObject("square", "blue", "large", 4, 28)
    moved = SceneObject("circle", "pink", "small", 48, 32)
    assert judge(text, grey(SceneObject("circle", "red", "small", 8, 0), square), grey(moved, square)).correct
    gone = judge("add a red star and then remove the red star", grey(RED, BLUE), grey(RED, BLUE))
    assert gone.correct


def test_an_anchor_that_moves_is_told_from_where_it_went():
    text = "move the square to the left and then add a pink star right of the square"
    square = SceneObject("square", "blue", "large", 0, 28)
    star = SceneObject("star", "pink", "small", 32, 32)
    source = grey(SceneObject("square", "blue", "large", 36, 28))
    assert judge(text, source, grey(square, star)).correct
    assert not judge(text, source, grey(square, SceneObject("star", "pink", "small", 4, 0))).following.correct


def test_twins_are_told_apart_by_their_place():
    twins = [SceneObject("star", "red", "small", x, 4) for x in (0, 20, 40)]
    source, text = grey(*twins, RED), "remove the circle"
    assert judge(text, source, grey(*reversed(twins))).correct
    fewer = judge(text, source, grey(*twins[:2]))
    assert fewer.preserving.failed == ("the red star has vanished",) * 4 and fewer.following.correct


def test_what_stands_in_the_place_is_the_object():
    """Unedited, the pink square could pass for the recoloured one that went astray."""
    purple, pink = (
        SceneObject("square", colour, "large", x, y) for colour, x, y in (("purple", 40, 4), ("pink", 0, 8))
    )
    text = "remove the pink square, and turn the purple square pink"
    for source in (grey(purple, pink), grey(pink, purple)):
        judged = judge(text, source, source)
        assert judged.preserving.correct
        assert judged.following.failed == ("the square is purple, not pink", "the pink square is still there")


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("text", ["remove the star", "remove the red object"])
def test_an_edit_that_does_not_fit_the_source_is_no_score(text):
    """Scoring it 0 would blame the result for the question."""
    reds = grey(RED, SceneObject("square", "red", "large", 36, 28))
    with pytest.raises(CannotEdit, match="it needs one"):
        judge(text, reds, reds)


def test_a_source_that_is_no_scene_is_refused():
    crowd = grey(*(SceneObject("ring", "red", "small", x, y) for x in (0, 20, 40) for y in (0, 20, 40)))
    with pytest.raises(CannotEdit, match="9 objects"):
        verify_edit(render(crowd), render(crowd), parse_instruction("add a pink star"))


@pytest.mark.parametrize("result", ["black", "noise", "crowd"])
def test_any_result_is_wrong_not_an_error(result):
    pixels = {
        "black": np.zeros((64, 64, 3), np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8),
        "crowd": render(grey(*(SceneObject("circle", "red", "small", x, y) for x in (0, 20, 40) for y in (0, 20, 40)))),
    }[result]
    judged = verify_edit(render(grey(RED, BLUE)), pixels, parse_instruction(MAKE_PINK))
    assert judged.following.score <= 0.49 and judged.preserving.score <= 0.49 and judged.verdict.startswith("No, ")
