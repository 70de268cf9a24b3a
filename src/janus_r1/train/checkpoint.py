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
from janus_r1.reading import field, open_regular, read_json_object
from janus_r1.train import processes
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
    """Write the checkpoint of ``state["step"]``. Those before it stay until :func:`drop_older`. Collective.

    Raises:
        UserError: where a weight is no number; the checkpoint before stays.
    """
    target = out / "checkpoints" / f"step_{state['step']:07d}"
    write_checkpoint(target, trained, state)


def own_checkpoints(out: Path) -> list[Path]:
    """Whole checkpoints that this project wrote, the newest last."""
    return sorted(path for path in out.glob("checkpoints/step_*") if (path / STATE).is_file() and _is_ours(path))


def _is_ours(path: Path) -> bool:
    return bool(re.fullmatch(r"step_\d{7}", path.name)) and (path / MARKER).is_file()


def drop_older(out: Path) -> None:
    """Away with all checkpoints but the newest, and with what a kill left of them."""
    newest = newest_checkpoint(out)
    for other in (out / "checkpoints").iterdir():
        if (_is_ours(other) and other != newest) or LEFT_BY_A_KILL.fullmatch(other.name):
            shutil.rmtree(other)  # nothing but what this project wrote


def drop_newest(out: Path) -> Path | None:
    """Away with the newest checkpoint where there is one before it, which is then returned."""
    found = own_checkpoints(out)
    if len(found) < 2:
        return None
    shutil.rmtree(found[-1])
    return found[-2]


def write_checkpoint(target: Path, trained: Trained, state: dict[str, Any]) -> None:
    """Weights, optimizers and ``state`` as a folder, which appears whole or not at all. Collective.

    Raises:
        UserError: where a weight is no number.
    """
    broken = broken_weight(trained.module)
    require(not most(int(broken is not None)), f"no checkpoint is written: {broken or 'a weight'} is not a number")
    kept = processes.weights(trained.module, frozen=not trained.reloads_frozen)
    optimizers = [processes.optimizer_state(optimizer) for optimizer in trained.optimizers]
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
        if weight.requires_grad and not torch.isfinite(processes.own_part(weight.detach())).all():
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
    try:
        field(state, "step", int, STATE)
        field(state, "seconds", float, STATE)
        field({"stage": {}} | state, "stage", dict, STATE)
        files = field({"files": {}} | state, "files", dict, STATE)
        sizes = {name: field(written, "bytes", int, f"{STATE}, {name}") for name, written in files.items()}
    except UserError as error:
        raise _damaged(checkpoint, str(error)) from None
    for name, size in sizes.items():
        path = checkpoint / str(name)
        if not path.is_file():
            raise _damaged(checkpoint, f"{name} is missing")
        if (found := path.stat().st_size) != size:
            raise _damaged(checkpoint, f"{name} has {found:,} bytes of {size:,}")
        if _digest(path) != files[name]:
            raise _damaged(checkpoint, f"{name} is not what was written")
    return state


def load_weights(checkpoint: Path, trained: Trained) -> None:
    """Raises UserError where they do not fit or cannot be read."""
    processes.load_weights(trained.module, read_tensors(checkpoint / "model.safetensors"), checkpoint)


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
        processes.load_optimizer_state(optimizer, state)
        for group, options in zip(optimizer.param_groups, said, strict=True):
            group.update(options)
    if trained.ema and (checkpoint / "ema.safetensors").exists():
        trained.ema.restore(read_tensors(checkpoint / "ema.safetensors"))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Raises UserError for a file of a run that is damaged."""
    try:
        open_regular(path).close()
        return load_file(path)
    except (UserError, OSError, SafetensorError) as error:
        raise _damaged(path.parent, f"{path.name}: {first_line(error)}") from None


def _damaged(checkpoint: Path, why: str) -> UserError:
    return UserError(f"the checkpoint {checkpoint} is damaged: {why}; remove its folder, or start another run")


def training(model: str) -> dict[str, Any] | None:
    """Recipe, steps and seconds of the run whose ``model`` this is; None for a model that lies in no run."""
    run = Path(model).parent
    checkpoint = newest_checkpoint(run)
    if checkpoint is None or not (run / "recipe.json").exists():
        return None
    state, recipe = read_json_object(checkpoint / STATE), read_json_object(run / "recipe.json")
    steps, seconds = (field(state, key, float, str(checkpoint / STATE)) for key in ("step", "seconds"))
    return {"recipe": recipe, "steps": steps, "seconds": round(seconds, 1)}
