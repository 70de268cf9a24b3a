"""The GPU's kernels against plain torch, by Triton's interpreter, so that no GPU is needed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import gpu_kernels as benchmark
from janus_r1.engine import kernels
from janus_r1.engine.decoder import Decoder
from janus_r1.engine.sampling import DRAW, SAY, Sampling, uniforms
from janus_r1.model.matrices import coded

EPS = 1e-6


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, EPS)


@pytest.mark.parametrize("rows, outputs, inputs", [(2, 70, 300), (70, 70, 300), (3, 64, 256)])  # and whole tiles
def test_products(rows, outputs, inputs):
    x, w = torch.randn(rows, inputs), torch.randn(outputs, inputs) / inputs**0.5
    assert torch.allclose(kernels.multiply(x, w), x @ w.T, atol=1e-4)
    scales, codes = coded(w)
    assert torch.allclose(kernels.multiply(x, codes, scales), x @ (codes * scales[:, None]).T, atol=1e-4)


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


def test_image_and_text_by_the_kernels_equal_those_without(tiny):
    tiny.image_tokens = 4  # the interpreter is slow
    prompts = [tiny.layout.prompt(text) for text in ("a small blue square left of a pink heart", "a red circle")]
    rows = [0, 1]
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


def test_benchmark_compares_what_computes_the_same():
    for case in benchmark.cases(benchmark.SMALL, "cpu", torch.float32):
        assert benchmark.error(case.ours(), case.exact) < 1e-3, case.name
        loose = 0.02 if "8 bits" in case.name else 1e-5  # there the plain one has the weights before rounding
        assert benchmark.error(case.plain(), case.exact) < loose, case.name
