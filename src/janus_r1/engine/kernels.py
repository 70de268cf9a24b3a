"""Triton kernels for one token a row on a GPU, where reading weights and cache is all that takes time.

Two kernels do a layer. :func:`multiply` streams a matrix once past a few rows, with the norm before it and the
residual sum or SiLU after it in the same pass. :func:`attend` rotates the new query and key, appends key and value
to the cache and reads each row's own length of it, no more. Sums are float32; the rest is stored as the model is.

Shapes: R rows, K inputs, N outputs, H heads, G key-value heads, E head width, S cache capacity, P positions.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

MOST_ROWS = 128  # that one pass over a matrix serves
PROGRAMS = 528  # four a multiprocessor: attention over few rows is split until there are about so many
MOST_SPLITS = 16
KEYS = 64  # cached positions a program holds at once


# ---------------------------------------------------------------------------------------------- matrices


TILES = [(16, 256, 4, 4), (16, 512, 4, 4), (32, 128, 4, 5), (32, 256, 4, 4), (64, 128, 4, 4), (128, 64, 4, 4)]
SHARED = 200 * 1024  # bytes a program may pipeline tiles through


def _configs() -> list[triton.Config]:
    """Outputs and inputs of a tile, warps, tiles under way; the fastest is found at the first call of a shape."""
    tiles = TILES if torch.cuda.is_available() else TILES[:1]  # the interpreter has nothing to find
    return [triton.Config({"BN": n, "BK": k}, num_warps=warps, num_stages=stages) for n, k, warps, stages in tiles]


def _fitting(configs: list[triton.Config], named: dict, **options) -> list[triton.Config]:
    """Those whose tiles of activations and matrix fit into shared memory."""

    def size(config: triton.Config) -> int:
        n, k = config.kwargs["BN"], config.kwargs["BK"]
        matrix = (1 + options["GATED"]) * n * k * named["w_ptr"].element_size()
        return (matrix + options["BM"] * k * named["x_ptr"].element_size()) * config.num_stages

    return [config for config in configs if size(config) <= SHARED] or [min(configs, key=size)]


@triton.autotune(
    _configs(),
    key=["BM", "N", "K", "GATED", "NORM", "CODED"],
    prune_configs_by={"early_config_prune": _fitting},
)
@triton.jit
def _multiply(
    x_ptr, w_ptr, scale_ptr, norm_ptr, residual_ptr, y_ptr, R, eps,
    N: tl.constexpr, K: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    GATED: tl.constexpr, NORM: tl.constexpr, RESIDUAL: tl.constexpr, CODED: tl.constexpr,
):  # fmt: skip
    rows = tl.arange(0, BM)
    columns = tl.program_id(0) * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK)
    known = (columns < N)[None, :]
    total = tl.zeros((BM, BN), tl.float32)
    gate = tl.zeros((BM, BN), tl.float32)
    squares = tl.zeros((BM,), tl.float32)
    w_ptrs = w_ptr + columns[None, :].to(tl.int64) * K + inner[:, None]
    for start in range(0, K, BK):
        within = (start + inner) < K
        x = tl.load(x_ptr + rows[:, None] * K + start + inner[None, :], (rows < R)[:, None] & within[None, :], 0.0)
        if NORM:
            wide = x.to(tl.float32)
            squares += tl.sum(wide * wide, 1)
            weight = tl.load(norm_ptr + start + inner, within, 0.0)
            x = (wide * weight[None, :].to(tl.float32)).to(x.dtype)
        w = tl.load(w_ptrs + start, known & within[:, None], 0.0)
        total = tl.dot(x, w.to(x.dtype), total, input_precision="ieee")
        if GATED:
            up = tl.load(w_ptrs + start + N * K, known & within[:, None], 0.0)
            gate = tl.dot(x, up.to(x.dtype), gate, input_precision="ieee")
    if CODED:
        total *= tl.load(scale_ptr + columns, columns < N, 0.0)[None, :]
        if GATED:
            gate *= tl.load(scale_ptr + N + columns, columns < N, 0.0)[None, :]
    if NORM:
        root = tl.rsqrt(squares / K + eps)[:, None]
        total *= root
        gate *= root
    if GATED:  # what was summed first is the gate, the second what it gates
        total = total / (1 + tl.exp(-total)) * gate
    place = rows[:, None] * N + columns[None, :]
    written = (rows < R)[:, None] & known
    if RESIDUAL:
        total += tl.load(residual_ptr + place, written, 0.0).to(tl.float32)
    tl.store(y_ptr + place, total.to(y_ptr.dtype.element_ty), written)


def multiply(
    x_RK: torch.Tensor,
    w_NK: torch.Tensor,
    scales_N: torch.Tensor | None = None,
    *,
    norm_K: torch.Tensor | None = None,
    eps: float = 0.0,
    residual_RN: torch.Tensor | None = None,
    gated: bool = False,
) -> torch.Tensor:
    """``residual + f(norm(x) W^T)``, [R, N], for R up to ``MOST_ROWS``; every part but the product may be left out.

    ``gated``: W [2 N, K] holds gate and up below each other, and f is SiLU(gate) * up. ``scales_N``: W is int8,
    each row of it times its scale.
    """
    assert w_NK.is_contiguous() and x_RK.is_contiguous()
    rows, inner = x_RK.shape
    outer = len(w_NK) // 2 if gated else len(w_NK)
    y = torch.empty(rows, outer, dtype=x_RK.dtype, device=x_RK.device)
    height = max(16, triton.next_power_of_2(rows))
    _multiply[lambda tiles: (triton.cdiv(outer, tiles["BN"]),)](
        x_RK, w_NK, scales_N, norm_K, residual_RN, y, rows, eps, outer, inner, BM=height,
        GATED=gated, NORM=norm_K is not None, RESIDUAL=residual_RN is not None, CODED=scales_N is not None,
    )  # fmt: skip
    return y


# --------------------------------------------------------------------------------------------- attention


@triton.jit
def _rotated(ptr, cos_ptr, sin_ptr, E: tl.constexpr):
    """x cos + roll(x) sin, rounded as the model stores it."""
    e = tl.arange(0, E)
    x, rolled = tl.load(ptr + e), tl.load(ptr + (e + E // 2) % E)
    cos, sin = tl.load(cos_ptr + e).to(tl.float32), tl.load(sin_ptr + e).to(tl.float32)
    return (x.to(tl.float32) * cos + rolled.to(tl.float32) * sin).to(x.dtype)


@triton.jit
def _attend(
    qkv_ptr, cos_ptr, sin_ptr, lengths_ptr, keys_ptr, values_ptr, out_ptr, partial_ptr, scale, S,
    H: tl.constexpr, G: tl.constexpr, E: tl.constexpr, SPLITS: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    row, head, split = tl.program_id(0) // H, tl.program_id(0) % H, tl.program_id(1)
    group = head // (H // G)
    length = tl.load(lengths_ptr + row)  # cached before this token
    e = tl.arange(0, E)
    token = qkv_ptr + row.to(tl.int64) * (H + 2 * G) * E
    cos, sin = cos_ptr + length * E, sin_ptr + length * E
    q = _rotated(token + head * E, cos, sin, E).to(tl.float32) * scale
    base = row.to(tl.int64) * S * G * E + group * E
    share = tl.cdiv(tl.cdiv(length, SPLITS), BN) * BN
    first = split * share
    last = tl.minimum(first + share, length)

    largest = tl.full((), -float("inf"), tl.float32)
    weight = tl.zeros((), tl.float32)
    mixed = tl.zeros((E,), tl.float32)
    if split == 0:  # the token itself
        k = _rotated(token + (H + group) * E, cos, sin, E)
        v = tl.load(token + (H + G + group) * E + e)
        place = base + length * G * E + e
        if head % (H // G) == 0:
            tl.store(keys_ptr + place, k.to(keys_ptr.dtype.element_ty))
            tl.store(values_ptr + place, v.to(values_ptr.dtype.element_ty))
        # as the cache has it, so that later tokens and this one see the same
        k, v = k.to(keys_ptr.dtype.element_ty).to(tl.float32), v.to(values_ptr.dtype.element_ty).to(tl.float32)
        largest = tl.sum(q * k)
        weight += 1.0
        mixed += v
    for start in range(first, last, BN):
        n = start + tl.arange(0, BN)
        places = base + n.to(tl.int64)[:, None] * G * E + e[None, :]
        cached = (n < last)[:, None]
        k = tl.load(keys_ptr + places, cached, 0.0)
        v = tl.load(values_ptr + places, cached, 0.0)
        scores = tl.where(n < last, tl.sum(k.to(tl.float32) * q[None, :], 1), -float("inf"))
        larger = tl.maximum(largest, tl.max(scores, 0))
        kept, p = tl.exp(largest - larger), tl.exp(scores - larger)
        weight = weight * kept + tl.sum(p, 0)
        mixed = mixed * kept + tl.sum(v.to(tl.float32) * p[:, None], 0)
        largest = larger
    if SPLITS == 1:
        tl.store(out_ptr + (row.to(tl.int64) * H + head) * E + e, (mixed / weight).to(out_ptr.dtype.element_ty))
    else:
        part = partial_ptr + ((row.to(tl.int64) * H + head) * SPLITS + split) * (E + 2)
        tl.store(part + e, mixed)
        tl.store(part + E, largest)
        tl.store(part + E + 1, weight)


@triton.jit
def _join(partial_ptr, out_ptr, E: tl.constexpr, SPLITS: tl.constexpr):
    """The splits of a head, weighed by what each of them saw; an empty one has seen -inf."""
    n, e = tl.arange(0, SPLITS), tl.arange(0, E)
    parts = partial_ptr + (tl.program_id(0).to(tl.int64) * SPLITS + n) * (E + 2)
    largest, weight = tl.load(parts + E), tl.load(parts + E + 1)
    share = tl.exp(largest - tl.max(largest, 0))
    mixed = tl.sum(tl.load(parts[:, None] + e[None, :]) * share[:, None], 0) / tl.sum(weight * share, 0)
    tl.store(out_ptr + tl.program_id(0).to(tl.int64) * E + e, mixed.to(out_ptr.dtype.element_ty))


def splits_of(rows: int, heads: int) -> int:
    """Into how many parts a row's cache is read at once: a power of two."""
    wanted = triton.cdiv(PROGRAMS, rows * heads)
    return min(MOST_SPLITS, triton.next_power_of_2(wanted))


