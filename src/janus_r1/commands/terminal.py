"""Stdout for answers, stderr for everything else."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def say(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Something is not as the user may think."""
    say(f"janus-r1: warning: {text}")


def note(text: str) -> None:
    """Something is done otherwise than was asked for."""
    say(f"janus-r1: note: {text}")


def print_json(value: dict[str, Any]) -> None:
    """The one JSON object of a command called with ``--json``."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


@contextlib.contextmanager
def answers_only(quiet: bool) -> Iterator[None]:
    """With ``quiet``, whatever else prints goes to stderr: stdout holds the JSON object alone."""
    with contextlib.redirect_stdout(sys.stderr) if quiet else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with ETA on stderr; nothing where stderr is no terminal. Yields ``update(done, total)``."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
