"""Several tokens a forward: the text that one by one gives, whatever is guessed."""

from __future__ import annotations

import pytest
import torch

from janus_r1.chain import Settings, Task
from janus_r1.engine.decoder import Decoder
from janus_r1.engine.phrases import FAR, SAMPLED, Phrases, Speaker
from janus_r1.engine.sampling import LIST, uniforms
from janus_r1.introspect import introspect
from janus_r1.model.loading import load
from janus_r1.segments import Text
from janus_r1.worlds.shapes.prompts import split

PROMPTS = ["a red circle", "a small blue square left of a large pink heart, and a star above a ring", "two rings"]


@pytest.fixture(scope="module")
def repairing():
    return load("tiny-repair")


def said(decoder, width, rows=3, limit=24, **how):
    """A text behind each prompt, forwards it took, and what the stream feeds next."""
    layout = decoder.model.layout
    stream = decoder.open([(layout.prompt(PROMPTS[i % 3]), layout.self_check) for i in range(rows)])
    before = decoder.text_forwards
    found = decoder.say(stream, uniforms(3, list(range(rows)), 0, LIST, limit), width=width, **how)
    forwards, lengths = decoder.text_forwards - before, stream.lengths
    decoder.feed(stream, [(Text(ids[-1:]), layout.regenerate) for ids in found.ids])
    return found, forwards, lengths, stream.last


@pytest.mark.parametrize("rows", [1, 3, 5])
@pytest.mark.parametrize("how", [{}, {"temperature": 0.0}, {"temperature": 1.3, "top_k": 20}], ids=str)
def test_texts_are_those_of_one_by_one(repairing, how, rows):
    decoder = Decoder(repairing)
    one, forwards, lengths, last = said(decoder, 1, rows, **how)
    for width in (2, 7, 16, 16):  # the last has heard it all
        other, fewer, other_lengths, other_last = said(decoder, width, rows, **how)
        assert other.ids == one.ids and other_lengths == lengths
        for scores, expected in zip(other.logprobs, one.logprobs, strict=True):
            torch.testing.assert_close(torch.tensor(scores), torch.tensor(expected), atol=2e-3, rtol=1e-3)
        assert torch.equal(other.first_probs, one.first_probs)
        torch.testing.assert_close(other_last, last, atol=2e-3, rtol=1e-3)
    assert fewer < forwards / 2, "what was heard is not guessed"
    assert rows > 1 or fewer <= 2  # of 23 tokens 16 a forward: nobody else has spoken


def test_a_text_ends_where_it_does_one_by_one(repairing):
    """At a stop that a right guess stands behind, at the limit, and with its first token."""
    decoder = Decoder(repairing)
    whole = said(decoder, 1, 1, limit=12)[0].ids[0]
    for stop in (whole[0], whole[5], whole[-1]):
        for width in (1, 9):
            ids = said(decoder, width, 1, limit=12, stop=stop)[0].ids[0]
            assert ids == whole[: whole.index(stop) + 1]
    assert [len(said(decoder, width, 1, limit=1)[0].ids[0]) for width in (1, 9)] == [1, 1]


def test_near_the_last_position_it_is_said_one_by_one(repairing, monkeypatch):
    decoder = Decoder(repairing)
    longest = max(len(decoder.model.layout.prompt(prompt)) for prompt in PROMPTS) + 10
    expected = said(decoder, 8, limit=12)[0].ids
    monkeypatch.setattr(decoder.network, "limit", longest + 12 + len(decoder.model.layout.self_check))
    found, forwards, _, _ = said(decoder, 8, limit=12)
    assert found.ids == expected and forwards == max(map(len, expected)) - 1


def hear(phrases: Phrases, text: tuple[int, ...]) -> None:
    for end in range(len(text)):
        phrases.learn(text[:end], text[end])


def test_a_guess_is_how_it_went_on_before():
    phrases = Phrases()
    hear(phrases, (1, 2, 3, 4, 5, 6))
    hear(phrases, (9, 3, 4, 7))
    assert phrases.guess([1, 2, 3, 4]) == 5 and phrases.guess([8, 8, 3, 4]) == 7
    unheard = [50, 51, 52, 53, 54]
    assert phrases.guess(unheard) is None and phrases.guess(unheard, sampled=70) == 70
    hear(phrases, (20, 21, 22, 25))
    assert phrases.guess([20, 31, 32]) == 25, "how it is built, whatever the words between"


def test_the_kind_of_guess_that_was_right_is_taken():
    phrases = Phrases()
    for _ in range(40):
        hear(phrases, (1, 2, 3))
        phrases.score((SAMPLED, 0), False)
        phrases.score((SAMPLED, FAR), True)
    assert phrases.guess([1, 2], sampled=9) == 3 and phrases.guess([1, 2], sampled=9, ahead=1) == 3
    for word in range(100, 180):  # what stood behind 1, 2 is no longer what comes
        hear(phrases, (1, 2, word))
        phrases.score((SAMPLED, 0), True)
    assert phrases.guess([1, 2], sampled=9) == 9


def test_what_follows_from_right_guesses_stands():
    phrases = Phrases()
    hear(phrases, (1, 2, 3, 4, 5, 6))
    row = Speaker([1, 2], [0.0, 0.0], limit=9, stop=6)
    assert row.guesses(phrases, 8) == [3, 4, 5, 6], "no further than the end"
    assert row.guesses(phrases, 2) == [3, 4]
    row.take(phrases, [3, 4, 5], [3, 4, 1, 1], [-1.0] * 4)
    assert row.ids == [1, 2, 3, 4, 1] and row.sampled[5] == 1
    assert phrases.guess([1, 2, 3, 4]) == 1, "the row's own words are heard as they are said"
    assert row.guesses(phrases, 1) == [1], "what the last forward sampled"


@pytest.mark.parametrize("batch", [1, 4])
def test_chains_that_list_and_repair_say_and_draw_the_same(repairing, batch):
    tasks = [Task(prompt.text) for prompt in split("dense")[:4]]
    settings = Settings(rounds=3, guidance=1.5)
    one, other = (introspect(repairing, tasks, settings, max_batch=batch, window=window) for window in (1, None))
    for a, b in zip(one, other, strict=True):
        assert [(r.ids, r.verdict.ids, r.verdict.list_ids, r.repairs) for r in a.rounds] == [
            (r.ids, r.verdict.ids, r.verdict.list_ids, r.repairs) for r in b.rounds
        ]
