"""What benchmarks refuse: wishes that cannot be meant, before anything slow, and answers that break the contract."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from janus_r1.errors import UserError, require

if TYPE_CHECKING:
    from janus_r1.chain import Chain

SPLITS = ("test", "dense", "held_out", "validation")
EDIT_SPLITS = ("test", "held_out", "validation")


def check_split(name: str, known: Sequence[str] = SPLITS) -> None:
    """Raises UserError for a name that is none of ``known``."""
    require(name in known, f"unknown split {name!r}; choose {', '.join(known)}")


def check_rounds(limits: Sequence[int]) -> None:
    """Raises UserError unless there are round limits, all of them at least 1."""
    sensible = len(limits) > 0 and min(limits) >= 1
    require(sensible, "rounds must be one or more round limits of at least 1, such as 1,3")


def check_counts(samples: int, limit: int | None) -> None:
    """Raises UserError unless both are at least 1; no ``limit`` means none."""
    require(samples >= 1 and (limit is None or limit >= 1), "samples and limit must be at least 1")


def check_chains(chains: Sequence[Chain], prompts: list[str], rounds: int, who: str, what: str) -> None:
    """Raises ValueError unless every prompt has its chain; ``who`` returned them, one for each ``what``."""
    in_order = [chain.prompt for chain in chains] == prompts
    if not in_order or not all(1 <= len(chain.rounds) <= rounds for chain in chains):
        raise ValueError(f"the {who} must return a chain of 1 to {rounds} rounds a {what}, in order")


def check_families(wanted: Iterable[str], scored: Iterable[str], failures: Sequence[str]) -> None:
    """Raises UserError when of a whole family nothing was scored, since a mean over families would have a hole."""
    if lost := set(wanted) - set(scored):
        raise UserError(f"no image of {', '.join(sorted(lost))} could be scored: {failures[0]}")