def attend(
    qkv: torch.Tensor,
    cos_PE: torch.Tensor,
    sin_PE: torch.Tensor,
    lengths_R: torch.Tensor,
    keys_RSGE: torch.Tensor,
    values_RSGE: torch.Tensor,
    splits: int | None = None,
) -> torch.Tensor:
    """Attention of one new token a row over its own ``lengths_R`` cached ones and itself: [R, H * E].

    ``qkv`` [R, (H + 2 G) * E] is not rotated yet; the sines' first half is negated. Key and value are written to the
    cache behind the others, rounded to its dtype; lengths stay as they are.
    """
    rows, capacity, kv_heads, width = keys_RSGE.shape
    heads = qkv.shape[1] // width - 2 * kv_heads
    splits = splits or splits_of(rows, heads)
    out = torch.empty(rows, heads * width, dtype=qkv.dtype, device=qkv.device)
    size = rows * heads * splits * (width + 2) if splits > 1 else 1
    partial = torch.empty(size, dtype=torch.float32, device=qkv.device)
    _attend[(rows * heads, splits)](
        qkv, cos_PE, sin_PE, lengths_R, keys_RSGE, values_RSGE, out, partial, width**-0.5, capacity,
        H=heads, G=kv_heads, E=width, SPLITS=splits, BN=KEYS, num_warps=4,
    )  # fmt: skip
    if splits > 1:
        _join[(rows * heads,)](partial, out, E=width, SPLITS=splits, num_warps=4)
    return out


