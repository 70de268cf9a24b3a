"""Keys and values of a batch of rows, preallocated; every row has its own length.

Shapes: N layers, R rows, S capacity, H key-value heads, E head width. A position is one contiguous
stretch of H * E numbers, so appending a token is a plain copy of rows in every dtype.
"""

from __future__ import annotations

import torch


class Cache:
    """``keys`` and ``values`` [N, R, S, H, E]; positions at or beyond a row's length are garbage."""

    def __init__(self, layers: int, rows: int, heads: int, width: int, capacity: int, like: torch.Tensor) -> None:
        shape = (layers, rows, capacity, heads, width)
        self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.values = torch.zeros_like(self.keys)
        self.lengths = [0] * rows

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        return self.keys.shape[2]

    def reserve(self, tokens: int) -> None:
        """Make room for ``tokens`` more in the longest row; grows by half at least."""
        needed = max(self.lengths) + tokens
        if needed > self.capacity:
            extra = max(needed, self.capacity * 3 // 2) - self.capacity
            shape = (*self.keys.shape[:2], extra, *self.keys.shape[3:])
            self.keys = torch.cat([self.keys, self.keys.new_zeros(shape)], dim=2)
            self.values = torch.cat([self.values, self.values.new_zeros(shape)], dim=2)

    def select(self, rows: list[int]) -> None:
        """Keep ``rows``, in this order; a row may be named several times."""
        index = torch.tensor(rows, device=self.keys.device)
        self.keys = self.keys.index_select(1, index)
        self.values = self.values.index_select(1, index)
        self.lengths = [self.lengths[row] for row in rows]

    def copy(self, rows: list[int]) -> Cache:
        """An independent cache of ``rows``."""
        other = object.__new__(Cache)
        other.keys, other.values, other.lengths = self.keys, self.values, self.lengths
        other.select(rows)
        return other
