"""The decoder's kernels on a GPU: how far from float64, and microseconds beside what torch has for the same.

    python benchmarks/gpu_kernels.py
    TRITON_INTERPRET=1 python benchmarks/gpu_kernels.py --small     # without a GPU: errors only, and slowly

Sizes are Janus-Pro-7B's. Times are medians of single calls with nothing of theirs in the second-level cache, which
holds what a fill before each call left there, so they are longer than inside a decoder's graph. Nothing is saved.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from janus_r1.engine import kernels
from janus_r1.engine.cache import without
from janus_r1.engine.sampling import Sampling
from janus_r1.model.matrices import coded

CALLS = 20
FLUSHED = 2**28  # bytes written before every call


@dataclass(frozen=True)
class Sizes:
    hidden: int = 4096
    inner: int = 11_008
    heads: int = 32
    capacity: int = 700
    codes: int = 16_384
    rows: tuple[int, ...] = (2, 16, 128)


SMALL = Sizes(hidden=64, inner=96, heads=2, capacity=70, codes=90, rows=(2,))


@dataclass(frozen=True)
class Case:
    """``ours`` and ``plain`` compute ``exact``; ``moved`` bytes must be read by ours."""

    name: str
    ours: Callable[[], torch.Tensor]
    plain: Callable[[], torch.Tensor]
    exact: torch.Tensor
    moved: int


def cases(sizes: Sizes, device: str, dtype: torch.dtype) -> Iterator[Case]:
    torch.manual_seed(0)
    for rows in sizes.rows:
        yield from _products(rows, sizes, device, dtype)
        for kept in (dtype, torch.float8_e4m3fn):
            yield _attention(rows, sizes, device, dtype, kept)
        yield _sampling(rows, sizes, device, dtype)


def _products(rows: int, sizes: Sizes, device: str, dtype: torch.dtype) -> Iterator[Case]:
    """In 8 bits, and whole where the decoder does not leave it to the library."""
    x = torch.randn(rows, sizes.hidden, device=device, dtype=dtype)
    weight = torch.randn(sizes.inner, sizes.hidden, device=device) / sizes.hidden**0.5
    whole, (scales, codes) = weight.to(dtype), coded(weight)
    plain = lambda: F.linear(x, whole)  # noqa: E731
    exact = x.double() @ (codes * scales[:, None].double()).T
    ours = lambda: kernels.multiply(x, codes, scales)  # noqa: E731
    yield Case(f"product in 8 bits, {rows} rows", ours, plain, exact, codes.nbytes)
    if rows <= kernels.FEW:
        exact = x.double() @ whole.double().T
        yield Case(f"product, {rows} rows", lambda: kernels.multiply(x, whole), plain, exact, whole.nbytes)


def _attention(rows: int, sizes: Sizes, device: str, dtype: torch.dtype, kept: torch.dtype) -> Case:
    heads, width, capacity = sizes.heads, sizes.hidden // sizes.heads, sizes.capacity
    qkv = torch.randn(rows, 3 * sizes.hidden, device=device, dtype=dtype)
    lengths = torch.randint(capacity // 2, capacity - 1, (rows,), device=device)
    still = torch.ones(capacity, width, device=device, dtype=dtype)  # no rotation: tests have one
    none = torch.zeros_like(still)
    cache = torch.randn(2, rows, capacity, heads, width, device=device).to(kept)
    longest = int(lengths.max()) + 1
    hidden = torch.arange(longest, device=device) > lengths[:, None]
    mask = without(hidden, dtype)[:, None, None]
    ours = lambda: kernels.attend(qkv, still, none, lengths, *cache)  # noqa: E731
    ours()  # writes the new key and value, which the others read

    def plain(precision: torch.dtype) -> torch.Tensor:
        q = qkv.view(rows, 3, heads, width)[:, 0].unsqueeze(2).to(precision)
        k, v = (part[:, :longest].to(precision).transpose(1, 2) for part in cache)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(precision)).flatten(1)

    moved = 2 * int(lengths.sum()) * sizes.hidden * kept.itemsize
    name = f"attention, {rows} rows, {str(kept).removeprefix('torch.')}"
    return Case(name, ours, lambda: plain(dtype), plain(torch.float64), moved)


def _sampling(rows: int, sizes: Sizes, device: str, dtype: torch.dtype) -> Case:
    """Log-probs of what is sampled; the plain one samples the same unless a number falls on an edge."""
    how, drawn = Sampling(5.0, 1.0, 0, 1.0), max(1, rows // 2)
    logits = torch.randn(2 * drawn, sizes.codes, device=device, dtype=dtype)
    uniform = torch.rand(drawn, 1, device=device)
    table = torch.randn(sizes.codes, sizes.hidden, device=device, dtype=dtype)
    ids = torch.zeros(drawn, 1, dtype=torch.long, device=device)
    logprobs, first = torch.zeros(drawn, 1, device=device), torch.zeros(1, dtype=torch.long, device=device)

    def ours() -> torch.Tensor:
        kernels.sample(logits, uniform, first, table, ids, logprobs, how.guidance, 1.0, 0)
        return logprobs[:, 0]

    def plain() -> torch.Tensor:
        return how.choose(logits, True, uniform[:, 0])[1]

    return Case(f"sampling, {rows} rows", ours, plain, plain().double(), logits.nbytes)


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def microseconds(call: Callable[[], torch.Tensor]) -> float:
    """The median of single calls."""
    flushed = torch.empty(FLUSHED, dtype=torch.int8, device="cuda")
    took = []
    for _ in range(CALLS):
        flushed.zero_()
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        call()
        ended.record()
        torch.cuda.synchronize()
        took.append(began.elapsed_time(ended) * 1e3)
    return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="sizes that Triton's interpreter can do")
    small = parser.parse_args().small
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    for case in cases(SMALL if small else Sizes(), device, dtype):
        errors = [error(call(), case.exact) for call in (case.ours, case.plain)]
        line = f"{case.name:<40} error {errors[0]:.1e}, plain {errors[1]:.1e}"
        if device == "cuda":
            ours, plain = microseconds(case.ours), microseconds(case.plain)
            line += f"  {ours:7.1f} us, {case.moved / ours / 1e3:5.0f} GB/s, plain {plain:7.1f} us"
        print(line, flush=True)


if __name__ == "__main__":
    main()
