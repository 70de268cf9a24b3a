"""A step of reinforcement learning without a run around it, what the loop calls, in its order; and a reward for it."""

from __future__ import annotations

from janus_r1.train.credit import Trajectory
from janus_r1.train.loop import Loss
from janus_r1.train.rl import Parts, credited, dealt, draw_rollout, minibatch
from janus_r1.train.rollout import rollout_figures


def groups_of(parts: Parts, index: int = 0) -> list[list[Trajectory]]:
    return [credited(parts, group) for group in draw_rollout(parts, index).groups]


def first_minibatch(parts: Parts, index: int = 0) -> tuple[list[list[Trajectory]], Loss]:
    """Micro-batches of a rollout's first minibatch, and their loss."""
    return minibatch(parts, dealt(groups_of(parts, index), parts.recipe.minibatches), 0)


def figures_of(parts: Parts, index: int = 0) -> dict[str, float]:
    rollout = draw_rollout(parts, index)
    groups = [[t.scored for t in credited(parts, group)] for group in rollout.groups]
    return rollout_figures(rollout, groups, parts.recipe.rounds, parts.recipe.right)


class Uneven:
    """A reward with spread that follows from the picture; remembers what it was shown."""

    name = "uneven"

    def __init__(self) -> None:
        self.items = []

    def score(self, items):
        self.items += items
        return [int(image.astype(int).sum()) % 100 / 99 for _, image in items]
