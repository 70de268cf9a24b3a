"""Worker processes that prepare the coming steps while the current one runs.

A stage begins a step: what it must do itself, and a job, a picklable function, which may run anywhere. Both follow
from the step alone, so that it makes no difference whether there are workers. They import what the job needs and
nothing else: a job that knows no torch knows no GPU.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Generic, TypeVar

from janus_r1.errors import UserError, first_line

Kept = TypeVar("Kept")
Made = TypeVar("Made")


class Ahead(Generic[Kept, Made]):
    """``begin`` of a step and what its job made; two steps a worker are in the making."""

    def __init__(self, workers: int, steps: int, begin: Callable[[int], tuple[Kept, Callable[[], Made]]]) -> None:
        self.workers, self.steps, self.begin = workers, steps, begin
        self.coming: dict[int, tuple[Kept, Future[Made]]] = {}
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, step: int) -> tuple[Kept, Made]:
        """
        Raises:
            UserError: where a worker failed, naming the step.
        """
        if not self.workers:
            kept, job = self.begin(step)
            return kept, job()
        for number in range(step, max(step + 1, min(step + 2 * self.workers, self.steps))):
            if number not in self.coming:
                kept, job = self.begin(number)
                self.coming[number] = kept, self._submit(job, number)
        kept, future = self.coming.pop(step)
        self.coming = {number: made for number, made in self.coming.items() if number > step}
        try:
            return kept, future.result()
        except UserError:
            raise
        except Exception as error:
            raise _complaint(step, error) from error

    def _submit(self, job: Callable[[], Made], step: int) -> Future[Made]:
        if self._pool is None:  # started, not forked: a copy of a process that holds a GPU would hang
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, context, initializer=_live_with_parent)
        try:
            return self._pool.submit(job)
        except BrokenProcessPool as error:
            raise _complaint(step, error) from error


def _complaint(step: int, error: Exception) -> UserError:
    if isinstance(error, BrokenProcessPool):
        return UserError(f"step {step}: a worker process died, perhaps for want of memory: set run.workers lower, or 0")
    return UserError(f"step {step}: a worker process failed: {type(error).__name__}: {first_line(error)}")


def _live_with_parent() -> None:
    """An interrupt is the parent's to handle; a parent that was killed takes its workers along."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
