"""The endpoint reward against a real server that answers, fails, stalls, lies and returns rubbish."""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest

from endpoint_server import (
    Endpoint,
    by_brightness,
    drip,
    failing,
    grey,
    hang_up,
    item,
    reward,
    score_once,
    stall,
)
from janus_r1.chain import Task
from janus_r1.errors import UserError
from janus_r1.rewards import chat as chat_module
from janus_r1.rewards.chat import Chat, Patience, retry_after
from janus_r1.rewards.score import Abstained, shown

# --------------------------------------------------------------------------------------- it works


def test_the_question_carries_image_prompt_model_and_key():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    with Endpoint(lambda call: call.probabilities(Yes=0.4, no=0.2, perhaps=0.2)) as server:
        scores = reward(server, api_key="secret").score([(Task("a {red} circle"), pixels)])
        (call,) = server.calls
    assert scores == [pytest.approx(0.4 / 0.6)]
    np.testing.assert_array_equal(call.images()[0], pixels)
    assert call.path == "/v1/chat/completions"
    assert "a {red} circle" in call.question()
    assert call.headers["Authorization"] == "Bearer secret"
    asked = {name: call.body[name] for name in ("model", "logprobs", "top_logprobs", "max_tokens", "temperature")}
    assert asked == {"model": "judge", "logprobs": True, "top_logprobs": 20, "max_tokens": 1, "temperature": 0}


def test_order_is_kept_when_the_first_answer_comes_last():
    others = threading.Semaphore(0)

    def behave(call):
        if call.images()[0][0, 0, 0] == 10:
            for _ in range(3):
                assert others.acquire(timeout=5)
            by_brightness(call)
        else:
            by_brightness(call)
            others.release()

    with Endpoint(behave) as server:
        scores = reward(server, concurrency=4).score([item(value) for value in (10, 200, 30, 120)])
    assert scores == pytest.approx([10 / 255, 200 / 255, 30 / 255, 120 / 255])


def test_as_many_questions_at_once_as_allowed_and_no_more():
    """The barrier opens only for three at a time; the count must never be four."""
    barrier, lock, running, most = threading.Barrier(3), threading.Lock(), [0], [0]

    def behave(call):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        barrier.wait(timeout=5)
        with lock:
            running[0] -= 1
        barrier.wait(timeout=5)
        by_brightness(call)

    with Endpoint(behave) as server:
        scores = reward(server, concurrency=3).score([item(value) for value in range(12)])
    assert not any(isinstance(score, Abstained) for score in scores)
    assert most == [3]


# --------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("first", [failing(500), failing(503, "<html>"), failing(429), hang_up, failing(408)])
def test_a_passing_failure_is_tried_again(first):
    assert score_once(first, first, by_brightness) == (pytest.approx(100 / 255), 3)


@pytest.mark.parametrize(
    ("behaviour", "cause", "calls"),
    [
        (failing(500, "out of memory"), "HTTP 500", 3),
        (failing(401, "bad key"), "HTTP 401", 1),
        (failing(404), "HTTP 404", 1),
        (hang_up, "no connection", 3),
        (lambda call: call.reply("{}", length=100), "no connection", 3),
        (lambda call: call.reply("<html>Welcome</html>"), "bad answer", 1),
        (lambda call: call.reply("[1]"), "bad answer", 1),
        (lambda call: call.reply("[" * 100_000), "bad answer", 1),
        (lambda call: call.reply(b"\xff\xfe\x00"), "bad answer", 1),
        (lambda call: call.reply(""), "bad answer", 1),
        (lambda call: call.reply('{"choices": []}'), "no log-probs", 1),
        (lambda call: call.reply('{"choices": "no"}'), "no log-probs", 1),
        (lambda call: call.say("Yes"), "no log-probs", 1),
        (lambda call: call.logprobs({}), "no log-probs", 1),
        (lambda call: call.reply('{"choices": [{"logprobs": {"content": null}}]}'), "no log-probs", 1),
        (lambda call: call.logprobs({"yes": float("nan"), "no": -1.0}), "impossible log-probs", 1),
        (lambda call: call.logprobs({"yes": float("inf"), "no": -1.0}), "impossible log-probs", 1),
        (lambda call: call.logprobs({"yes": 0.5}), "impossible log-probs", 1),
        (lambda call: call.logprobs({"yes": "-0.1", "no": -2.0}), "impossible log-probs", 1),
        (lambda call: call.logprobs({"yes": None}), "impossible log-probs", 1),
        (lambda call: call.logprobs({"yes": False}), "impossible log-probs", 1),
        (lambda call: call.logprobs({"yes": -0.1, "no": -0.1}), "impossible log-probs", 1),
        (lambda call: call.logprobs({"The": -0.01, "yes": -8.0}), "neither yes nor no", 1),
        (lambda call: call.logprobs({"yes": -9999.0, "no": float("-inf")}), "neither yes nor no", 1),
    ],
)
def test_a_failure_abstains_with_its_cause_and_is_never_zero(behaviour, cause, calls):
    score, made = score_once(behaviour)
    assert isinstance(score, Abstained)
    assert (score.cause, made) == (cause, calls)


