"""Carries out what :mod:`stability` decides: rolls back, halves the learning rate, moves the reference."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import reduce
from safetensors.torch import load_file, save_file

from janus_r1.errors import UserError
from janus_r1.files import write_atomically
from janus_r1.train import state as states
from janus_r1.train.checkpoint import load_ema, load_optimizers, load_weights, write_checkpoint
from janus_r1.train.processes import this_process
from janus_r1.train.rl.stability import Act, StabilityRecipe, Watch

if TYPE_CHECKING:
    from janus_r1.train.rl.stage import RlStage


class Guard:
    """Watches a run. ``<out>/good`` holds what it comes back to, ``<out>/acts.jsonl`` what it did and why.

    An update can break weights whose rollouts were all good, so ``<out>/unproven`` waits there for a window: only
    when the rollouts after it are good, too, is it kept as good.
    """

    def __init__(self, stage: RlStage, recipe: StabilityRecipe, out: Path) -> None:
        self.stage, self.recipe = stage, recipe
        self.watch = Watch(recipe)
        self.good, self.unproven = out / "good", out / "unproven"
        self.acts, self.reference = out / "acts.jsonl", out / "reference.safetensors"
        self.begun = self.moved = False
        self.rollouts = 0

    def before_updates(self, step: int) -> None:
        """Keeps the weights that the run begins with: what it comes back to at first."""
        if self.recipe.enabled and not self.begun:
            self._write(self.good, step)
        self.begun = True

    def after_rollout(self, step: int, reward: float, kl: float) -> dict[str, float]:
        """Act if need be; returns figures to log."""
        if not self.recipe.enabled:
            return {}
        self.rollouts += 1
        act = self.watch.observe(*_agreed(reward, kl))
        if act:
            self._carry_out(act, step)
        elif self.rollouts % self.recipe.window == 0:
            self._keep(step)
        self.stage.lr_scale = self.watch.lr_scale
        return {"lr_scale": self.watch.lr_scale}

    def _carry_out(self, act: Act, step: int) -> None:
        if act.kind == "rollback":
            load_weights(self.good, self.stage)
            load_optimizers(self.good, self.stage)
            load_ema(self.good, self.stage)
            self._forget_unproven()
            self.rollouts = 0
        elif self.stage.reference:
            states.copy_trained(self.stage.module, self.stage.reference)
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
        write_checkpoint(folder, self.stage, {"step": step})
        this_process().wait_for_everyone()  # all read it when they roll back

    def _keep_reference(self) -> None:
        weights = {name: value.contiguous() for name, value in states.weights(self.stage.module).items()}
        if this_process().is_main_process:
            write_atomically(self.reference, lambda path: save_file(weights, path), "file")

    def state(self) -> dict[str, Any]:
        return {"watch": self.watch.state(), "moved": self.moved, "rollouts": self.rollouts}

    def restore(self, state: dict[str, Any]) -> None:
        self.watch.restore(state["watch"])
        self.rollouts, self.moved, self.begun = state["rollouts"], state["moved"], True
        self.stage.lr_scale = self.watch.lr_scale
        if self.moved and self.stage.reference:
            states.load_weights(self.stage.reference, load_file(self.reference), self.reference)


def _agreed(*values: float) -> list[float]:
    """Means over processes, so that all decide alike."""
    if this_process().num_processes == 1:
        return list(values)
    return reduce(torch.tensor(values, device=this_process().device), "mean").tolist()
