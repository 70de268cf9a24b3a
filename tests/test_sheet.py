"""Contact sheets: sizes, colours at known places, hard texts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import ImageColor

from janus_r1.chain import Chain, Round, Settings, Verdict
from janus_r1.segments import Source
from janus_r1.sheet import MAX_CHAINS, NO, SIDE, YES, difference, sheet


def chain(verdicts: str, prompt: str = "a red ring", text: str = "No, it is blue.", side: int = 64) -> Chain:
    """``verdicts`` such as "nny": a round a letter; the last is final."""
    pixels = np.full((side, side, 3), 90, dtype=np.uint8)
    rounds = tuple(Round((1, 2), pixels, Verdict(v == "y", text, 0.9 if v == "y" else 0.1)) for v in verdicts)
    return Chain(prompt, rounds, len(rounds) - 1, Settings())


def count(image, colour: str) -> int:
    return int((np.asarray(image) == ImageColor.getrgb(colour)).all(-1).sum())


def test_more_rounds_are_wider_and_more_chains_are_taller():
    one, three = sheet([chain("y")]), sheet([chain("nny")])
    assert three.width > one.width and three.height == pytest.approx(one.height, abs=20)
    assert sheet([chain("nny")] * 3).height > 2.5 * three.height
    assert sheet([chain("n" * 7)]).height > 1.5 * three.height, "a long chain goes on below"


def test_the_frame_of_the_final_draft_has_the_colour_of_its_verdict():
    assert count(sheet([chain("y")]), YES) > 4 * SIDE and count(sheet([chain("y")]), NO) == 0
    assert count(sheet([chain("n")]), NO) > 4 * SIDE and count(sheet([chain("n")]), YES) == 0
    both = sheet([chain("ny")])
    assert 0 < count(both, NO) < 4 * SIDE < count(both, YES)


def test_drafts_keep_their_pixels():
    assert count(sheet([chain("y")]), "#5a5a5a") == SIDE * SIDE
    assert count(sheet([chain("y", side=384)]), "#5a5a5a") == SIDE * SIDE


@pytest.mark.parametrize("text", ["", "No", "x" * 2000, "No, " + "very " * 400 + "long.", "No,\n\nline\nbreaks"])
def test_hard_texts_do_not_break_it(text):
    plain = sheet([chain("nn")])
    hard = sheet([chain("nn", prompt=text or "a", text=text)])
    assert hard.width == plain.width and hard.height < 2 * plain.height


def test_a_great_many_chains_are_cut_off():
    assert sheet([chain("y")] * (MAX_CHAINS + 9)).height == sheet([chain("y")] * (MAX_CHAINS + 1)).height


def test_an_edit_shows_its_source_and_what_changed():
    plain = chain("nny")
    pixels = np.full((64, 64, 3), 90, dtype=np.uint8)
    pixels[:32] = (10, 200, 30)
    edited = sheet([replace(plain, source=Source((1, 2), pixels))])
    assert edited.width > sheet([plain]).width
    assert count(edited, "#0ac81e") == SIDE * SIDE // 2, "the upper half of the source"
    assert count(edited, "#000000") == SIDE * SIDE // 2, "the lower half did not change"
    long = replace(chain("n" * 9), source=Source((1, 2), pixels))
    assert sheet([long]).height > 1.5 * edited.height


def test_difference_is_black_where_equal_and_brighter_the_more_changes():
    before, after = np.zeros((1, 4, 3), np.uint8), np.zeros((1, 4, 3), np.uint8)
    after[0, 1:, 1] = (20, 120, 255)
    shown = difference(before, after).astype(int)
    assert (shown[0, 0] == 0).all() and (np.diff(shown.sum(-1)[0]) > 0).all()
    assert (shown[0, 3] == 255).all() and (difference(after, before) == shown).all()


def test_a_list_stands_below_the_instruction_and_makes_the_card_taller():
    plain = chain("ny")
    verdict = Verdict(False, "No, make the ring red.", 0.2, listing="small blue ring: red ring No")
    rounds = (replace(plain.rounds[0], verdict=verdict), replace(plain.rounds[1], repairs=0))
    listed = sheet([replace(plain, rounds=rounds)])
    assert listed.height > sheet([plain]).height and listed.width == sheet([plain]).width
