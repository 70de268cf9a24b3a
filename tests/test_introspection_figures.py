"""True reasons, marks, repairs and variety, on chains made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from janus_r1.chain import Chain, Round, Settings, Verdict
from janus_r1.eval.statistics import Rows
from janus_r1.eval.world import observed, variety
from janus_r1.worlds.base import WorldTask, world
from janus_r1.worlds.shapes.scene import Scene, SceneObject, render
from janus_r1.worlds.shapes.verifier import purity

TEXT = "a red circle left of a blue star"
RIGHT = (SceneObject("circle", "red", "small", 4, 8), SceneObject("star", "blue", "small", 40, 8))
PINK = (SceneObject("circle", "pink", "small", 4, 8), RIGHT[1])
BOTH = (SceneObject("circle", "pink", "small", 4, 8), SceneObject("star", "white", "small", 40, 8))
SHIFTED = (RIGHT[0], SceneObject("star", "blue", "small", 40, 40))
TRUE_LIST = "small pink circle @34: red circle No, small blue star @C4: blue star Yes, circle left of star: left of Yes"


def drawn(objects, text: str, listing: str = "", repairs: int | None = None) -> Round:
    verdict = Verdict(text.startswith("Yes"), text, 0.5, listing=listing)
    return Round((1,), render(Scene("black", objects)), verdict, (), repairs)


def figures(*chains: tuple[Round, ...]):
    """As ``eval world`` makes figures of what the world observes; every chain is of a prompt of its own."""
    made = [Chain(TEXT, rounds, len(rounds) - 1, Settings()) for rounds in chains]
    rows = Rows(np.arange(len(made)), np.array(["position"] * len(made)))
    return observed(world("shapes"), rows, [WorldTask(TEXT)] * len(made), made)


def mean(figure) -> tuple[float, int]:
    return figure["mean"], figure["n"]


def test_reasons_are_true_when_what_they_ask_for_mends():
    reasons = figures(
        (drawn(PINK, "No, make the pink circle red."),),  # true
        (drawn(PINK, "No, make the blue star red."),),  # mends nothing
        (drawn(PINK, "No, make the green ring red."),),  # there is none
        (drawn(RIGHT, "No, make the red circle blue."),),  # nothing was wrong
        (drawn(PINK, "No, the circle is pink, not red."),),  # the paper's words, true
        (drawn(PINK, "No, draw it again.", TRUE_LIST),),  # the list names the fault
        (drawn(PINK, "Yes."),),
    )["reasons"]
    assert mean(reasons["true"]) == (pytest.approx(3 / 6), 6)
    assert mean(reasons["instruction"]) == (pytest.approx(1 / 6), 6)


def test_marks_are_compared_with_the_truth_one_by_one():
    claims = figures(
        (drawn(PINK, "No", TRUE_LIST),),
        (
            drawn(
                PINK,
                "No",
                "small red circle: red circle Yes, small blue star: star Yes, circle left of star: left of No",
            ),
        ),
        (drawn(PINK, "No", "small pink circle: red circle No"),),  # two were not made
        (drawn(PINK, "No"),),  # no list at all, as in the paper
    )["claims"]
    assert mean(claims["accuracy"]) == (pytest.approx((3 + 1 + 1) / 9), 9)


def test_repairs_are_followed_from_the_draft_that_they_mend():
    repair = figures(
        (drawn(PINK, "No, make the pink circle red."), drawn(RIGHT, "Yes.", repairs=0)),
        (drawn(BOTH, "No, make the pink circle red."), drawn(PINK, "No", repairs=0), drawn(BOTH, "No", repairs=1)),
        (drawn(RIGHT, "No, make the red circle pink."), drawn(PINK, "Yes.", repairs=0)),
        (drawn(PINK, "Yes."),),
    )["repair"]
    # Of the three repairs of a wrong draft the first makes it right, the second mends one fact, the third breaks one.
    assert mean(repair["fixed"]) == (pytest.approx(1 / 3), 3)
    assert mean(repair["improved"]) == (pytest.approx(2 / 3), 3)
    assert mean(repair["worse"]) == (pytest.approx(1 / 3), 3)
    # Right and not meant: the star of the first, of PINK -> BOTH (lost), and of RIGHT -> PINK.
    assert mean(repair["kept"]) == (pytest.approx(2 / 3), 3)


def test_an_object_that_moved_has_not_stayed():
    repair = figures((drawn(RIGHT, "No, add a white ring."), drawn(SHIFTED, "No", repairs=0)))["repair"]
    assert mean(repair["kept"]) == (pytest.approx(1 / 2), 2)
    assert repair["fixed"] is None and repair["improved"] is None


def test_an_object_of_two_colours_is_right_and_not_pure():
    pixels = render(Scene("black", RIGHT)).copy()
    assert purity(pixels) == 1.0
    pixels[8:15, 4:12][pixels[8:15, 4:12].max(-1) > 100] = (140, 40, 180)  # the circle's upper part turns purple
    assert 0.4 < purity(pixels) < 0.9
    spoilt = Round((1,), pixels, Verdict(True, "Yes.", 0.9), ())
    final = figures((drawn(RIGHT, "Yes."),), (spoilt,), (drawn(PINK, "Yes."),))["final"]
    assert mean(final["pure"]) == (0.5, 2)  # the wrong one does not count


def test_without_cases_there_is_no_figure():
    made = figures((drawn(RIGHT, "Yes."),))
    assert made["reasons"]["true"] is None and made["claims"]["accuracy"] is None and made["repair"]["kept"] is None


def test_variety_counts_distinct_pictures_and_how_far_they_differ():
    black, grey = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 30, np.uint8)
    made = variety([[black, black, grey, black], [black, grey, grey, grey]])
    assert mean(made["distinct"]) == (0.5, 2)
    assert mean(made["distance"]) == (pytest.approx(15.0), 2)
