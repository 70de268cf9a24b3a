"""What a training run leaves to read: metrics.jsonl, TensorBoard, and a bar or lines with an ETA."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from janus_r1.files import write_atomically

MEMORY = 20  # steps that the live table averages over


class RunLog:
    """One row a step in metrics.jsonl; every ``every`` steps also TensorBoard and the terminal.

    On a terminal a live table (the last step beside the mean of the last 20) above a bar with the time
    left; elsewhere a line every ``every`` steps. ``headline`` names the figures that are shown there,
    all by default. Only the ``main`` process writes.
    """

    def __init__(
        self,
        out: Path,
        start: int,
        steps: int,
        every: int,
        seconds: float,
        headline: Sequence[str] = (),
        main: bool = True,
    ) -> None:
        self.start, self.steps, self.every, self.main = start, steps, every, main
        self.path = out / "metrics.jsonl"
        self.before, self.began = seconds, time.monotonic()
        if not main:
            return
        if start:
            forget_after(self.path, start)
        else:
            self.path.unlink(missing_ok=True)  # rows of a run that never reached a checkpoint
        self.file = self.path.open("a", encoding="utf-8")
        self.writer = _tensorboard(out / "tensorboard", start)
        self.headline = headline
        self.live = LiveTable(out.name, start, steps) if Console(stderr=True).is_terminal else None

    @property
    def seconds(self) -> float:
        """Of the whole run, earlier sessions included."""
        return self.before + time.monotonic() - self.began

    def step(self, step: int, figures: dict[str, float]) -> None:
        if not self.main:
            return
        row = {"step": step, **figures}
        self.file.write(json.dumps(row) + "\n")
        shown = {name: value for name, value in figures.items() if not self.headline or name in self.headline}
        if self.live:
            self.live.update(step, shown)
        if (step + 1) % self.every and step + 1 != self.steps:
            return
        if self.writer:
            for name, value in row.items():
                self.writer.add_scalar(name, value, step)
        if not self.live:
            pace = (time.monotonic() - self.began) / (step + 1 - self.start)
            left = pace * (self.steps - step - 1) / 60
            line = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
            print(f"step {step + 1}/{self.steps}  {line}  {pace:.2f} s/step  {left:.1f} min left", flush=True)

    def picture(self, step: int, pixels: Any | None) -> None:
        """A sheet of chains, uint8 [H, W, 3], for TensorBoard."""
        if pixels is not None and self.writer:
            self.writer.add_image("chains", pixels, step, dataformats="HWC")

    def flush(self) -> None:
        """Before a checkpoint: no step of it may miss its row."""
        if self.main:
            self.file.flush()

    def close(self) -> None:
        if not self.main:
            return
        self.file.close()
        if self.writer:
            self.writer.close()
        if self.live:
            self.live.stop()


class LiveTable:
    """Every figure of the last step, and its mean over the last :data:`MEMORY`, above a progress bar."""

    def __init__(self, name: str, start: int, steps: int) -> None:
        columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
        self.bar = Progress(*columns)
        self.task = self.bar.add_task(name, total=steps, completed=start)
        self.recent: dict[str, deque[float]] = {}
        self.live = Live(self.bar, console=Console(stderr=True), refresh_per_second=4)
        self.live.start()

    def update(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.recent.setdefault(name, deque(maxlen=MEMORY)).append(value)
        self.bar.update(self.task, completed=step + 1)
        table = Table("", "now", f"last {MEMORY}", box=None)
        for name, values in self.recent.items():
            known = [value for value in values if not math.isnan(value)]
            table.add_row(name, f"{values[-1]:.4g}", f"{fmean(known):.4g}" if known else "-")
        self.live.update(Group(table, self.bar))

    def stop(self) -> None:
        self.live.stop()


def forget_after(path: Path, start: int) -> None:
    """Drop rows of steps that a killed run logged beyond its last checkpoint."""
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] < start:
                kept.append(line + "\n")
        except json.JSONDecodeError:  # the line the kill cut in half
            break
    write_atomically(path, lambda temporary: _write_lines(temporary, kept))


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(lines), encoding="utf-8")


def _tensorboard(folder: Path, start: int) -> Any | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # the extra "track" is not installed
        return None
    return SummaryWriter(str(folder), purge_step=start or None)
