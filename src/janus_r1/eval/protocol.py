"""What benchmarks have in common: which items they take, what they ask a model for, and what they refuse."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import TypeVar

from janus_r1.chain import Chain, Settings, Task
from janus_r1.errors import UserError, require
from janus_r1.worlds.base import Kind, World, WorldTask

CONTROL_SEED = 1_000_003  # added to the seed of controls: far from seeds that people try one after another
BASELINES = {  # of edits: what needs no editor
    "copy": "source copied",
    "from_scratch": "drawn from scratch",
    "tokenizer": "tokenizer's ceiling",
}

Sampler = Callable[[list[Task], Settings], list[Chain]]
"""One chain a task, in order; repeated tasks must differ by their row."""

T = TypeVar("T")


def in_turn(items: Iterable[T], kind: Callable[[T], str]) -> list[T]:
    """One item of each kind in turn, those of a kind in their own order: wherever it is cut, it is balanced."""
    places: defaultdict[str, count[int]] = defaultdict(count)
    return sorted(items, key=lambda item: next(places[kind(item)]))


def choose_tasks(world: World, split: str, limit: int | None = None, kind: Kind = "draw") -> list[WorldTask]:
    """Tasks of a split, one of each family in turn, so that any limit is balanced.

    Raises:
        UserError: for a split that the world does not have.
    """
    known = world.splits(kind)
    if split not in known:
        has = f"choose {', '.join(known)}" if known else f"the world {world.name} has none to {kind}"
        raise UserError(f"unknown split {split!r}; {has}")
    return in_turn(world.tasks(split, kind), lambda task: task.family)[:limit]


def check_rounds(limits: Sequence[int]) -> None:
    """Raises UserError unless there are round limits, all of them at least 1."""
    sensible = len(limits) > 0 and min(limits) >= 1
    require(sensible, "rounds must be one or more round limits of at least 1, such as 1,3")


def check_chains(chains: Sequence[Chain], prompts: list[str], rounds: int, what: str) -> None:
    """Raises ValueError unless every prompt has its chain, one for each ``what``."""
    in_order = [chain.prompt for chain in chains] == prompts
    if not in_order or not all(1 <= len(chain.rounds) <= rounds for chain in chains):
        raise ValueError(f"the model must return a chain of 1 to {rounds} rounds a {what}, in order")


def check_families(wanted: Iterable[str], scored: Iterable[str], failures: Sequence[str]) -> None:
    """Raises UserError when of a whole family nothing was scored, since a mean over families would have a hole."""
    if lost := set(wanted) - set(scored):
        raise UserError(f"no image of {', '.join(sorted(lost))} could be scored: {failures[0]}")