@pytest.mark.parametrize("behaviour", [stall, drip])
def test_a_server_that_never_finishes_is_left(behaviour):
    patience = Patience(tries=2, timeout_s=0.1, backoff_s=0.001)
    assert score_once(behaviour, patience=patience) == (Abstained("timed out"), 2)


def test_all_spellings_count():
    score, _ = score_once(
        lambda call: call.probabilities(**{"Yes": 0.3, " yes": 0.2, "YES": 0.1, "No": 0.1, "no": 0.1})
    )
    assert score == pytest.approx(0.6 / 0.8)


def test_minus_infinity_is_a_probability_of_zero():
    assert score_once(lambda call: call.logprobs({"Yes": -0.1, "No": float("-inf")})) == (1.0, 1)
    assert score_once(lambda call: call.logprobs({"Yes": -(10**400), "No": -0.1})) == (0.0, 1)


def test_nobody_listening():
    with Endpoint(by_brightness) as server:
        pass
    (score,) = reward(server).score([item()])
    assert isinstance(score, Abstained) and score.cause == "no connection"


def test_an_endless_answer_is_cut(monkeypatch):
    monkeypatch.setattr(chat_module, "MAX_ANSWER_BYTES", 1000)
    score, _ = score_once(lambda call: call.reply(b" " * 200_000))
    assert score == Abstained("bad answer: too long")


def test_the_key_goes_to_no_other_address_and_into_no_message():
    with Endpoint(by_brightness) as other:
        score, _ = score_once(failing(302, Location=other.url + "/chat/completions"), api_key="secret")
        assert isinstance(score, Abstained) and score.cause == "HTTP 302"
        assert not other.calls
    score, _ = score_once(failing(401, "wrong key: secret"), api_key="secret")
    assert score == Abstained("HTTP 401: wrong key: ***")


def test_one_item_that_fails_does_not_take_the_others_along():
    def behave(call):
        failing(400)(call) if call.images()[0][0, 0, 0] == 2 else by_brightness(call)

    with Endpoint(behave) as server:
        scores = reward(server).score([item(1), item(2), item(3)])
    assert [isinstance(score, Abstained) for score in scores] == [False, True, False]


def test_a_batch_has_a_time_limit():
    with Endpoint(stall) as server:
        scores = reward(server, concurrency=1, batch_s=0.2).score([item(value) for value in range(5)])
        assert len(server.calls) == 1
    assert {score.cause for score in scores} == {"timed out", "out of time"}


# ---------------------------------------------------------------------------------------- waiting


@pytest.fixture
def waits(monkeypatch):
    """Sleeps are noted, not slept."""
    noted = []
    monkeypatch.setattr(chat_module.time, "sleep", noted.append)
    return noted


def test_waits_double_and_vary(waits):
    score_once(failing(500), patience=Patience(tries=5, backoff_s=1.0, longest_wait_s=5.0))
    assert all(0.5 * 2**n <= wait <= min(5.0, 1.5 * 2**n) for n, wait in enumerate(waits))
    assert len(waits) == 4 and waits[:3] != [1.0, 2.0, 4.0]


def test_retry_after_is_honoured(waits):
    assert score_once(failing(429, Retry_After="7"), by_brightness) == (pytest.approx(100 / 255), 2)
    assert waits == [7.0]


def test_a_wait_that_is_too_long_is_given_up(waits):
    score, calls = score_once(failing(429, Retry_After="3600"), by_brightness)
    assert score == Abstained("HTTP 429: the server asks to wait for 3600 s")
    assert (calls, waits) == (1, [])


def test_retry_after_in_all_its_forms():
    assert retry_after("2.5") == 2.5
    assert retry_after("-3") == 0.0
    assert [retry_after(v) for v in (None, "", "soon", "nan", "inf")] == [None] * 5
    later = datetime.now(UTC) + timedelta(hours=1)
    assert 3500 < retry_after(format_datetime(later, usegmt=True)) <= 3600
    assert retry_after("Sun, 06 Nov 1994 08:49:37 GMT") == 0.0


def test_waiting_leaves_the_seeded_random_numbers_alone(waits):
    random.seed(3)
    before = random.getstate()
    score_once(failing(500))
    assert random.getstate() == before


# ------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://", "http://a b/v1", "http://host:x/v1", ""])
def test_an_address_that_is_none(url):
    with pytest.raises(UserError, match="http://localhost:8000/v1"):
        Chat(url, "judge")


def test_a_key_that_no_header_carries_is_not_shown():
    with pytest.raises(UserError) as caught:
        Chat("http://localhost/v1", "judge", "sec\nret")
    assert "sec" not in str(caught.value).replace("API", "")


def test_the_address_may_name_the_whole_path():
    paths = {Chat(f"http://h/v1{end}", "m").url for end in ("", "/", "/chat/completions", "/chat/completions/")}
    assert paths == {"http://h/v1/chat/completions"}


def test_other_pixels_are_refused():
    for bad in (np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(UserError, match="uint8"):
            Task("a circle", bad)
        with pytest.raises(UserError, match="uint8"):
            shown((Task("a circle", grey(1)), bad))
