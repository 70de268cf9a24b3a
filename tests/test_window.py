"""Several ids a forward: the image that one by one gives, for every setting, batch and width."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from janus_r1.chain import EDIT_TEMPERATURE, Settings, Task
from janus_r1.engine import window
from janus_r1.engine.cache import FEWEST, READ, Placement
from janus_r1.engine.decoder import Decoder
from janus_r1.engine.sampling import DRAW, Sampling, uniforms
from janus_r1.model.loading import load
from janus_r1.segments import Drawn
from janus_r1.train.rollout import roll_out

PROMPTS = ["a red circle", "a small blue square left of a large pink heart, and a star above a ring", "two rings"]


@pytest.fixture(scope="module")
def trained():
    """Random weights surprise at every place; a trained model leaves something to guess."""
    return Decoder(load("tiny-sft"))


def draw(decoder, how: Sampling, width: int, prompts=PROMPTS, seed: int = 0, guess=None):
    """Ids, log-probs, and forwards it took."""
    layout = decoder.model.layout
    rows = [layout.prompt(prompt) for prompt in prompts]
    unconditional = [layout.unconditional(row) for row in rows] if how.guidance > 1 else None
    stream = decoder.open(rows, unconditional)
    uniform = uniforms(seed, list(range(len(rows))), 0, DRAW, decoder.model.image_tokens)
    before = decoder.forwards
    settings = (how.guidance, how.temperature, how.top_k, how.top_p)
    ids, logprobs = decoder.draw(stream, uniform, *settings, width=width, guess=guess)
    assert stream.lengths == [len(row) + decoder.model.image_tokens - 1 for row in rows]
    return ids, logprobs, decoder.forwards - before


SETTINGS = [
    Sampling(),
    Sampling(guidance=1.5),
    Sampling(guidance=5.0, top_k=40),
    Sampling(guidance=1.5, top_p=0.9, temperature=0.7),
    Sampling(guidance=3.0, temperature=0.0),
    Sampling(guidance=1.5, temperature=1.4),
]


@pytest.mark.parametrize("how", SETTINGS, ids=str)
@pytest.mark.parametrize("width", [2, 7, 16])
def test_ids_and_logprobs_are_those_of_one_by_one(trained, how, width):
    ids, logprobs, forwards = draw(trained, how, width)
    expected, expected_logprobs, all_forwards = draw(trained, how, 1)
    assert torch.equal(ids, expected)
    torch.testing.assert_close(logprobs, expected_logprobs, atol=2e-3, rtol=1e-3)
    assert forwards < all_forwards == 63, "nothing was guessed right"


def test_a_surprised_model_draws_the_same_too(tiny):
    """Random weights: almost no guess is right, and every row is at its own place."""
    decoder = Decoder(tiny)
    for how in SETTINGS[:4]:
        assert torch.equal(draw(decoder, how, 5)[0], draw(decoder, how, 1)[0]), how


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_all_widths_give_the_same_bits(trained, rows):
    """In float32 on a CPU: log-probs as well, to the last bit."""
    how, prompts = SETTINGS[1], [PROMPTS[i % 3] for i in range(rows)]
    ids, logprobs, _ = draw(trained, how, 4, prompts)
    for width in (2, 3, 9, 16):
        again, scores, _ = draw(trained, how, width, prompts)
        assert torch.equal(again, ids) and torch.equal(scores, logprobs), width
    alone = draw(trained, how, 8, prompts[:1])
    assert torch.equal(alone[0][0], ids[0]), "a row's image does not depend on its batch"


def test_a_good_guess_saves_forwards_and_a_bad_one_costs_no_truth(trained):
    how = Sampling(guidance=1.5, temperature=EDIT_TEMPERATURE)
    expected, _, _ = draw(trained, how, 1)
    known = draw(trained, how, 16, guess=expected)
    assert torch.equal(known[0], expected) and known[2] == 4  # 63 ids behind the first, 16 a forward
    wrong = draw(trained, how, 16, guess=(expected + 1) % trained.model.codes)
    assert torch.equal(wrong[0], expected) and wrong[2] > 10


def test_the_stream_goes_on_as_after_one_by_one(trained):
    """The cache holds the image: rows leave, and another image follows."""
    layout, found = trained.model.layout, []
    uniform = uniforms(1, [0, 1, 2], 0, DRAW, 64)
    for width in (1, 6):
        rows = [layout.prompt(prompt) for prompt in PROMPTS]
        stream = trained.open(rows, [layout.unconditional(row) for row in rows])
        first, _ = trained.draw(stream, uniform, 1.5, width=width)
        trained.keep(stream, [2, 0])
        trained.feed(stream, [(Drawn((int(first[row, -1]),)), layout.self_check, layout.regenerate) for row in (2, 0)])
        after = stream.last.clone()
        found.append((first, after, trained.draw(stream, uniform[[2, 0]], 1.5, width=width)[0]))
    (first, after, second), (first_, after_, second_) = found
    assert torch.equal(first, first_) and torch.equal(second, second_)
    torch.testing.assert_close(after, after_, atol=1e-3, rtol=1e-3)


def test_a_chain_that_ends_at_the_last_position_is_drawn_one_by_one(trained, monkeypatch):
    monkeypatch.setattr(trained.network, "limit", 64 + max(len(trained.model.layout.prompt(p)) for p in PROMPTS))
    ids, _, forwards = draw(trained, SETTINGS[1], 8)
    assert forwards == 63 and ids.shape == (3, 64)


def test_wider_windows_for_fewer_rows():
    like = torch.zeros(1)
    widths = [window.width_for(rows, False, like) for rows in (1, 2, 4, 8, 64)]
    assert widths == sorted(widths, reverse=True) and widths[0] > 1 and widths[-1] == 1
    assert window.width_for(8, True, like) > window.width_for(8, False, like) == 1
    assert window.width_for(1, True, like.bfloat16()) == 1, "other roundings would draw other images"


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="no vector unit")
@torch.inference_mode()
def test_what_steady_attention_and_products_stand_on(trained):
    """Rows of a product from four on, and queries over a multiple of READ positions: the same bits."""
    torch.manual_seed(0)
    matrix = trained.network.layers[0].qkv
    x = torch.randn(40, matrix.shape[1])
    whole = F.linear(x, matrix)
    for rows in (FEWEST, 5, 16, 33):
        assert torch.equal(F.linear(x[:rows], matrix), whole[:rows])
    cache = trained.network.cache(3, 2 * READ)
    cache.lengths = [11, 40, 57]
    x = torch.randn(3, 9, trained.network.norm.shape[0])
    whole = trained.network.forward(cache, x, Placement.steady(cache, 9, x))
    for new in (2, 4, 7):
        part = trained.network.forward(cache, x[:, :new], Placement.steady(cache, new, x))
        assert torch.equal(part, whole[:, :new])
    one = cache.copy([1])
    assert torch.equal(trained.network.forward(one, x[1:2], Placement.steady(one, 9, x)), whole[1:2])


class Brightness:
    """A reward that any difference of a pixel moves."""

    name = "brightness"

    def score(self, items):
        return [float(pixels.mean()) / 255 for _, pixels in items]


@pytest.mark.parametrize("name", ["tiny-r1", "tiny-repair"])
def test_reinforcement_learning_trains_on_the_log_probs_of_one_by_one(name):
    """Rollouts of windows: the same chains and rewards, log-probs of pictures and texts as one by one has them."""
    model, settings = load(name), Settings(rounds=2, guidance=1.5, text_temperature=1.0)
    tasks, reward = [Task("a red circle left of a blue square"), Task("two pink rings")], Brightness()
    one, other = (roll_out(model, tasks, 2, settings, reward, max_batch=2, window=window) for window in (1, None))
    pairs = [
        pair for a, b in zip(one.groups, other.groups, strict=True) for pair in zip(a.chains, b.chains, strict=True)
    ]
    assert len(pairs) == 4 and [group.rewards for group in one.groups] == [group.rewards for group in other.groups]
    for a, b in ((x, y) for pair in pairs for x, y in zip(*(chain.rounds for chain in pair), strict=True)):
        assert (a.ids, a.verdict.ids, a.verdict.list_ids) == (b.ids, b.verdict.ids, b.verdict.list_ids)
        for scores, expected in (
            (b.logprobs, a.logprobs),
            (b.verdict.logprobs, a.verdict.logprobs),
            (b.verdict.list_logprobs, a.verdict.list_logprobs),
        ):
            torch.testing.assert_close(torch.tensor(scores), torch.tensor(expected), atol=1e-3, rtol=1e-4)
