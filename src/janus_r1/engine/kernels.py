"""Triton kernels for one token a row on a GPU, where reading weights and cache is all that takes time.

:func:`attend` rotates the new query and key, appends key and value to the cache and reads each row's own length of it,
no more. :func:`sample` goes from logits to the next embeddings. :func:`multiply` reads matrices, in 8 bits or, for few
rows, whole ones. Sums are float32; the rest is as the model is.

Shapes: R rows, K inputs, N outputs, H heads, G key-value heads, E head width, S cache capacity, P positions, V codes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

PROGRAMS = 528  # four a multiprocessor: attention over few rows is split until there are about so many
MOST_SPLITS = 8
FEW = 16  # rows up to which our kernel reads a whole matrix faster than the library does
KEYS = 64  # cached positions a program holds at once


# ---------------------------------------------------------------------------------------------- products


def _tiles() -> list[triton.Config]:
    """Outputs and inputs of a tile, warps, tiles under way; the fastest is found at the first call of a shape."""
    tiles = [(32, 128, 4, 6), (64, 128, 4, 4)]
    tiles = tiles if torch.cuda.is_available() else tiles[:1]  # the interpreter has nothing to find
    return [triton.Config({"BN": n, "BK": k}, num_warps=warps, num_stages=stages) for n, k, warps, stages in tiles]


@triton.autotune(_tiles(), key=["BM", "N", "K", "CODED"])
@triton.heuristics({"EVEN": lambda args: args["N"] % args["BN"] == 0 and args["K"] % args["BK"] == 0})
@triton.jit
def _multiply(
    x_ptr, w_ptr, scale_ptr, y_ptr, R, N, K,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EVEN: tl.constexpr, CODED: tl.constexpr,
):  # fmt: skip
    rows, columns = tl.program_id(1) * BM + tl.arange(0, BM), tl.program_id(0) * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK)
    total = tl.zeros((BM, BN), tl.float32)
    x_ptrs = x_ptr + rows[:, None] * K + inner[None, :]
    w_ptrs = w_ptr + columns[None, :].to(tl.int64) * K + inner[:, None]
    for start in range(0, K, BK):
        if EVEN:
            x = tl.load(x_ptrs + start, (rows < R)[:, None], 0.0)
            w = tl.load(w_ptrs + start, eviction_policy="evict_first")
        else:
            within = start + inner < K
            x = tl.load(x_ptrs + start, (rows < R)[:, None] & within[None, :], 0.0)
            w = tl.load(w_ptrs + start, (columns < N)[None, :] & within[:, None], 0)
        total = tl.dot(x, w.to(x.dtype), total, input_precision="ieee")
    if CODED:
        total *= tl.load(scale_ptr + columns, columns < N, 0.0)[None, :]
    place = rows[:, None] * N + columns[None, :]
    tl.store(y_ptr + place, total.to(y_ptr.dtype.element_ty), (rows < R)[:, None] & (columns < N)[None, :])


def multiply(x_RK: torch.Tensor, w_NK: torch.Tensor, scales_N: torch.Tensor | None = None) -> torch.Tensor:
    """x W^T: [R, N]; of a matrix in 8 bits each row times its scale."""
    rows, inner = x_RK.shape
    assert w_NK.is_contiguous() and x_RK.is_contiguous()
    outer, height = len(w_NK), min(64, max(16, triton.next_power_of_2(rows)))
    y = torch.empty(rows, outer, dtype=x_RK.dtype, device=x_RK.device)
    coded = scales_N is not None
    _multiply[lambda tiles: (triton.cdiv(outer, tiles["BN"]), triton.cdiv(rows, height))](
        x_RK, w_NK, scales_N if coded else y, y, rows, outer, inner, BM=height, CODED=coded
    )
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
    DOT: tl.constexpr,
):  # fmt: skip
    row, head, split = tl.program_id(0) // H, tl.program_id(0) % H, tl.program_id(1)
    group = head // (H // G)
    length = tl.load(lengths_ptr + row).to(tl.int32)  # cached before this token
    e = tl.arange(0, E)
    token = qkv_ptr + row.to(tl.int64) * (H + 2 * G) * E
    cos, sin = cos_ptr + length * E, sin_ptr + length * E
    q = _rotated(token + head * E, cos, sin, E)
    base = row.to(tl.int64) * S * G * E + group * E
    share = tl.cdiv(tl.cdiv(length, SPLITS), BN) * BN
    first = split * share
    last = tl.minimum(first + share, length)

    largest = tl.full((1,), -float("inf"), tl.float32)
    weight = tl.zeros((1,), tl.float32)
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
        largest = tl.zeros((1,), tl.float32) + tl.sum(q.to(tl.float32) * k) * scale
        weight += 1.0
        mixed += v
    # Sixteen equal rows, the fewest that a tensor core takes: cheaper than sums across threads
    many_q = tl.broadcast_to(q.to(DOT)[None, :], (16, E))
    for start in range(first, last, BN):
        n = start + tl.arange(0, BN)
        places = base + n.to(tl.int64)[:, None] * G * E + e[None, :]
        cached = (n < last)[:, None]
        k = tl.load(keys_ptr + places, cached, 0.0).to(DOT)
        v = tl.load(values_ptr + places, cached, 0.0).to(DOT)
        scores = tl.max(tl.dot(many_q, tl.trans(k), input_precision="ieee"), 0) * scale
        scores = tl.where(n < last, scores, -float("inf"))
        larger = tl.maximum(largest, tl.max(scores, 0))
        kept, p = tl.exp(largest - larger), tl.exp(scores - larger)
        many_p = tl.broadcast_to(p.to(DOT)[None, :], (16, BN))
        mixed = mixed * kept + tl.max(tl.dot(many_p, v, input_precision="ieee"), 0)
        weight = weight * kept + tl.sum(p, 0)
        largest = larger
    if SPLITS == 1:
        tl.store(out_ptr + (row.to(tl.int64) * H + head) * E + e, (mixed / weight).to(out_ptr.dtype.element_ty))
    else:
        part = partial_ptr + ((row.to(tl.int64) * H + head) * SPLITS + split) * (E + 2)
        tl.store(part + e, mixed)
        tl.store(part + E + tl.arange(0, 1), largest)
        tl.store(part + E + 1 + tl.arange(0, 1), weight)


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
    # numbers of 8 bits become float16 in one instruction, and bfloat16 in many
    dot = "float16" if keys_RSGE.dtype.itemsize == 1 else str(qkv.dtype).removeprefix("torch.")
    size = rows * heads * splits * (width + 2) if splits > 1 else 1
    partial = torch.empty(size, dtype=torch.float32, device=qkv.device)
    _attend[(rows * heads, splits)](
        qkv, cos_PE, sin_PE, lengths_R, keys_RSGE, values_RSGE, out, partial, width**-0.5, capacity,
        H=heads, G=kv_heads, E=width, SPLITS=splits, BN=KEYS, DOT=getattr(tl, dot),
        num_warps=4, num_stages=3 if splits == 1 else 2,
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


# ---------------------------------------------------------------------------------------------- sampling


@triton.jit
def _sample(
    logits_ptr, uniform_ptr, index_ptr, table_ptr, ids_ptr, logprobs_ptr, x_ptr, guidance, temperature, top_k, B, S,
    V: tl.constexpr, BV: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, GUIDED: tl.constexpr, TOP: tl.constexpr,
):  # fmt: skip
    row, v = tl.program_id(0).to(tl.int64), tl.arange(0, BV)
    index = tl.load(index_ptr)
    logits = tl.load(logits_ptr + row * V + v, v < V, -float("inf")).to(tl.float32)
    if GUIDED:
        plain = tl.load(logits_ptr + (B + row) * V + v, v < V, 0.0).to(tl.float32)
        logits = plain + guidance * (logits - plain)
    logits = tl.where(v < V, logits / temperature, -float("inf"))
    if TOP:
        logits = tl.where(_ordered(logits) < _kth(_ordered(logits), top_k), -float("inf"), logits)
    logits -= tl.max(logits, 0)
    logprobs = logits - tl.log(tl.sum(tl.exp(logits), 0))
    cumulative = tl.cumsum(tl.exp(logprobs), 0)
    target = tl.load(uniform_ptr + row * S + index) * tl.max(cumulative, 0)
    # rounding can land on a code of probability 0 behind the last possible one
    last = tl.max(tl.where(logits > -float("inf"), v, 0), 0)
    chosen = tl.minimum(tl.sum((cumulative <= target).to(tl.int32), 0), last)
    tl.store(ids_ptr + row * S + index, chosen.to(tl.int64))
    tl.store(logprobs_ptr + row * S + index, tl.sum(tl.where(v == chosen, logprobs, 0.0), 0))
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        x = tl.load(table_ptr + chosen.to(tl.int64) * D + d, d < D)
        tl.store(x_ptr + row * D + d, x, d < D)
        if GUIDED:
            tl.store(x_ptr + (B + row) * D + d, x, d < D)


@triton.jit
def _ordered(x):
    """Float32 as integers of the same order."""
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _kth(keys, k):
    """The k-th largest key, by bisection over all integers."""
    low, high = tl.min(keys, 0).to(tl.int64), tl.max(keys, 0).to(tl.int64)
    for _ in range(33):
        middle = low + (high - low + 1) // 2
        enough = tl.sum((keys >= middle).to(tl.int32), 0) >= k
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle - 1)
    return low


def sample(
    logits_RV: torch.Tensor,
    uniform_BS: torch.Tensor,
    index: torch.Tensor,
    table_VD: torch.Tensor,
    ids_BS: torch.Tensor,
    logprobs_BS: torch.Tensor,
    guidance: float | None,
    temperature: float,
    top_k: int,
) -> torch.Tensor:
    """Writes each row's id and log-prob at ``index`` [1]; returns what is embedded next, [R, D].

    With ``guidance`` the second half of the rows is unconditional, and gets the same embeddings.
    """
    count, steps = ids_BS.shape
    codes, width = table_VD.shape
    x = torch.empty(len(logits_RV), width, dtype=table_VD.dtype, device=table_VD.device)
    block = triton.next_power_of_2(codes)
    _sample[(count,)](
        logits_RV, uniform_BS, index, table_VD, ids_BS, logprobs_BS, x, guidance or 0.0, temperature, top_k, count,
        steps, V=codes, BV=block, D=width, BD=min(1024, triton.next_power_of_2(width)), GUIDED=guidance is not None,
        TOP=0 < top_k < codes, num_warps=16 if block >= 8192 else 4,
    )  # fmt: skip
    return x
