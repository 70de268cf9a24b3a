"""Odd inputs of every kind, seeded; ``python tests/fuzz.py`` runs thousands of others."""

from __future__ import annotations

import time

import pytest

import fuzz
from fuzz_inputs import Case


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    with fuzz.ground(tmp_path_factory.mktemp("ground")) as made:
        yield made


@pytest.mark.parametrize("kind", list(fuzz.KINDS))
def test_odd_inputs_end_in_one_clear_line(kind, ground):
    bad = fuzz.run_cases(16, 0, ground, [kind])
    assert not bad, "\n".join(bad)


def test_a_case_that_is_met_badly_is_noticed(ground, monkeypatch):
    """The checker itself: an accepted mistake, a foreign file touched, a traceback, a hang."""

    def kind(call):
        return lambda rng, here, ground: Case(["data", "splits"], call=call and (lambda: call(here)))

    badly = {
        "accepted": None,
        "a foreign file was touched": lambda here: (here / "theirs" / "new").touch(),
        "escaped": lambda here: 1 / 0,
        "over 1 s": lambda here: time.sleep(3),
        "code that a file brought was run": lambda here: (here / "ran").touch(),
    }
    monkeypatch.setattr(fuzz, "KINDS", {name: kind(call) for name, call in badly.items()})
    for name in badly:
        monkeypatch.setattr(fuzz, "SECONDS", 1 if name == "over 1 s" else 60)
        assert name in fuzz.run_case(name, "0", ground)[1], name


def test_what_is_left_and_what_is_printed_is_looked_at(ground, monkeypatch):
    def leaves(rng, here, ground):
        return Case(["x"], wrong=False, call=lambda: (here / ".model.3.tmp").mkdir())

    def prints(rng, here, ground):
        return Case(["x", "--json"], wrong=False, call=lambda: print('{"p_yes": NaN}'))

    monkeypatch.setattr(fuzz, "KINDS", {"left behind": leaves, "NaN in JSON": prints})
    for name in fuzz.KINDS:
        assert name in fuzz.run_case(name, "0", ground)[1]
