"""The beginning of a benchmark that has something of everything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import count
from typing import TypeVar

T = TypeVar("T")


def in_turn(items: Iterable[T], kind: Callable[[T], str]) -> list[T]:
    """One item of each kind in turn, those of a kind in their own order: wherever it is cut, it is balanced."""
    places: defaultdict[str, count[int]] = defaultdict(count)
    return sorted(items, key=lambda item: next(places[kind(item)]))
