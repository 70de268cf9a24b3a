"""The record of a chain: what its parts say of themselves."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from janus_r1.chain import Chain, Round, Settings, Verdict, load_chain, standing
from janus_r1.errors import UserError


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("No, the ring is red.", "the ring is red"),
        ("Yes, the image matches the prompt.", "the image matches the prompt"),
        ("No", ""),
        ("the ring", "the ring"),
    ],
)
def test_a_reason_is_what_follows_the_word(text, reason):
    assert Verdict(text.startswith("Yes"), text, 0.5).reason == reason


def test_settings_are_picked_from_whatever_holds_them():
    options = Namespace(guidance=3.0, rounds=2, out="runs/x", json=True)
    assert Settings.among(vars(options)) == Settings(guidance=3.0, rounds=2)
    with pytest.raises(UserError, match="rounds must be at least 1"):
        Settings.among({"rounds": 0})


def a_chain() -> Chain:
    verdict = Verdict(True, "Yes", 0.75, (7, 8), (-0.5, -0.25))
    rounds = tuple(Round((1, 2), np.full((64, 64, 3), 9 * k, np.uint8), verdict, (-1.0, -2.0)) for k in range(2))
    return Chain("a ring", rounds, 1, Settings(rounds=2), 3)


def test_a_chain_is_what_was_saved(tmp_path):
    a_chain().save(tmp_path / "c")
    again = load_chain(tmp_path / "c")
    assert [replace(r, pixels=None) for r in again.rounds] == [replace(r, pixels=None) for r in a_chain().rounds]
    assert (again.prompt, again.final, again.settings, again.row) == ("a ring", 1, Settings(rounds=2), 3)
    assert (again.pixels == a_chain().pixels).all()


ODD = [None, "", "x", -1, 99, 1e300, True, [], {}, [[]], "../../../etc/hostname", "\x00", float("nan")]


def test_a_damaged_record_is_one_clear_line(tmp_path):
    """Every value of chain.json in turn becomes odd: a chain comes back whole, or a UserError, and nothing else."""
    a_chain().save(tmp_path / "c")
    path = tmp_path / "c" / "chain.json"
    whole = json.loads(path.read_text())
    refused = 0
    for place in places(whole):
        for odd in ODD:
            record = json.loads(json.dumps(whole))
            *way, last = place
            inner = record
            for key in way:
                inner = inner[key]
            inner[last] = odd
            path.write_text(json.dumps(record))
            try:
                chain = load_chain(tmp_path / "c")
            except UserError as error:
                refused += 1
                assert "\n" not in str(error)
            else:
                assert chain.rounds[chain.final].pixels.shape == (64, 64, 3)
                assert all(0 <= r.verdict.p_yes <= 1 and isinstance(r.verdict.text, str) for r in chain.rounds)
    assert refused > 200


def places(value, way=()):
    """The way to every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*way, key)
        yield from places(inner, (*way, key))


@pytest.mark.parametrize("change", [{"final": 99}, {"final": -1}, {"final": "0"}, {"final": True}, {"prompt": 3}])
def test_values_that_cannot_be_meant_are_refused(tmp_path, change):
    a_chain().save(tmp_path / "c")
    path = tmp_path / "c" / "chain.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match="whole chain"):
        load_chain(tmp_path / "c")


def test_no_picture_is_read_from_outside(tmp_path):
    a_chain().save(tmp_path / "c")
    a_chain().save(tmp_path / "d")
    path = tmp_path / "c" / "chain.json"
    path.write_text(path.read_text().replace('"round_1.png"', '"../d/round_1.png"'))
    with pytest.raises(UserError, match="outside"):
        load_chain(tmp_path / "c")


def test_verdicts_stand_by_their_word_then_by_their_marks_then_by_p_yes():
    ordered = [
        Verdict(True, "Yes", 0.9, listing="a red ring No, two stars No"),  # the word counts, whatever its list says
        Verdict(True, "Yes", 0.6),
        Verdict(False, "No", 0.4, listing="a red ring Yes, two stars No"),
        Verdict(False, "No", 0.1, listing="a red ring No, two stars Yes"),
        Verdict(False, "No", 0.4, listing="a red ring No, two stars No"),
    ]
    assert all(standing(better) > standing(worse) for better, worse in pairwise(ordered))
