"""A training run, whatever is trained: steps, log, checkpoints, resume, signals.

A stage writes its own loop over :meth:`Run.steps` and calls :meth:`Run.update` and :meth:`Run.end_step` in it. All
randomness of a step is seeded by (seed, step), so a checkpoint holds no generator state and a resumed run equals an
uninterrupted one bit for bit.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import nn

from janus_r1.environment import environment
from janus_r1.errors import UserError
from janus_r1.fields import Above0, AtLeast0, Checked, Count, Positive, Range, Share
from janus_r1.files import appending, clear_left, locked, write_json
from janus_r1.reading import read_json_object
from janus_r1.train import processes
from janus_r1.train.checkpoint import (
    Trained,
    drop_newest,
    drop_older,
    load_optimizers,
    load_weights,
    newest_checkpoint,
    own_checkpoints,
    read_state,
    save_checkpoint,
)
from janus_r1.train.log import RunLog
from janus_r1.train.optim import Ema
from janus_r1.train.processes import whole

Figure = float | torch.Tensor  # a scalar tensor waits for no device until the step is over
Loss = Callable[[nn.Module, Any], tuple[torch.Tensor, Mapping[str, Figure]]]
"""Of the module and a batch: the scalar to minimise, and figures to log; both are sums over the batches of a step."""

MAY_CHANGE = {"lr", "weight_decay", "clip", "kl", "micro_batch", "max_batch", "eval_every", "compile", "recompute"}
MAY_CHANGE |= {"window"}
"""Keys of a recipe that may differ when its run is resumed, beside those under ``run``."""


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
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Where figures go beside metrics.jsonl: tensorboard, wandb, trackio, or any other that accelerate knows."""
    log_every: Positive = 20
    save_every: Count = 200
    """Steps between checkpoints; 0: one at the end."""
    preview_every: Count = 500
    """Steps between pictures in the log; 0: one at the end."""
    threads: Count = 0
    """CPU threads; 0 leaves torch's default."""
    workers: Count = 0
    """sft: processes beside each training process that prepare the coming steps' rows of a store, or the world's edits,
    which pays beside a GPU; 0: it does so itself, and waits."""

    def seed_of(self, step: int) -> int:
        """From which everything random in a step follows."""
        return self.seed * 1_000_003 + step


@contextmanager
def running(
    recipe: Any,
    module: Any,
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    resume: bool = False,
    reloads_frozen: bool = False,
    headline: Sequence[str] = (),
    every: int = 1,
) -> Iterator[Run]:
    """The run of ``recipe``, whose folder this process holds meanwhile. At its end the module has the average, if any.

    ``module`` is the nn.Module that is trained, ``headline`` names the figures worth a place on the terminal (all when
    empty), and a checkpoint can be taken up after every ``every`` steps only.

    SIGTERM and Ctrl-C save a checkpoint and end the process.

    Raises:
        UserError: if another process holds the folder, if it already holds a run and ``resume`` is false, if the
            recipe differs from that of the run, or if its checkpoint is damaged.
    """
    out = Path(recipe.run.out)
    main = processes.this_process().is_main_process
    with appending(out), locked(out) if main else nullcontext():
        if main:
            clear_left(out)
        run = Run(recipe, Trained(module, optimizers, reloads_frozen), resume, headline, every)
        with _signals(run.on_signal):
            try:
                yield run
            except Stopped as stopped:
                run.save_and_say(stopped)
                raise SystemExit(128 + stopped.number) from None
            finally:
                run.log.close()
        if run.trained.ema:
            run.trained.ema.put()


