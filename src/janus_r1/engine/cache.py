"""Keys and values of a batch of rows, preallocated, every row with its own length; and streams, which grow in them.

Shapes: N layers, R rows, S capacity, H key-value heads, E head width. A position is one contiguous
stretch of H * E numbers, so appending a token is a plain copy of rows in every dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

READ = 64  # a cache holds a multiple of so many tokens
LANES = 16  # numbers that a processor adds up at once: a multiple of so many is added up alike, whatever is behind
FEWEST = (
    4  # rows of a product, and queries of an attention: from so many on, each comes out alike however many there are
)


class Cache:
    """``keys`` and ``values`` [N, R, S, H, E], S a multiple of READ; positions at or beyond a row's length are garbage.

    In 8 bits (float8_e4m3fn) they are rounded as they come, without a scale: a key's or value's numbers are far from
    the largest, 448.
    """

    def __init__(
        self, layers: int, rows: int, heads: int, width: int, capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (layers, rows, _rounded(capacity), heads, width)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros_like(self.keys)
        self.lengths = [0] * rows

    @classmethod
    def gathered(cls, parts: Sequence[tuple[Cache, int]], room: int) -> Cache:
        """A new cache of one row of each part, in this order, with room for ``room`` tokens more in the longest."""
        first, lengths = parts[0][0], [cache.lengths[row] for cache, row in parts]
        layers, _, _, heads, width = first.keys.shape
        whole = cls(layers, len(parts), heads, width, max(lengths) + room, first.keys.dtype, first.keys.device)
        for place, ((cache, row), length) in enumerate(zip(parts, lengths, strict=True)):
            for kept, old in ((whole.keys, cache.keys), (whole.values, cache.values)):
                movable(kept)[:, place, :length] = movable(old)[:, row, :length]
        whole.lengths = lengths
        return whole

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        return self.keys.shape[2]

    def reserve(self, tokens: int) -> None:
        """Make room for ``tokens`` more in the longest row; grows by a quarter at least."""
        needed = max(self.lengths) + tokens
        if needed > self.capacity:
            extra = _rounded(max(needed, self.capacity * 5 // 4)) - self.capacity
            self.keys, self.values = (_longer(kept, extra) for kept in (self.keys, self.values))

    def extend(self, counts: list[int]) -> None:
        """So many tokens more in every row have been written."""
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]

    def select(self, rows: list[int]) -> None:
        """Keep ``rows``, in this order; a row may be named several times."""
        index = torch.tensor(rows, device=self.keys.device)
        self.keys, self.values = (
            movable(kept).index_select(1, index).view(kept.dtype) for kept in (self.keys, self.values)
        )
        self.lengths = [self.lengths[row] for row in rows]

    def put(self, part: Cache, rows: list[int]) -> None:
        """Take back ``rows`` that were copied from this cache."""
        index = torch.tensor(rows, device=self.keys.device)
        for kept, changed in ((self.keys, part.keys), (self.values, part.values)):
            movable(kept).index_copy_(1, index, movable(changed))
        for row, length in zip(rows, part.lengths, strict=True):
            self.lengths[row] = length

    def copy(self, rows: list[int]) -> Cache:
        """An independent cache of ``rows``."""
        other = object.__new__(Cache)
        other.keys, other.values, other.lengths = self.keys, self.values, self.lengths
        other.select(rows)
        return other


@dataclass
class Stream:
    """A batch of growing sequences. ``last`` [R, D] is what the next token is predicted from."""

    cache: Cache
    last: torch.Tensor
    guided: bool

    @property
    def rows(self) -> int:
        return self.cache.rows // 2 if self.guided else self.cache.rows

    @property
    def lengths(self) -> list[int]:
        return self.cache.lengths[: self.rows]

    @classmethod
    def gathered(cls, parts: Sequence[tuple[Stream, int]], room: int) -> Stream:
        """A new stream of one row of each part, all guided or none, with room for ``room`` tokens more."""
        guided = parts[0][0].guided
        rows = [(stream, row + half * stream.rows) for half in range(1 + guided) for stream, row in parts]
        cache = Cache.gathered([(stream.cache, row) for stream, row in rows], room)
        return cls(cache, torch.stack([stream.last[row] for stream, row in rows]), guided)


def movable(kept: torch.Tensor) -> torch.Tensor:
    """The same memory in a dtype that torch moves: it has few kernels for 8-bit floats."""
    return kept.view(torch.uint8) if kept.dtype.itemsize == 1 else kept


def _rounded(positions: int) -> int:
    return -(-positions // READ) * READ


def _longer(kept_NRSHE: torch.Tensor, extra: int) -> torch.Tensor:
    moved = movable(kept_NRSHE)
    return torch.cat([moved, moved.new_zeros(*moved.shape[:2], extra, *moved.shape[3:])], dim=2).view(kept_NRSHE.dtype)


@dataclass
class Placement:
    """Where the new tokens of every row go, and what they may attend to."""

    positions: torch.Tensor  # [R, T]
    flat: torch.Tensor  # [R * T], the same as places in a cache layer of [R * S, H * E]
    end: int  # keys and values are read up to here
    mask: torch.Tensor | None  # [R, 1, T, end], a sum; None where every row may see all, or is causal
    causal: bool
    repeats: int = 1  # every query is asked so often, where attention needs more of them than there are

    @classmethod
    def of(cls, cache: Cache, new: int, like: torch.Tensor) -> Placement:
        """``new`` tokens a row, computed in the dtype and on the device of ``like``.

        Where a CPU's sums are coarse a row is added up in the same order whatever the lengths of the others: that of
        the longest moved ids in every third image of a mixed batch.
        """
        lengths, device = cache.lengths, like.device
        coarse = device.type == "cpu" and like.dtype != torch.float32
        longest = max(lengths) + new
        end = -(-longest // LANES) * LANES if coarse else longest
        first = torch.tensor(lengths, device=device).unsqueeze(1)
        positions = first + torch.arange(new, device=device)
        rows = torch.arange(len(lengths), device=device).unsqueeze(1) * cache.capacity
        flat = (rows + positions).flatten()
        if not coarse and min(lengths) == max(lengths) and (new == 1 or lengths[0] == 0):
            return cls(positions, flat, end, None, causal=new > 1)
        later = torch.arange(end, device=device) > positions.unsqueeze(-1)
        return cls(positions, flat, end, without(later, like.dtype).unsqueeze(1), causal=False)

    @classmethod
    def steady(cls, cache: Cache, new: int, like: torch.Tensor) -> Placement:
        """As :meth:`of`; and what a token sees is added up in the same order however many tokens and rows there are."""
        lengths, device = cache.lengths, like.device
        end = _rounded(max(lengths) + new)
        positions = torch.tensor(lengths, device=device).unsqueeze(1) + torch.arange(new, device=device)
        rows = torch.arange(len(lengths), device=device).unsqueeze(1) * cache.capacity
        later = torch.arange(end, device=device) > positions.unsqueeze(-1)
        repeats = -(-FEWEST // new)
        mask = without(later, like.dtype).unsqueeze(1).repeat(1, 1, repeats, 1)
        return cls(positions, (rows + positions).flatten(), end, mask, causal=False, repeats=repeats)

    def write(self, cache_RSHE: torch.Tensor, new_RTHE: torch.Tensor) -> None:
        heads_and_width = new_RTHE.shape[2] * new_RTHE.shape[3]
        new = new_RTHE.reshape(-1, heads_and_width).to(cache_RSHE.dtype)
        movable(cache_RSHE).view(-1, heads_and_width).index_copy_(0, self.flat, movable(new))


def without(hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask that hides these places: a sum, since attention kernels make one of anything else, in every layer."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
