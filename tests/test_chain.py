"""The record of a chain: what its parts say of themselves."""

from __future__ import annotations

from argparse import Namespace

import pytest

from janus_r1.chain import Settings, Verdict
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
