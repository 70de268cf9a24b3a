"""What a training run leaves to read: metrics.jsonl, trackers, and a bar or lines with an ETA."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from janus_r1.errors import UserError, first_line
from janus_r1.files import write_text
from janus_r1.progress import reporter
from janus_r1.reading import open_regular


class RunLog:
    """One row a step in metrics.jsonl; every ``every`` steps also the trackers and the terminal.

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
        trackers: Sequence[str] = (),
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
        self.trackers = [tracker for name in trackers if (tracker := _tracker(name, out, start))]
        self.headline = headline
        self.causes: set[str] = set()
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
        asked = self.headline  # "abstained" stands for "abstained: CAUSE", too
        shown = {name: value for name, value in figures.items() if not asked or name.partition(": ")[0] in asked}
        self.causes |= {name for name in shown if ": " in name}
        gone = (name for name in sorted(self.causes) if name.partition(": ")[0] in shown)
        shown = dict.fromkeys(gone, 0.0) | shown  # a cause that is not met any more is shown as 0, not as it was
        self.reporter.update(step + 1, shown)
        if (step + 1) % self.every and step + 1 != self.steps:
            return
        for tracker in self.trackers:
            tracker.log(figures, step=step)

    def picture(self, step: int, pixels: Any | None) -> None:
        """A sheet of chains, uint8 [H, W, 3], for the trackers that take pictures."""
        for tracker in self.trackers:
            if pixels is not None and hasattr(tracker, "log_images"):
                layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({"chains": pixels[None]}, step=step, **layout)

    def flush(self) -> None:
        """Before a checkpoint: no step of it may miss its row."""
        if self.main:
            self.file.flush()

    def close(self) -> None:
        if not self.main:
            return
        self.file.close()
        for tracker in self.trackers:
            tracker.finish()
        self.reporter.stop()


def forget_after(path: Path, start: int) -> None:
    """Drop rows of steps that a killed run logged beyond its last checkpoint."""
    with open_regular(path) as file:
        lines = file.read().splitlines(keepends=True)
    kept: list[bytes] = []
    for number, line in enumerate(lines, 1):
        try:
            if json.loads(line)["step"] < start:  # NaN may stand there, where there was nothing to take a mean of
                kept.append(line)
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number} is damaged: {error!r:.60}; mend or remove it") from None
            break  # the line the kill cut in half
    write_text(path, b"".join(kept).decode())


def _tracker(name: str, out: Path, start: int) -> Any | None:
    """One of accelerate's trackers, under the run's name; None for TensorBoard where it is not installed.

    Raises:
        UserError: for a name that is none, or a tracker whose package is missing or will not start.
    """
    try:
        kind = LOGGER_TYPE_TO_CLASS.get(name)
    except TypeError:
        kind = None
    if kind is None:
        raise UserError(f"run.trackers: no tracker {name!r}: choose from {', '.join(LOGGER_TYPE_TO_CLASS)}, or []")
    try:
        options: dict[str, Any] = {"logging_dir": out, "purge_step": start or None} if name == "tensorboard" else {}
        tracker = kind("tensorboard" if name == "tensorboard" else out.name, **options)
        if hasattr(tracker, "start"):  # since accelerate 1.11 apart from the constructor
            tracker.start()
    except ImportError:
        if name == "tensorboard":  # the default: the extra "track" need not be installed
            return None
        raise UserError(f"run.trackers: {name} is not installed: pip install {name}") from None
    except Exception as error:  # no network, no login: whatever the tracker's own library raises
        raise UserError(f"run.trackers: {name} does not start: {first_line(error)}") from None
    return tracker
