"""Chains for reinforcement learning: drawn, judged and redrawn as in inference, then scored.

Scoring runs beside the drawing of the next chains, which pays when a reward waits for a network.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from janus_r1.chain import Chain, Settings
from janus_r1.images import square
from janus_r1.introspect import introspect
from janus_r1.model.janus import Janus
from janus_r1.rewards.score import Abstained, Reward, Scorable, Score
from janus_r1.train.rl.edit_prompts import Task


@dataclass(frozen=True)
class Group:
    """Chains of one prompt whose drafts were all scored: ``rewards[i][k]`` is of draft k of chain i."""

    prompt: str
    chains: tuple[Chain, ...]
    rewards: tuple[tuple[float, ...], ...]


@dataclass
class Rollout:
    groups: list[Group]
    abstained: Counter[str] = field(default_factory=Counter)
    """Chains that left their group, by the reward's reason."""
    lost_groups: int = 0
    """Groups with fewer than two chains left."""
    seconds_drawing: float = 0.0
    seconds_waiting: float = 0.0
    """For rewards, beyond what ran beside the drawing."""

    @property
    def images(self) -> int:
        return sum(len(chain.rounds) for group in self.groups for chain in group.chains)


def roll_out(
    model: Janus,
    prompts: Sequence[Task],
    group: int,
    settings: Settings,
    reward: Reward,
    *,
    max_batch: int = 128,
    first_row: int = 0,
    fewest: int = 2,
) -> Rollout:
    """``group`` chains of every prompt or edit. Whole groups go through the model together.

    A chain with a draft that could not be scored leaves its group; one with less than ``fewest`` chains is lost.
    """
    at_once = max(1, max_batch // group)
    rollout = Rollout([])
    began = time.monotonic()
    with ThreadPoolExecutor(max_workers=1) as scorer:
        pending = []
        for start in range(0, len(prompts), at_once):
            part = [prompt for prompt in prompts[start : start + at_once] for _ in range(group)]
            chains = _chains(model, part, settings, first_row + start * group)
            pending.append((chains, scorer.submit(_score, reward, chains)))
        rollout.seconds_drawing = time.monotonic() - began
        for chains, scores in pending:
            _collect(rollout, chains, scores.result(), group, fewest)
    rollout.seconds_waiting = time.monotonic() - began - rollout.seconds_drawing
    return rollout


def _chains(model: Janus, part: Sequence[Task], settings: Settings, first_row: int) -> list[Chain]:
    edited = iter(model.sources([square(t.source, model.image_size) for t in part if not isinstance(t, str)]))
    sources = [None if isinstance(task, str) else next(edited) for task in part]
    prompts = [task if isinstance(task, str) else task.instruction for task in part]
    return introspect(model, prompts, settings, max_batch=len(part), first_row=first_row, sources=sources)


def _score(reward: Reward, chains: Sequence[Chain]) -> list[list[Score]]:
    """One list a chain, one score a draft."""
    items = [
        Scorable(chain.prompt, r.pixels, chain.source.pixels if chain.source else None)
        for chain in chains
        for r in chain.rounds
    ]
    scores = iter(reward.score(items))
    return [[next(scores) for _ in chain.rounds] for chain in chains]


def _collect(
    rollout: Rollout, chains: Sequence[Chain], scores: Sequence[Sequence[Score]], group: int, fewest: int
) -> None:
    for start in range(0, len(chains), group):
        kept, rewards = [], []
        for chain, row in zip(chains[start : start + group], scores[start : start + group], strict=True):
            missing = [score for score in row if isinstance(score, Abstained)]
            if missing:
                rollout.abstained[missing[0].cause] += 1
            else:
                kept.append(chain)
                rewards.append(tuple(float(score) for score in row if not isinstance(score, Abstained)))
        if len(kept) >= fewest:
            rollout.groups.append(Group(kept[0].prompt, tuple(kept), tuple(rewards)))
        else:
            rollout.lost_groups += 1
