"""What a training run leaves to read: metrics.jsonl, TensorBoard, and a bar or lines with an ETA."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from janus_r1.files import write_text
from janus_r1.progress import reporter


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
        self.reporter = reporter(out.name, start, steps, every=every)

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
        self.reporter.update(step + 1, shown)
        if (step + 1) % self.every and step + 1 != self.steps:
            return
        if self.writer:
            for name, value in row.items():
                self.writer.add_scalar(name, value, step)

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
        self.reporter.stop()


def forget_after(path: Path, start: int) -> None:
    """Drop rows of steps that a killed run logged beyond its last checkpoint."""
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] < start:
                kept.append(line + "\n")
        except json.JSONDecodeError:  # the line the kill cut in half
            break
    write_text(path, "".join(kept))


def _tensorboard(folder: Path, start: int) -> Any | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # the extra "track" is not installed
        return None
    return SummaryWriter(str(folder), purge_step=start or None)
