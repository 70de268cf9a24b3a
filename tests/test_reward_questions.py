"""The endpoint reward's questions: of a long prompt, split by the judge itself, and of an edit."""

from __future__ import annotations

import json

import pytest

from endpoint_server import Endpoint, failing, grey, item, reward
from janus_r1.chain import Task
from janus_r1.rewards.score import Abstained

DOGS = [
    {"id": 7, "question": "Is there a dog?", "depends_on": []},
    {"id": 9, "question": "Is the dog black?", "depends_on": [7]},
    {"id": 4, "question": "Is the black dog asleep?", "depends_on": [9]},
    {"id": 5, "question": "Is there a moon?", "depends_on": []},
]


def answering(split, **p_yes: float):
    """Splits prompts as told; answers questions by a word in them; without one with 0.6."""

    def behave(call):
        question = call.question()
        if "logprobs" not in call.body:
            assert isinstance(call.body["messages"][0]["content"], str)
            return split(call) if callable(split) else call.say(split)
        p = next((p for word, p in p_yes.items() if word in question), 0.6)
        call.probabilities(yes=p, no=1 - p)

    return behave


@pytest.mark.parametrize(
    ("p_yes", "expected"),
    [
        ({"there a dog": 0.9, "dog black": 0.8, "asleep": 0.7, "moon": 0.4}, (0.9 + 0.8 + 0.7 + 0.4) / 4),
        ({"there a dog": 0.9, "dog black": 0.4, "asleep": 0.7, "moon": 1.0}, (0.9 + 0.4 + 0.0 + 1.0) / 4),
        ({"there a dog": 0.2, "dog black": 0.9, "asleep": 0.9, "moon": 1.0}, (0.2 + 0.0 + 0.0 + 1.0) / 4),
    ],
)
def test_a_question_counts_only_where_what_it_depends_on_holds(p_yes, expected):
    with Endpoint(answering(json.dumps(DOGS), **p_yes)) as server:
        scores = reward(server, decompose_words=3).score([item(1, "one long prompt"), item(2, "one long prompt")])
        assert len(server.calls) == 1 + 2 * 4  # the split is asked for once
        assert reward(server, decompose_words=4).score([item(1, "one long prompt")]) == [pytest.approx(0.6)]
    assert scores == pytest.approx([expected, expected])


def test_a_code_fence_is_forgiven():
    with Endpoint(answering(f"```json\n{json.dumps(DOGS[:1])}\n```", dog=0.7)) as server:
        assert reward(server, decompose_words=1).score([item()]) == [pytest.approx(0.7)]


@pytest.mark.parametrize(
    "reply",
    [
        "Sure! Here are the questions: 1. Is there a dog?",
        "[]",
        '{"id": 1, "question": "x", "depends_on": []}',
        '["Is there a dog?"]',
        '[{"id": 1, "question": "Is there a dog?"}]',
        '[{"id": 1, "question": "", "depends_on": []}]',
        '[{"id": "1", "question": "x", "depends_on": []}]',
        '[{"id": true, "question": "x", "depends_on": []}]',
        '[{"id": 1, "question": "x", "depends_on": [1]}]',
        '[{"id": 1, "question": "x", "depends_on": [2]}, {"id": 2, "question": "y", "depends_on": [1]}]',
        '[{"id": 1, "question": "x", "depends_on": []}, {"id": 1, "question": "y", "depends_on": []}]',
        json.dumps([{"id": i, "question": "x", "depends_on": []} for i in range(33)]),
        "[" * 100_000,
    ],
)
def test_a_useless_split_falls_back_to_the_whole_prompt(reply):
    with Endpoint(answering(reply)) as server:
        judge = reward(server, decompose_words=1)
        assert judge.score([item(1, "some prompt")]) == [pytest.approx(0.6)]
        judge.score([item(2, "some prompt")])
        assert len(server.calls) == 3  # the split is not asked for again: all images get the same question
        assert "some prompt" in server.calls[-1].question()
    assert sum(judge.fallbacks.values()) == 2


def test_a_split_that_cannot_be_had_abstains():
    with Endpoint(answering(failing(400))) as server:
        (score,) = reward(server, decompose_words=1).score([item()])
    assert isinstance(score, Abstained) and score.cause == "HTTP 400"


def test_one_missing_answer_makes_no_score():
    def behave(call):
        return failing(400)(call) if "moon" in call.question() else answering(json.dumps(DOGS))(call)

    with Endpoint(behave) as server:
        (score,) = reward(server, decompose_words=1).score([item()])
    assert isinstance(score, Abstained) and score.cause == "HTTP 400"


def test_an_edit_is_two_questions_about_both_images():
    edit = (Task("make the circle blue", grey(3)), grey(9))
    with Endpoint(answering("", carried=0.9, same=0.3)) as server:
        scores = reward(server, decompose_words=1).score([edit])
        scores += reward(server, edit_weights=(1.0, 0.0)).score([edit])
        for call in server.calls:
            assert [image[0, 0, 0] for image in call.images()] == [3, 9]
            assert "make the circle blue" in call.question()
    assert scores == pytest.approx([(0.5 * 0.9 + 1.0 * 0.3) / 1.5, 0.9])