class Stopped(BaseException):
    """A signal came, and everything that was learnt can be saved."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Run:
    """A run in progress: its options, what it trains, its log, and how many steps are ``done``."""

    def __init__(
        self, recipe: Any, trained: Trained, resume: bool = False, headline: Sequence[str] = (), every: int = 1
    ) -> None:
        options: RunOptions = recipe.run
        if options.threads:
            torch.set_num_threads(options.threads)
        self.options, self.trained, self.every, self.out = options, trained, every, Path(options.out)
        self.lr_scale = 1.0
        """Factor on the scheduled learning rate."""
        self.accelerator = processes.accelerator(options.precision)
        with self.accelerator.main_process_first():  # which writes the recipe before the others read it
            begun = _begin(self.out, trained, recipe, resume or not self.accelerator.is_main_process)
        self.done, self.stage_state = int(begun["step"]), begun.get("stage", {})
        prepared = self.accelerator.prepare(trained.module, *trained.optimizers)
        self.module, self.optimizers = prepared[0], prepared[1:]
        self.peaks = [[group["lr"] for group in o.param_groups] for o in trained.optimizers]
        trained.ema = Ema(trained.module, options.ema) if options.ema else None
        if checkpoint := newest_checkpoint(self.out):
            load_optimizers(checkpoint, trained)
        main = self.accelerator.is_main_process
        self.log = RunLog(
            self.out, self.done, options.steps, options.log_every, begun["seconds"], options.trackers, headline, main
        )
        self._updating, self._signal = False, 0
        self._unproven = checkpoint is not None and len(own_checkpoints(self.out)) > 1
        """Whether the newest checkpoint has not yet been gone on from: the one before it is kept until then."""

    def steps(self) -> Iterator[int]:
        """The steps that are left; everything random in one follows from its number."""
        while self.done < self.options.steps:
            torch.manual_seed(self.options.seed_of(self.done))
            yield self.done

    def update(
        self, batches: Sequence[Any], loss: Loss, figures: Mapping[str, Figure] | None = None
    ) -> dict[str, float]:
        """One step of the optimizers, by the gradients of all ``batches`` together.

        Returns loss, gradient norm, the sums of what ``loss`` watches, and ``figures``: means over processes.

        Raises:
            UserError: where the loss or its gradient is no number; the weights are then as they were.
        """
        share = lr_share(self.done, self.options) * self.lr_scale
        for optimizer, peaks in zip(self.trained.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * share
        sums = self._backward(batches, loss)
        means = self._mean_over_processes(_numbers({**sums, **(figures or {})}))
        norm = float(whole(self.accelerator.clip_grad_norm_(self.module.parameters(), self.options.grad_clip)))
        self._stop_if_broken(means["loss"], norm)
        if self._unproven and self.accelerator.is_main_process:
            drop_older(self.out)
        self._unproven = False
        self._updating = True  # until end_step: the weights are of a step that the log does not know yet
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if self.trained.ema:
            self.trained.ema.update()
        return {"loss": means.pop("loss"), "grad_norm": norm, **means}

    def end_step(
        self,
        figures: dict[str, float],
        preview: Callable[[], np.ndarray] | None = None,
        state: dict[str, Any] | None = None,
    ) -> None:
        """Log the step; a picture and a checkpoint where they are due, and at the end.

        ``preview`` makes a picture for the log, uint8 [H, W, 3], in all processes; ``state`` is what a checkpoint must
        hold beside weights and optimizers, as JSON.
        """
        options, main = self.options, self.accelerator.is_main_process
        self.log.step(self.done, figures)
        self.done, self.stage_state, self._updating = self.done + 1, state or {}, False
        if preview and self._due(options.preview_every):
            picture = preview()
            if main:
                self.log.picture(self.done - 1, picture)
        if self._due(options.save_every):
            self.save()
        signalled = processes.most(self._signal)
        if signalled and self.done % self.every == 0 and self.done < options.steps:
            raise Stopped(signalled)

    def save(self) -> None:
        """Collective. Raises UserError where a weight is no number; the checkpoint before stays."""
        self.log.flush()
        state = {"step": self.done, "seconds": self.log.seconds, "stage": self.stage_state}
        save_checkpoint(self.out, self.trained, state)
        self._unproven = self.done < self.options.steps
        if not self._unproven and self.accelerator.is_main_process:
            drop_older(self.out)
        self.accelerator.wait_for_everyone()

    # --------------------------------------------------------------------------------- signals

    def on_signal(self, number: int, frame: Any) -> None:
        """Stop at once where that loses nothing, else after the step; a second signal does not wait."""
        between = not self._updating and self.done % self.every == 0 and self.accelerator.num_processes == 1
        if between:
            raise Stopped(number)
        if self._signal:
            raise KeyboardInterrupt
        self._signal = number

    def save_and_say(self, stopped: Stopped) -> None:
        checkpoint = newest_checkpoint(self.out)
        if self.done and (checkpoint is None or read_json_object(checkpoint / "state.json")["step"] != self.done):
            self.save()
        if self.accelerator.is_main_process:
            name = signal.Signals(stopped.number).name
            where = f"go on from step {self.done} with --resume" if self.done else "before its first step"
            print(f"janus-r1: stopped by {name}: {where}", file=sys.stderr, flush=True)

    # ---------------------------------------------------------------------------- inside a step

    def _backward(self, batches: Sequence[Any], loss: Loss) -> dict[str, Figure]:
        """Gradients of all batches; returns summed figures.

        Processes exchange gradients once a step, but under FSDP2 after every batch: it would keep them whole until
        then.
        """
        sums: dict[str, Any] = {"loss": 0.0}
        for index, batch in enumerate(batches):
            last = index + 1 == len(batches)
            self.accelerator.sync_gradients = last  # where DeepSpeed makes its step
            together = last or self.accelerator.is_fsdp2
            with nullcontext() if together else self.accelerator.no_sync(self.module):
                value, parts = loss(self.module, batch)
                self.accelerator.backward(value)
            for name, part in {"loss": value, **parts}.items():
                number = part.detach().double() if isinstance(part, torch.Tensor) else part
                sums[name] = sums.get(name, 0.0) + number
        return sums

    def _mean_over_processes(self, figures: dict[str, float]) -> dict[str, float]:
        if self.accelerator.num_processes == 1:
            return figures
        values = torch.tensor(list(figures.values()), dtype=torch.float64, device=self.accelerator.device)
        return dict(zip(figures, self.accelerator.reduce(values, "mean").tolist(), strict=True))

    def _stop_if_broken(self, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        last = f"the last checkpoint in {self.out} is whole"
        if self._unproven and self.accelerator.is_main_process and (good := drop_newest(self.out)):
            last = f"the weights were of no use before it; {good} is whole"  # which only a step from them could tell
        told = f"step {self.done}: the loss or its gradient is not a number"
        if newest_checkpoint(self.out) is None:
            raise UserError(f"{told}, before the first checkpoint: begin again with a lower --lr")
        raise UserError(f"{told}; {last}: go on from it with --resume and a lower --lr")

    def _due(self, every: int) -> bool:
        return self.done == self.options.steps or (every > 0 and self.done % every == 0)


def _numbers(sums: Mapping[str, Figure]) -> dict[str, float]:
    """Figures of which some are still on the device, which is waited for once."""
    held = {name: value for name, value in sums.items() if isinstance(value, torch.Tensor)}
    numbers = torch.stack(list(held.values())).tolist() if held else []
    return {**sums, **dict(zip(held, numbers, strict=True))}  # type: ignore[dict-item]


@contextmanager
def _signals(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """SIGTERM and Ctrl-C go to ``handler`` meanwhile; one that is ignored (nohup, a shell's background) stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [number for number in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


# ------------------------------------------------------------------------------- beginning a run


def _begin(out: Path, trained: Trained, recipe: Any, resume: bool) -> dict[str, Any]:
    """Prepare the run's folder; returns the state to start from, weights already loaded."""
    resolved = json.loads(json.dumps(asdict(recipe)))
    checkpoint = newest_checkpoint(out)
    if checkpoint is None:
        write_json(out / "recipe.json", resolved)
        write_json(out / "environment.json", environment() | processes.spread())
        return {"step": 0, "seconds": 0.0}
    if not resume:
        raise UserError(f"{out} already holds a run: pass --resume to continue it, or another --run.out")
    before = read_json_object(out / "recipe.json")
    changed = [key for key in resolved if key != "run" and before.get(key) != resolved[key]]
    if forbidden := [key for key in changed if key not in MAY_CHANGE]:
        raise UserError(f"cannot resume {out}: the recipe changed in {', '.join(forbidden)}")
    state = read_state(checkpoint)
    load_weights(checkpoint, trained)
    if processes.this_process().is_main_process:
        write_json(out / f"environment_{checkpoint.name}.json", environment() | processes.spread())
        _record_changes(out, int(state["step"]), before, resolved)
    return state


def _record_changes(out: Path, step: int, before: dict[str, Any], now: dict[str, Any]) -> None:
    """A line in changes.jsonl for what the resumed run does in another way; recipe.json says how it goes on."""
    changed = {key: [before.get(key), now[key]] for key in now if before.get(key) != now[key]}
    if changed:
        with (out / "changes.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "changed": changed}) + "\n")
        write_json(out / "recipe.json", now)


# --------------------------------------------------------------------------------- learning rate


def lr_share(step: int, options: RunOptions) -> float:
    """The learning rate of a step as a share of its peak: linear warm-up under the schedule's fall to ``final_lr``."""
    rise = (step + 1) / max(1, options.warmup)
    if options.schedule == "trapezoid":
        left = (options.steps - step) / max(1.0, options.steps * options.cooldown)
        return max(options.final_lr, min(1.0, rise, left))
    return min(1.0, rise, _fall(step, options))


def _fall(step: int, options: RunOptions) -> float:
    """From 1 after the warm-up to ``final_lr``, over the knee if there is one (paper: linear, then cosine)."""
    start, knee = options.warmup, options.knee
    if step < knee:
        return 1 + (options.knee_lr - 1) * _progress(step, start, knee)
    top = options.knee_lr if knee else 1.0
    gone = _progress(step, knee or start, options.steps - 1)
    if options.schedule == "cosine":
        gone = (1 - math.cos(math.pi * gone)) / 2
    return top + (options.final_lr - top) * gone


def _progress(step: int, start: int, end: int) -> float:
    return min(1.0, max(0.0, (step - start) / max(1, end - start)))
