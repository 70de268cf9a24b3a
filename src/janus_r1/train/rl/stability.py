"""The paper's hand-made stability recipe made automatic (its appendix B.3): pure decisions.

There, after a sharp drop of the reward training was resumed from an earlier checkpoint with half the
learning rate, and after a slow decline the KL's reference was moved. A :class:`Watch` sees reward and
KL of every rollout and says when to do either, and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Annotated, Any, Literal

from janus_r1.fields import AtLeast0, Checked, Count, Positive, Range


@dataclass
class StabilityRecipe(Checked):
    """What counts as instability. Off by default; every act is logged with its reason."""

    enabled: bool = False
    window: Positive = 10
    """Rollouts whose mean is looked at."""
    drop: Annotated[float, Range(gt=0, lt=1)] = 0.25
    """Sharp drop: the window's reward lies so much, as a share, below the best window's. Then the last
    good weights come back and the learning rate is halved."""
    kl_limit: AtLeast0 = 0.0
    """A KL above this, in nats a token, counts as a sharp drop as well; 0 for no limit."""
    decline: Annotated[int, Range(ge=2)] = 40
    """Slow decline: the reward's trend has been falling over so many rollouts. Then the reference
    moves to the current weights."""
    acts: Count = 5
    """Give up with an error after so many rollbacks."""


@dataclass(frozen=True)
class Act:
    kind: Literal["rollback", "move_reference"]
    reason: str


@dataclass
class Watch:
    """Rewards since the last act, and the best window so far."""

    recipe: StabilityRecipe
    rewards: list[float] = field(default_factory=list)
    best: float = float("-inf")
    rollbacks: int = 0
    lr_scale: float = 1.0

    def observe(self, reward: float, kl: float) -> Act | None:
        """What to do after a rollout with this mean reward and KL, if anything."""
        self.rewards.append(reward)
        recent = self.rewards[-self.recipe.window :]
        if self.recipe.kl_limit and kl > self.recipe.kl_limit:
            return self._roll_back(f"KL {kl:.3g} nats a token is above {self.recipe.kl_limit:.3g}")
        if len(recent) < self.recipe.window:
            return None
        mean = fmean(recent)
        if self.best > 0 and mean < (1 - self.recipe.drop) * self.best:
            return self._roll_back(f"reward fell from {self.best:.3g} to {mean:.3g} (means of {len(recent)} rollouts)")
        if self._declines():
            self.rewards.clear()
            return Act("move_reference", f"reward has been falling for {self.recipe.decline} rollouts, now {mean:.3g}")
        self.best = max(self.best, mean)
        return None

    @property
    def good(self) -> bool:
        """Whether the current weights are worth coming back to: the last window is close to the best."""
        recent = self.rewards[-self.recipe.window :]
        return len(recent) == self.recipe.window and fmean(recent) >= (1 - self.recipe.drop / 2) * self.best

    def _roll_back(self, reason: str) -> Act:
        self.rewards.clear()
        self.rollbacks += 1
        self.lr_scale /= 2
        return Act("rollback", reason)

    def _declines(self) -> bool:
        """A least-squares line through the last ``decline`` rewards falls by more than their scatter around it."""
        y = self.rewards[-self.recipe.decline :]
        if len(y) < self.recipe.decline:
            return False
        slope, scatter = trend(y)
        return -slope * len(y) > 2 * scatter

    def state(self) -> dict[str, Any]:
        """For checkpoints; JSON."""
        best = self.best if self.best > float("-inf") else None
        return {**asdict(self), "best": best, "recipe": None}

    def restore(self, state: dict[str, Any]) -> None:
        self.rewards, self.rollbacks, self.lr_scale = list(state["rewards"]), state["rollbacks"], state["lr_scale"]
        self.best = float("-inf") if state["best"] is None else state["best"]


def trend(values: Sequence[float]) -> tuple[float, float]:
    """Slope a step of the least-squares line through ``values``, and their standard deviation around it."""
    middle, mean = (len(values) - 1) / 2, fmean(values)
    spread = sum((i - middle) ** 2 for i in range(len(values)))
    slope = sum((i - middle) * (v - mean) for i, v in enumerate(values)) / spread
    scatter = fmean((v - mean - slope * (i - middle)) ** 2 for i, v in enumerate(values)) ** 0.5
    return slope, scatter
