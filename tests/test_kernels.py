"""The GPU's kernels against plain torch, by Triton's interpreter, so that no GPU is needed."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")

from janus_r1.engine import kernels
from janus_r1.engine.decoder import Decoder
from janus_r1.engine.graph import Sampling
from janus_r1.engine.sampling import DRAW, SAY, uniforms
from janus_r1.model.int8 import coded

EPS = 1e-6


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, EPS)


@pytest.mark.parametrize("rows", [1, 2])
def test_product_with_all_that_it_may_do(rows):
    x, norm = torch.randn(rows, 1100) * 3, torch.rand(1100) + 0.5
    w, residual = torch.randn(70, 1100) / 33, torch.randn(rows, 70)  # neither is a multiple of a tile
    assert torch.allclose(kernels.stream(x, w), x @ w.T, atol=1e-4)
    expected = rms(x, norm) @ w.T
    normed = partial(kernels.stream, x, w, norm_K=norm, eps=EPS)
    assert torch.allclose(normed(), expected, atol=1e-4)
    assert torch.allclose(normed(residual_RN=residual), expected + residual, atol=1e-4)
    gate, up = expected.chunk(2, -1)
    assert torch.allclose(normed(gated=True), F.silu(gate) * up, atol=1e-4)


def test_product_by_a_matrix_in_8_bits():
    x, w = torch.randn(70, 128), torch.randn(48, 128) / 11
    scales, codes = coded(w)
    expected = x @ (codes * scales[:, None]).T
    assert torch.allclose(kernels.stream(x[:2], codes, scales), expected[:2], atol=1e-4)
    gate, up = expected[:2].chunk(2, -1)
    assert torch.allclose(kernels.stream(x[:2], codes, scales, gated=True), F.silu(gate) * up, atol=1e-4)
    for rows in (3, 70):
        assert torch.allclose(kernels.multiply_coded(x[:rows], codes, scales), expected[:rows], atol=1e-4)


@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize("heads, groups", [(4, 4), (4, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e4m3fn])
def test_attention_over_rows_of_any_length(heads, groups, splits, dtype):
    lengths, width, capacity = torch.tensor([0, 1, 70, 200]), 16, 201
    qkv = torch.randn(4, (heads + 2 * groups) * width)
    angles = torch.arange(capacity)[:, None] / 10 ** torch.linspace(0, 3, width // 2)
    cos, sin = angles.cos().repeat(1, 2), torch.cat([-angles.sin(), angles.sin()], -1)
    caches = torch.randn(2, 4, capacity, groups, width).to(dtype)
    before = caches.float()
    found = kernels.attend(qkv, cos, sin, lengths, *caches, splits)
    after = caches.float()
    for row, length in enumerate(lengths.tolist()):
        q, k, v = qkv[row].view(-1, width).split([heads, groups, groups])
        q, k = (x * cos[length] + x.roll(width // 2, -1) * sin[length] for x in (q, k))
        if dtype == torch.float32:  # the interpreter rounds 1.97 to 1 in 8 bits, a GPU does not
            assert torch.allclose(after[:, row, length], torch.stack([k, v]), atol=1e-6)
        untouched = torch.arange(capacity) != length
        assert torch.equal(after[:, row, untouched], before[:, row, untouched])
        shown = (cache[: length + 1].transpose(0, 1) for cache in after[:, row])
        expected = F.scaled_dot_product_attention(q[:, None], *shown, enable_gqa=True)
        assert torch.allclose(
            found[row].view(heads, width), expected[:, 0], atol=1e-5 if dtype == torch.float32 else 2e-3
        )


def test_norm_of_a_sum_and_gate():
    x, delta, norm = torch.randn(3, 100), torch.randn(3, 100), torch.rand(100) + 0.5
    assert torch.allclose(kernels.add_norm(x, None, norm, EPS), rms(x, norm), atol=1e-6)
    total = x + delta
    assert torch.allclose(kernels.add_norm(x, delta, norm, EPS), rms(total, norm), atol=1e-6)
    assert torch.equal(x, total)
    left, right = total.chunk(2, -1)
    assert torch.allclose(kernels.gate(total), F.silu(left) * right, atol=1e-6)


@pytest.mark.parametrize("guidance", [None, 3.0])
@pytest.mark.parametrize("top_k", [0, 1, 7])
def test_sampling_equals_the_plain_one(guidance, top_k):
    rows, codes, how = 4, 90, Sampling(guidance or 1.0, 0.7, top_k, 1.0)
    logits = (torch.randn(rows * (2 if guidance else 1), codes) * 3).round(decimals=1)  # with equal ones among them
    uniform, table = torch.rand(rows, 5), torch.randn(codes, 24)
    uniform[0, 3], uniform[1, 3] = 0.0, 1 - 2**-24
    ids, logprobs = torch.zeros(rows, 5, dtype=torch.long), torch.zeros(rows, 5)
    x = kernels.sample(logits, uniform, torch.tensor([3]), table, ids, logprobs, guidance, 0.7, top_k)
    expected, expected_logprobs = how.choose(logits, guidance is not None, uniform[:, 3])
    assert torch.equal(ids[:, 3], expected) and not ids[:, :3].any()
    assert torch.allclose(logprobs[:, 3], expected_logprobs, atol=1e-5)
    assert torch.equal(x, table[expected].repeat(2 if guidance else 1, 1))


def test_few_rows_are_split_among_all_processors():
    assert kernels.splits_of(2, 32) == 8 and kernels.splits_of(128, 32) == 1


@pytest.mark.parametrize("prompts", [1, 2])
def test_image_and_text_by_the_kernels_equal_those_without(tiny, prompts):
    """A pair of rows through our own products, more through the library's."""
    tiny.image_tokens = 4  # the interpreter is slow
    texts = ["a small blue square left of a pink heart", "a red circle"][:prompts]
    prompts, rows = [tiny.layout.prompt(text) for text in texts], list(range(prompts))
    special = tiny.layout.special
    found = []
    for with_kernels in (False, True):
        decoder = Decoder(tiny, graph=True, kernels=with_kernels)
        stream = decoder.open(prompts, [tiny.layout.unconditional(prompt) for prompt in prompts])
        drawn = decoder.draw(stream, uniforms(0, rows, 0, DRAW, 4), guidance=3.0)
        said = decoder.say(decoder.fork(stream), uniforms(0, rows, 0, SAY, 3), (special.yes, special.no))
        found.append((*drawn, said))
    (ids, logprobs, said), (other_ids, other_logprobs, other_said) = found
    assert torch.equal(ids, other_ids) and said.ids == other_said.ids
    assert torch.allclose(logprobs, other_logprobs, atol=1e-3)
    for row, other in zip(said.logprobs, other_said.logprobs, strict=True):
        assert row == pytest.approx(other, abs=1e-3)
