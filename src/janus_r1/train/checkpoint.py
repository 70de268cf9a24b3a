"""Checkpoints of a run: folders that appear whole or not at all, written by one process for all, verified when read.

``model.safetensors`` holds the weights, ``optimizers.pt`` their optimizers, ``ema.safetensors`` the average where there
is one, and ``state.json`` the step, what the stage must remember, and the size and hash of each of these files.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from janus_r1.errors import UserError, first_line, require
from janus_r1.files import MARKER, write_atomically, write_json
from janus_r1.reading import read_json_object
from janus_r1.train import state as states
from janus_r1.train.optim import Ema
from janus_r1.train.processes import most, this_process

STATE = "state.json"
LEFT_BY_A_KILL = re.compile(r"\.step_\d{7}\.\d+\.(tmp|old)")  # names that write_atomically uses for a checkpoint


@dataclass
class Trained:
    """What training changes and a checkpoint holds."""

    module: Any
    """The nn.Module whose weights and buffers are kept."""
    optimizers: Sequence[torch.optim.Optimizer]
    reloads_frozen: bool = False
    """Whether parameters without gradients stay as the recipe's model has them: checkpoints then leave them out."""
    ema: Ema | None = None


# ---------------------------------------------------------------------------------------- writing


def save_checkpoint(out: Path, trained: Trained, state: dict[str, Any]) -> None:
    """Write the checkpoint of ``state["step"]``, then drop the ones before it. Collective.

    Raises:
        UserError: where a weight is no number; the checkpoint before stays.
    """
    target = out / "checkpoints" / f"step_{state['step']:07d}"
    write_checkpoint(target, trained, state)
    if not this_process().is_main_process:
        return
    for other in target.parent.iterdir():
        older = re.fullmatch(r"step_\d{7}", other.name) and (other / MARKER).is_file() and other != target
        if older or LEFT_BY_A_KILL.fullmatch(other.name):  # nothing but what this project wrote
            shutil.rmtree(other)


def write_checkpoint(target: Path, trained: Trained, state: dict[str, Any]) -> None:
    """Weights, optimizers and ``state`` as a folder, which appears whole or not at all. Collective.

    Raises:
        UserError: where a weight is no number.
    """
    broken = broken_weight(trained.module)
    require(not most(int(broken is not None)), f"no checkpoint is written: {broken or 'a weight'} is not a number")
    kept = states.weights(trained.module, frozen=not trained.reloads_frozen)
    optimizers = [states.optimizer_state(optimizer) for optimizer in trained.optimizers]
    ema = trained.ema.state() if trained.ema else {}
    if not this_process().is_main_process:
        return

    def write(folder: Path) -> None:
        folder.mkdir()
        save_file({name: value.contiguous() for name, value in kept.items()}, folder / "model.safetensors")
        torch.save(optimizers, folder / "optimizers.pt")
        if ema:
            save_file(ema, folder / "ema.safetensors")
        write_json(folder / STATE, {**state, "files": {path.name: _digest(path) for path in sorted(folder.iterdir())}})

    write_atomically(target, write)


def broken_weight(module: torch.nn.Module) -> str | None:
    """The name of a trained weight, or of this process's part of one, that is NaN or infinite."""
    for name, weight in module.named_parameters():
        if weight.requires_grad and not torch.isfinite(states.own_part(weight.detach())).all():
            return name
    return None


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


# ---------------------------------------------------------------------------------------- reading


def newest_checkpoint(out: Path) -> Path | None:
    """The folder of the last whole checkpoint; None before the first."""
    return max((path for path in out.glob("checkpoints/step_*") if (path / STATE).is_file()), default=None)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What :func:`write_checkpoint` was given as ``state``, after a look at every file of the checkpoint.

    Raises:
        UserError: if something is missing or is not what was written.
    """
    state = read_json_object(checkpoint / STATE)
    if not isinstance(state.get("step"), int):
        raise _damaged(checkpoint, f"{STATE} names no step")
    for name, written in state.get("files", {}).items():
        path = checkpoint / str(name)
        if not path.is_file():
            raise _damaged(checkpoint, f"{name} is missing")
        if (found := path.stat().st_size) != written["bytes"]:
            raise _damaged(checkpoint, f"{name} has {found:,} bytes of {written['bytes']:,}")
        if _digest(path) != written:
            raise _damaged(checkpoint, f"{name} is not what was written")
    return state


def load_weights(checkpoint: Path, trained: Trained) -> None:
    """Raises UserError where they do not fit or cannot be read."""
    states.load_weights(trained.module, _tensors(checkpoint, "model.safetensors"), checkpoint)


def load_optimizers(checkpoint: Path, trained: Trained) -> None:
    """Their state, and that of the average: a run that began without one begins it here.

    What the recipe says of them, such as weight decay, stays as it says now.
    """
    try:
        saved = torch.load(checkpoint / "optimizers.pt", weights_only=True)
    except Exception as error:  # torch raises what its unpickler and its zip reader happen to meet
        raise _damaged(checkpoint, f"optimizers.pt: {first_line(error)}") from None
    for optimizer, state in zip(trained.optimizers, saved, strict=True):
        said = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        states.load_optimizer_state(optimizer, state)
        for group, options in zip(optimizer.param_groups, said, strict=True):
            group.update(options)
    if trained.ema and (checkpoint / "ema.safetensors").exists():
        trained.ema.restore(_tensors(checkpoint, "ema.safetensors"))


def _tensors(checkpoint: Path, name: str) -> dict[str, torch.Tensor]:
    try:
        return load_file(checkpoint / name)
    except (OSError, SafetensorError) as error:
        raise _damaged(checkpoint, f"{name}: {first_line(error)}") from None


def _damaged(checkpoint: Path, why: str) -> UserError:
    return UserError(f"the checkpoint {checkpoint} is damaged: {why}; remove its folder, or start another run")


def training(model: str) -> dict[str, Any] | None:
    """Recipe, steps and seconds of the run whose ``model`` this is; None for a model that lies in no run."""
    run = Path(model).parent
    checkpoint = newest_checkpoint(run)
    if checkpoint is None or not (run / "recipe.json").exists():
        return None
    state, recipe = read_json_object(checkpoint / STATE), read_json_object(run / "recipe.json")
    return {"recipe": recipe, "steps": state["step"], "seconds": round(state["seconds"], 1)}
