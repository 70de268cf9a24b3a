"""The paper's hand-made stability recipe made automatic (its appendix B.3).

There, after a sharp drop of the reward training was resumed from an earlier checkpoint with half the
learning rate, and after a slow decline the KL's reference was moved. A :class:`Watch` sees reward and
KL of every rollout and says when to do either, and why; a :class:`Guard` does it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

import torch
from accelerate.utils import reduce
from safetensors.torch import save_file
from torch import nn

from janus_r1.errors import UserError
from janus_r1.fields import AtLeast0, Checked, Count, Positive, Range
from janus_r1.files import write_atomically
from janus_r1.train import processes
from janus_r1.train.checkpoint import Trained, load_optimizers, load_weights, read_tensors, write_checkpoint
from janus_r1.train.processes import this_process


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


class Guard:
    """Watches a run. ``<out>/good`` holds what it comes back to, ``<out>/acts.jsonl`` what it did and why.

    An update can break weights whose rollouts were all good, so ``<out>/unproven`` waits there for a window: only
    when the rollouts after it are good, too, is it kept as good. ``reference`` is the frozen module that a KL is
    measured against; None where there is none that could move.
    """

    def __init__(self, recipe: StabilityRecipe, trained: Trained, reference: nn.Module | None, out: Path) -> None:
        self.recipe, self.trained, self.reference = recipe, trained, reference
        self.watch = Watch(recipe)
        self.good, self.unproven = out / "good", out / "unproven"
        self.acts, self.moved_reference = out / "acts.jsonl", out / "reference.safetensors"
        self.begun = self.moved = False
        self.rollouts = 0

    @property
    def lr_scale(self) -> float:
        return self.watch.lr_scale

    def keep_beginning(self, step: int) -> None:
        """Keeps the weights that the run begins with: what it comes back to at first."""
        if self.recipe.enabled and not self.begun:
            self._write(self.good, step)
        self.begun = True

    def after_rollout(self, step: int, reward: float, kl: float) -> None:
        """Act if need be, after the updates by a rollout with this mean ``reward``."""
        if not self.recipe.enabled:
            return
        self.rollouts += 1
        act = self.watch.observe(*_agreed(reward, kl))
        if act:
            self._carry_out(act, step)
        elif self.rollouts % self.recipe.window == 0:
            self._keep(step)

    def _carry_out(self, act: Act, step: int) -> None:
        if act.kind == "rollback":
            load_weights(self.good, self.trained)
            load_optimizers(self.good, self.trained)
            self._forget_unproven()
            self.rollouts = 0
        elif self.reference is not None:
            processes.copy_trained(self.trained.module, self.reference)
            self.moved = True
            self._keep_reference()
        if this_process().is_main_process:
            print(f"step {step + 1}: {act.kind.replace('_', ' ')}: {act.reason}", flush=True)
            with self.acts.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "act": act.kind, "reason": act.reason}) + "\n")
        if self.watch.rollbacks > self.recipe.acts:
            raise UserError(f"the run broke down {self.watch.rollbacks} times: see {self.acts}; change the recipe")

    def _keep(self, step: int) -> None:
        """What waited through a good window is good; the current weights wait now. After a bad one nothing is kept."""

        def copy(folder: Path) -> None:
            shutil.copytree(self.unproven, folder)

        if self.watch.good and self.unproven.exists() and this_process().is_main_process:
            write_atomically(self.good, copy)
        self._forget_unproven()
        if self.watch.good:
            self._write(self.unproven, step)

    def _forget_unproven(self) -> None:
        this_process().wait_for_everyone()  # all have looked whether it is there
        if this_process().is_main_process:
            shutil.rmtree(self.unproven, ignore_errors=True)

    def _write(self, folder: Path, step: int) -> None:
        write_checkpoint(folder, self.trained, {"step": step})
        this_process().wait_for_everyone()  # all read it when they roll back

    def _keep_reference(self) -> None:
        weights = {name: value.contiguous() for name, value in processes.weights(self.trained.module).items()}
        if this_process().is_main_process:
            write_atomically(self.moved_reference, lambda path: save_file(weights, path), "file")

    def state(self) -> dict[str, Any]:
        return {"watch": self.watch.state(), "moved": self.moved, "rollouts": self.rollouts}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up :meth:`state` again; nothing for a run that begins."""
        if not state:
            return
        try:
            self.watch.restore(state["watch"])
            self.rollouts, self.moved, self.begun = state["rollouts"], state["moved"], True
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"the checkpoint's state.json is damaged: {error!r:.60}") from None
        if self.moved and self.reference is not None:
            processes.load_weights(self.reference, read_tensors(self.moved_reference), self.moved_reference)


def _agreed(*values: float) -> list[float]:
    """Means over processes, so that all decide alike."""
    if this_process().num_processes == 1:
        return list(values)
    return reduce(torch.tensor(values, device=this_process().device), "mean").tolist()
