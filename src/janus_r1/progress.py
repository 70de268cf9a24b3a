"""How far long work is: a live table above a bar on a terminal, lines elsewhere; both with the time left."""

from __future__ import annotations

import math
import time
from collections import deque
from statistics import fmean

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

MEMORY = 20  # updates that the live table averages over


def reporter(name: str, start: int, total: int, unit: str = "step", every: int = 1) -> LiveTable | Lines:
    """Something to :meth:`update`; where there is no terminal it prints a line every ``every`` units.

    A ``total`` of 0 is not known.
    """
    if Console(stderr=True).is_terminal:
        return LiveTable(name, start, total)
    return Lines(start, total, unit, every)


class Lines:
    def __init__(self, start: int, total: int, unit: str, every: int) -> None:
        self.start, self.total, self.unit, self.every = start, total, unit, every
        self.began = time.monotonic()

    def update(self, done: int, figures: dict[str, float]) -> None:
        if done % self.every and done != self.total:
            return
        pace = (time.monotonic() - self.began) / (done - self.start)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if not self.total:
            print(f"{self.unit} {done}  {shown}", flush=True)
            return
        left = pace * (self.total - done) / 60
        print(f"{self.unit} {done}/{self.total}  {shown}  {pace:.2f} s/{self.unit}  {left:.1f} min left", flush=True)

    def stop(self) -> None: ...


class LiveTable:
    """Every figure of the last update, and its mean over the last :data:`MEMORY`, above a progress bar."""

    def __init__(self, name: str, start: int, total: int, console: Console | None = None) -> None:
        columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
        self.bar = Progress(*columns)
        self.task = self.bar.add_task(name, total=total or None, completed=start)
        self.recent: dict[str, deque[float]] = {}
        self.live = Live(self.bar, console=console or Console(stderr=True), refresh_per_second=4)
        self.live.start()

    def update(self, done: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.recent.setdefault(name, deque(maxlen=MEMORY)).append(value)
        self.bar.update(self.task, completed=done)
        self.live.update(Group(self.table(), self.bar))

    def table(self) -> Table:
        table = Table("", "now", f"last {MEMORY}", box=None)
        for name, values in self.recent.items():
            known = [value for value in values if not math.isnan(value)]
            table.add_row(name, f"{values[-1]:.4g}", f"{fmean(known):.4g}" if known else "-")
        return table

    def stop(self) -> None:
        self.live.stop()
