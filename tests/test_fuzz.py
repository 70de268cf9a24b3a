"""Odd inputs of every kind, seeded; ``python tests/fuzz.py`` runs thousands of others."""

from __future__ import annotations

import pytest

import fuzz


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return fuzz.make_ground(tmp_path_factory.mktemp("ground"))


@pytest.mark.parametrize("kind", list(fuzz.KINDS))
def test_odd_inputs_end_in_one_clear_line(kind, ground):
    bad = fuzz.run_cases(16, 0, ground, [kind])
    assert not bad, "\n".join(bad)


def test_a_case_that_is_met_badly_is_noticed(tmp_path, ground, monkeypatch):
    """The checker itself: an accepted mistake, a foreign file touched, a traceback."""

    def harmless(rng, here, ground):
        return fuzz.Case(["data", "splits"])

    def raising(rng, here, ground):
        monkeypatch.setattr("janus_r1.cli.parser.read", lambda *_: 1 / 0, raising=False)
        (here / "theirs" / "new").touch()
        return fuzz.Case(["data", "splits"])

    monkeypatch.setattr(fuzz, "KINDS", {"harmless": harmless, "raising": raising})
    assert fuzz.run_case("harmless", "0", ground)[1] == "accepted"
    assert fuzz.run_case("raising", "0", ground)[1]
