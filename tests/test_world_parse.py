"""Reading prompts back: exact on every wording of the world, silent on everything else."""

from __future__ import annotations

import itertools
import random

import pytest

from janus_r1.worlds.shapes.language import JOINERS, NUMBERS, OPENINGS, RELATION_WORDS, parse, phrase, plural
from janus_r1.worlds.shapes.prompts import split, train_prompts
from janus_r1.worlds.shapes.scene import Description, Slot

RING = Slot("ring", "orange")
CROSS = Slot("cross", None, "small")


@pytest.mark.parametrize("name", ["test", "dense", "held_out"])
def test_every_prompt_of_a_split_is_read_back(name):
    for prompt in split(name):
        assert parse(prompt.text) == prompt.description, prompt.text


def test_training_prompts_are_read_back():
    for prompt in itertools.islice(train_prompts(random.Random(4)), 5000):
        assert parse(prompt.text) == prompt.description, prompt.text


@pytest.mark.parametrize("opening", OPENINGS)
def test_every_wording_under_every_opening(opening):
    for count, number in NUMBERS.items():
        expected = Description((CROSS,) * count, alike=True)
        assert parse(f"{opening}{number} {plural(CROSS)}") == expected
    for joiner in JOINERS:
        assert parse(opening + phrase(RING) + joiner + phrase(CROSS)) == Description((RING, CROSS))
    for relation, words in RELATION_WORDS.items():
        for word in words:
            expected = Description((RING, CROSS), ((0, relation, 1),))
            assert parse(f"{opening}{phrase(RING)} {word} {phrase(CROSS)}") == expected


def test_case_blanks_and_a_full_stop_do_not_matter():
    expected = Description((RING, CROSS, Slot("star")), ((0, "left of", 1), (2, "below", 1)))
    assert parse(" Draw an  orange RING to the left of a small cross , and a star\nbeneath the cross. ") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a photo of ",
        "circle",
        "red circle",
        "a red",
        "a red circle!",
        "a circle red",
        "a red circle..",
        "a scarlet circle",
        "a red dog",
        "a huge circle",
        "an red circle",
        "a photo of a photo of a circle",
        "no circle",
        "one circle",
        "three circle",
        "five circles",
        "a red circle and",
        "a red circle and a dog",
        "a red circle and a blue square on a table",
        "not a red circle and a blue square",
        "a red circle and a square and a star",
        "a circle near a square",
        "a circle left of",
        "a circle left of the square",
        "two circles left of a square",
        "a circle left of a square and a star below a ring",
        "a circle left of a square, and a star",
        "a circle left of a square, and a star below the ring",
        "a circle left of a square, and a star below the circle",
        "a square left of a square, and a star below the square",
        "a circle left of a square, and a square below the square",
        "a circle left of a square, and a star below a ring, and a heart above a cross",
        "make the red circle blue",
        "a photo of a dog left of a cat",
    ],
)
def test_other_texts_have_no_description(text):
    assert parse(text) is None
