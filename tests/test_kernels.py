"""The GPU's kernels against plain torch, by Triton's interpreter, so that no GPU is needed."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")

from janus_r1.engine import kernels, token
from janus_r1.engine.decoder import Decoder
from janus_r1.engine.sampling import DRAW, SAY, uniforms
from janus_r1.model.int8 import coded

EPS = 1e-6


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, EPS)


@pytest.mark.parametrize("rows", [1, 2, 19])
def test_product_with_all_that_it_may_do(rows):
    x, norm = torch.randn(rows, 256) * 3, torch.rand(256) + 0.5
    w, residual = torch.randn(72, 256) / 16, torch.randn(rows, 72)  # 72: no multiple of a tile
    assert torch.allclose(kernels.multiply(x, w), x @ w.T, atol=1e-4)
    expected = rms(x, norm) @ w.T
    normed = partial(kernels.multiply, x, w, norm_K=norm, eps=EPS)
    assert torch.allclose(normed(), expected, atol=1e-4)
    assert torch.allclose(normed(residual_RN=residual), expected + residual, atol=1e-4)
    gate, up = expected.chunk(2, -1)
    assert torch.allclose(normed(gated=True), F.silu(gate) * up, atol=1e-4)


def test_product_by_a_matrix_in_8_bits():
    x, w = torch.randn(3, 128), torch.randn(48, 128) / 11
    scales, codes = coded(w)
    whole = codes * scales[:, None]
    assert torch.allclose(kernels.multiply(x, codes, scales), x @ whole.T, atol=1e-4)
    gate, up = (x @ whole.T).chunk(2, -1)
    assert torch.allclose(kernels.multiply(x, codes, scales, gated=True), F.silu(gate) * up, atol=1e-4)


@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize("heads, groups", [(4, 4), (4, 2)])
def test_attention_over_rows_of_any_length(heads, groups, splits):
    lengths, width, capacity = torch.tensor([0, 1, 70, 200]), 16, 201
    qkv = torch.randn(4, (heads + 2 * groups) * width)
    angles = torch.arange(capacity)[:, None] / 10 ** torch.linspace(0, 3, width // 2)
    cos, sin = angles.cos().repeat(1, 2), torch.cat([-angles.sin(), angles.sin()], -1)
    keys, values = torch.randn(2, 4, capacity, groups, width)
    before = keys.clone(), values.clone()
    found = kernels.attend(qkv, cos, sin, lengths, keys, values, splits)
    for row, length in enumerate(lengths.tolist()):
        q, k, v = qkv[row].view(-1, width).split([heads, groups, groups])
        q, k = (x * cos[length] + x.roll(width // 2, -1) * sin[length] for x in (q, k))
        for cache, old, new in zip((keys, values), before, (k, v), strict=True):
            assert torch.allclose(cache[row, length], new, atol=1e-6)
            untouched = torch.arange(capacity) != length
            assert torch.equal(cache[row, untouched], old[row, untouched])
        shown = (
            cache[row, : length + 1].transpose(0, 1).repeat_interleave(heads // groups, 0) for cache in (keys, values)
        )
        expected = F.scaled_dot_product_attention(q[:, None], *shown)
        assert torch.allclose(found[row].view(heads, width), expected[:, 0], atol=1e-5)


def test_norm_of_a_sum_and_gate():
    x, delta, norm = torch.randn(3, 100), torch.randn(3, 100), torch.rand(100) + 0.5
    assert torch.allclose(kernels.add_norm(x, None, norm, EPS), rms(x, norm), atol=1e-6)
    total = x + delta
    assert torch.allclose(kernels.add_norm(x, delta, norm, EPS), rms(total, norm), atol=1e-6)
    assert torch.equal(x, total)
    left, right = total.chunk(2, -1)
    assert torch.allclose(kernels.gate(total), F.silu(left) * right, atol=1e-6)


def test_few_rows_are_split_among_all_processors():
    assert kernels.splits_of(2, 32) == 16 and kernels.splits_of(128, 32) == 1


@pytest.mark.parametrize("few, cache", [(16, None), (0, None), (16, torch.float8_e4m3fn)])
def test_image_and_text_by_the_kernels_equal_those_without(tiny, monkeypatch, few, cache):
    """Few rows through our own products, many through the library's; keys and values whole or in 8 bits."""
    monkeypatch.setattr(token, "FEW", few)
    tiny.image_tokens, tiny.cache_dtype = 6, cache  # the interpreter is slow
    prompts = [tiny.layout.prompt(text) for text in ("a red circle", "a small blue square left of a pink heart")]
    special = tiny.layout.special
    found = []
    for with_kernels in (False, True):
        decoder = Decoder(tiny, graph=True, kernels=with_kernels)
        stream = decoder.open(prompts, [tiny.layout.unconditional(prompt) for prompt in prompts])
        drawn = decoder.draw(stream, uniforms(0, [0, 1], 0, DRAW, 6), guidance=3.0)
        said = decoder.say(decoder.fork(stream), uniforms(0, [0, 1], 0, SAY, 4), (special.yes, special.no))
        found.append((*drawn, said))
    (ids, logprobs, said), (other_ids, other_logprobs, other_said) = found
    assert torch.equal(ids, other_ids) and said.ids == other_said.ids
    tolerance = 1e-3 if cache is None else 0.05  # other sums round to other 8-bit numbers
    assert torch.allclose(logprobs, other_logprobs, atol=tolerance)
    for row, other in zip(said.logprobs, other_said.logprobs, strict=True):
        assert row == pytest.approx(other, abs=tolerance)
