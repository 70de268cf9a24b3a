"""The training loop of every stage: steps, log, checkpoints, resume.

A stage is a :class:`Stage`: it makes the batch of a step from the step's number alone, turns it
into a loss, and owns its optimizers. All randomness of a step is seeded by (seed, step), so a
checkpoint holds no generator state and a resumed run equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from janus_r1.environment import environment
from janus_r1.errors import UserError, require
from janus_r1.fields import Above0, AtLeast0, Checked, Count, Positive, Range, Share
from janus_r1.files import write_json
from janus_r1.reading import read_json
from janus_r1.train import processes
from janus_r1.train.checkpoint import load_ema, load_optimizers, load_weights, newest_checkpoint, save_checkpoint
from janus_r1.train.ema import Ema
from janus_r1.train.log import RunLog
from janus_r1.train.processes import this_process
from janus_r1.train.schedule import lr_share
from janus_r1.train.state import whole

Figure = float | torch.Tensor  # a scalar tensor waits for no device until the step is over


class Stage:
    """What a training stage provides to the loop."""

    module: Any
    """The nn.Module whose weights and buffers are checkpointed."""
    reloads_frozen: bool = False
    """Whether parameters without gradients stay as the recipe's model has them: checkpoints then leave them out."""
    optimizers: Sequence[torch.optim.Optimizer]
    lr_scale: float = 1.0
    """Factor on the scheduled learning rate."""
    ema: Ema | None = None
    """The average of its weights, where the recipe wants one; the loop's."""
    headline: Sequence[str] = ()
    """Figures worth a place on the terminal; all of them when empty."""

    def batches(self, step: int) -> Sequence[Any]:
        """The batches of a step, whose gradients add up; they follow from recipe, weights and ``step``."""
        raise NotImplementedError

    def loss(self, module: nn.Module, batch: Any, step: int) -> tuple[torch.Tensor, Mapping[str, Figure]]:
        """The scalar to minimise, and figures to log; both are sums over the batches of a step."""
        raise NotImplementedError

    def after_step(self, step: int) -> dict[str, float]:
        """Called after the optimizers, without gradients (codebook upkeep, evaluation); may add figures."""
        return {}

    def preview(self, step: int) -> np.ndarray | None:
        """A picture for the log, uint8 [H, W, 3]; asked of all processes."""
        return None

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside weights and optimizers; JSON."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up :meth:`state` again."""


@dataclass
class RunOptions(Checked):
    """How a run is carried out. Every stage's recipe has these keys under ``run``."""

    out: str = "runs/unnamed"
    """Folder for checkpoints, logs and the result."""
    steps: Positive = 1000
    """Optimizer steps."""
    seed: int = 0
    """Everything random follows from it."""
    warmup: Count = 50
    """Steps of linear learning-rate warm-up."""
    schedule: Literal["trapezoid", "linear", "cosine"] = "trapezoid"
    """How the learning rate falls: at the end only, or from the warm-up on."""
    cooldown: Share = 0.5
    """trapezoid: last share of the run over which the learning rate falls linearly."""
    knee: Count = 0
    """linear, cosine: step until which it falls linearly to ``knee_lr`` first; 0 for none."""
    knee_lr: AtLeast0 = 1.0
    """Learning rate at the knee, as a share of the peak."""
    final_lr: AtLeast0 = 0.02
    """Learning rate at the end, as a share of the peak."""
    grad_clip: Above0 = 1.0
    """Largest gradient norm."""
    ema: Annotated[float, Range(ge=0, lt=1)] = 0.0
    """Decay of a moving average of the weights (0.99: of the last 100 steps or so), which the run's model then has;
    0: the last weights. A float32 copy of what is trained."""
    precision: Literal["bf16", "no"] = "bf16"
    """bf16 (autocast over float32 master weights) or no (float32)."""
    log_every: Positive = 20
    save_every: Count = 200
    """Steps between checkpoints; 0: one at the end."""
    preview_every: Count = 500
    """Steps between pictures in the log; 0: one at the end."""
    threads: Count = 0
    """CPU threads; 0 leaves torch's default."""
    workers: Count = 0
    """sft: processes that prepare the world's edits of the coming steps, which pays beside a GPU; 0: this one does."""

    def seed_of(self, step: int) -> int:
        """From which everything random in a step follows."""
        return self.seed * 1_000_003 + step