# --------------------------------------------------------------------------------- beside large products


@triton.jit
def _add_norm(x_ptr, delta_ptr, norm_ptr, y_ptr, eps, K: tl.constexpr, BK: tl.constexpr, ADD: tl.constexpr):
    place, k = tl.program_id(0).to(tl.int64) * K, tl.arange(0, BK)
    x = tl.load(x_ptr + place + k, k < K, 0.0)
    if ADD:
        x = (x.to(tl.float32) + tl.load(delta_ptr + place + k, k < K, 0.0).to(tl.float32)).to(x.dtype)
        tl.store(x_ptr + place + k, x, k < K)
    wide = x.to(tl.float32)
    root = tl.rsqrt(tl.sum(wide * wide, 0) / K + eps)
    y = wide * root * tl.load(norm_ptr + k, k < K, 0.0).to(tl.float32)
    tl.store(y_ptr + place + k, y.to(y_ptr.dtype.element_ty), k < K)


def add_norm(x_RK: torch.Tensor, delta_RK: torch.Tensor | None, norm_K: torch.Tensor, eps: float) -> torch.Tensor:
    """RMS norm of ``x + delta``; the sum replaces ``x``."""
    rows, inner = x_RK.shape
    y = torch.empty_like(x_RK)
    block = triton.next_power_of_2(inner)
    warps = 8 if block >= 2048 else 4
    _add_norm[(rows,)](x_RK, delta_RK, norm_K, y, eps, K=inner, BK=block, ADD=delta_RK is not None, num_warps=warps)
    return y


@triton.jit
def _gate(x_ptr, y_ptr, N: tl.constexpr, BN: tl.constexpr):
    row, n = tl.program_id(0).to(tl.int64), tl.program_id(1) * BN + tl.arange(0, BN)
    gate = tl.load(x_ptr + row * 2 * N + n, n < N, 0.0).to(tl.float32)
    up = tl.load(x_ptr + row * 2 * N + N + n, n < N, 0.0).to(tl.float32)
    tl.store(y_ptr + row * N + n, (gate / (1 + tl.exp(-gate)) * up).to(y_ptr.dtype.element_ty), n < N)


def gate(x_RN: torch.Tensor) -> torch.Tensor:
    """SiLU(first half) * second half: [R, 2 N] -> [R, N]."""
    rows, width = x_RN.shape
    y = torch.empty(rows, width // 2, dtype=x_RN.dtype, device=x_RN.device)
    _gate[(rows, triton.cdiv(width // 2, 1024))](x_RN, y, N=width // 2, BN=1024, num_warps=4)
    return y
