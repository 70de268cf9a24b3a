"""The endpoint reward's cache: what is asked once, what is kept, what is not believed."""

from __future__ import annotations

import json

import pytest

from endpoint_server import QUICK, Endpoint, by_brightness, failing, grey, item, reward
from janus_r1.chain import Task
from janus_r1.errors import UserError
from janus_r1.rewards.cache import Cache, key
from janus_r1.rewards.chat import Chat
from janus_r1.rewards.endpoint import EndpointReward
from janus_r1.rewards.score import Abstained


def test_equal_questions_are_asked_once():
    with Endpoint(by_brightness) as server:
        judge = reward(server)
        assert judge.score([item(50), item(60), item(50)]) == judge.score([item(50), item(60), item(50)])
        assert len(server.calls) == 2
        judge.score([item(50, "another prompt"), (Task("a red circle"), grey(50, side=5))])
        assert len(server.calls) == 4


def test_a_file_keeps_answers_for_the_next_run(tmp_path):
    file = tmp_path / "deep" / "answers.sqlite"
    with Endpoint(by_brightness) as server:
        first = reward(server, cache=Cache(file)).score([item()])
        assert reward(server, cache=Cache(file)).score([item()]) == first
        assert len(server.calls) == 1
        other = EndpointReward(Chat(server.url, "another judge", None, QUICK), Cache(file))
        other.score([item()])
        assert len(server.calls) == 2


def test_a_failure_is_not_remembered():
    with Endpoint(failing(400), by_brightness) as server:
        judge = reward(server)
        assert isinstance(judge.score([item()])[0], Abstained)
        assert judge.score([item()]) == [pytest.approx(100 / 255)]


def test_nonsense_in_the_cache_is_asked_again():
    cache = Cache()
    with Endpoint(by_brightness) as server:
        reward(server, cache=cache).score([item()])
        for nonsense in (7.5, "0.5", None, [0.5], float("nan")):
            cache._run("UPDATE answers SET value = ?", json.dumps(nonsense))
            assert reward(server, cache=cache).score([item()]) == [pytest.approx(100 / 255)]
        assert len(server.calls) == 6


def test_the_cache_drops_the_oldest_and_refuses_other_files(tmp_path):
    cache = Cache(limit=10)
    for number in range(25):
        cache.put(str(number), number)
    assert cache.get("24") == 24 and cache.get("0") is None
    assert sum(cache.get(str(number)) is not None for number in range(25)) <= 10
    (tmp_path / "notes.txt").write_text("not a database, but long enough to look at " * 50)
    with pytest.raises(UserError, match=r"notes\.txt"):
        Cache(tmp_path / "notes.txt")


def test_borders_between_parts_of_a_key_count():
    assert key("ab", "c") != key("a", "bc")
