"""Checkpoints of a run: folders that appear whole or not at all, written by one process for all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from janus_r1.files import write_atomically, write_json
from janus_r1.train import state as states
from janus_r1.train.processes import this_process

if TYPE_CHECKING:
    from janus_r1.train.loop import Stage


def newest_checkpoint(out: Path) -> Path | None:
    """The folder of the last whole checkpoint; None before the first."""
    return max(out.glob("checkpoints/step_*"), default=None)


def load_weights(checkpoint: Path, stage: Stage) -> None:
    states.load_weights(stage.module, load_file(checkpoint / "model.safetensors"), checkpoint)


def load_optimizers(checkpoint: Path, stage: Stage) -> None:
    saved = torch.load(checkpoint / "optimizers.pt", weights_only=True)
    for optimizer, state in zip(stage.optimizers, saved, strict=True):
        states.load_optimizer_state(optimizer, state)


def load_ema(checkpoint: Path, stage: Stage) -> None:
    """Of a run that has one; one that began without begins its average here."""
    if stage.ema and (checkpoint / "ema.safetensors").exists():
        stage.ema.restore(load_file(checkpoint / "ema.safetensors"))


def save_checkpoint(out: Path, stage: Stage, step: int, seconds: float) -> None:
    """Write a checkpoint, then drop the ones before it. Collective."""
    target = out / "checkpoints" / f"step_{step:07d}"
    write_checkpoint(target, stage, {"step": step, "seconds": seconds, "stage": stage.state()})
    if not this_process().is_main_process:
        return
    for other in target.parent.iterdir():  # older ones, and what a kill left half-written
        if other != target:
            shutil.rmtree(other)


def write_checkpoint(target: Path, stage: Stage, state: dict[str, Any]) -> None:
    """Weights, optimizers and ``state`` as a folder, which appears whole or not at all. Collective."""
    state_dict = states.weights(stage.module, frozen=not stage.reloads_frozen)
    weights = {name: value.contiguous() for name, value in state_dict.items()}
    optimizers = [states.optimizer_state(optimizer) for optimizer in stage.optimizers]
    ema = stage.ema.state() if stage.ema else {}
    if not this_process().is_main_process:
        return

    def write(folder: Path) -> None:
        folder.mkdir()
        save_file(weights, folder / "model.safetensors")
        torch.save(optimizers, folder / "optimizers.pt")
        if ema:
            save_file(ema, folder / "ema.safetensors")
        write_json(folder / "state.json", state)

    write_atomically(target, write)