def run(stage: Stage, recipe: Any, options: RunOptions, resume: bool) -> Path:
    """Train ``stage`` to ``options.steps``; returns the run's folder. With ``ema`` its module then has the average.

    Raises:
        UserError: if the folder already holds a run and ``resume`` is false, if its recipe differs,
            or if the loss stops being a number.
    """
    require(0 <= options.ema < 1, "run.ema must be at least 0 and below 1 (0 keeps no average)")
    if options.threads:
        torch.set_num_threads(options.threads)
    out = Path(options.out)
    accelerator = processes.accelerator(options.precision)
    with accelerator.main_process_first():  # which writes the recipe before the others read it
        start = _begin(out, stage, recipe, resume or not accelerator.is_main_process)
    module, *optimizers = accelerator.prepare(stage.module, *stage.optimizers)
    peaks = [[group["lr"] for group in o.param_groups] for o in stage.optimizers]
    seconds = 0.0
    if options.ema:
        stage.ema = Ema(stage.module, options.ema)
    if checkpoint := newest_checkpoint(out):
        load_optimizers(checkpoint, stage)
        load_ema(checkpoint, stage)
        seconds = float(read_json(checkpoint / "state.json")["seconds"])
    main = accelerator.is_main_process
    log = RunLog(out, start, options.steps, options.log_every, seconds, stage.headline, main)
    for step in range(start, options.steps):
        torch.manual_seed(options.seed_of(step))
        _set_lr(stage.optimizers, peaks, lr_share(step, options) * stage.lr_scale)
        figures = _backward(stage, accelerator, module, step)
        norm = float(whole(accelerator.clip_grad_norm_(module.parameters(), options.grad_clip)))
        _stop_if_broken(figures["loss"], norm, step, out)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if stage.ema:
            stage.ema.update()
        log.step(step, {"loss": figures["loss"], "grad_norm": norm, **figures, **stage.after_step(step)})
        _keep(stage, step + 1, options, log, accelerator)
    log.close()
    if stage.ema:
        stage.ema.put()
    return out


def _keep(stage: Stage, done: int, options: RunOptions, log: RunLog, accelerator: Accelerator) -> None:
    """A picture and a checkpoint where they are due, and at the end."""

    def due(every: int) -> bool:
        return done == options.steps or (every > 0 and done % every == 0)

    if due(options.preview_every):
        picture = stage.preview(done - 1)
        if accelerator.is_main_process:
            log.picture(done - 1, picture)
    if due(options.save_every):
        log.flush()
        save_checkpoint(Path(options.out), stage, done, log.seconds)
        accelerator.wait_for_everyone()


def share(items: Sequence[Any]) -> Sequence[Any]:
    """This process's part of a step's rows."""
    state = this_process()
    return items[state.process_index :: state.num_processes]


def _backward(stage: Stage, accelerator: Accelerator, module: nn.Module, step: int) -> dict[str, float]:
    """Gradients of all batches of a step; returns the summed figures.

    Processes exchange gradients once a step, but under FSDP2 after every batch: it would keep them whole until then.
    """
    sums: dict[str, Any] = {"loss": 0.0}
    batches = stage.batches(step)
    for index, batch in enumerate(batches):
        last = index + 1 == len(batches)
        accelerator.sync_gradients = last  # where DeepSpeed makes its step
        with nullcontext() if last or accelerator.is_fsdp2 else accelerator.no_sync(module):
            loss, parts = stage.loss(module, batch, step)
            accelerator.backward(loss)
        for name, value in {"loss": loss, **parts}.items():
            sums[name] = sums.get(name, 0.0) + (value.detach().double() if isinstance(value, torch.Tensor) else value)
    return _mean_over_processes(_numbers(sums), accelerator)


def _numbers(sums: dict[str, Any]) -> dict[str, float]:
    """Figures of which some are still on the device, which is waited for once."""
    held = {name: value for name, value in sums.items() if isinstance(value, torch.Tensor)}
    numbers = torch.stack(list(held.values())).tolist() if held else []
    return sums | dict(zip(held, numbers, strict=True))


def _mean_over_processes(figures: dict[str, float], accelerator: Accelerator) -> dict[str, float]:
    if accelerator.num_processes == 1:
        return figures
    values = torch.tensor(list(figures.values()), dtype=torch.float64, device=accelerator.device)
    return dict(zip(figures, accelerator.reduce(values, "mean").tolist(), strict=True))


def _set_lr(optimizers: Sequence[torch.optim.Optimizer], peaks: list[list[float]], share: float) -> None:
    for optimizer, values in zip(optimizers, peaks, strict=True):
        for group, peak in zip(optimizer.param_groups, values, strict=True):
            group["lr"] = peak * share


def _stop_if_broken(loss: float, norm: float, step: int, out: Path) -> None:
    if not math.isfinite(loss) or not math.isfinite(norm):
        raise UserError(
            f"step {step}: the loss or its gradient is not a number; lower the learning rate and "
            f"--resume from the last checkpoint in {out}"
        )


def _begin(out: Path, stage: Stage, recipe: Any, resume: bool) -> int:
    """Prepare the run's folder; returns the step to start from, weights already loaded."""
    resolved = json.loads(json.dumps(asdict(recipe)))
    checkpoint = newest_checkpoint(out)
    if checkpoint is None:
        write_json(out / "recipe.json", resolved)
        write_json(out / "environment.json", environment() | processes.spread())
        return 0
    if not resume:
        raise UserError(f"{out} already holds a run: pass --resume to continue it, or another --run.out")
    before = read_json(out / "recipe.json")
    changed = [key for key in resolved if key != "run" and before.get(key) != resolved[key]]
    if changed:
        raise UserError(f"cannot resume {out}: the recipe changed in {', '.join(changed)}")
    load_weights(checkpoint, stage)
    state = read_json(checkpoint / "state.json")
    stage.restore(state.get("stage", {}))
    if this_process().is_main_process:
        write_json(out / f"environment_{checkpoint.name}.json", environment() | processes.spread())
    return int(state["step"])
