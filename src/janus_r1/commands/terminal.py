"""What every command shares: stdout for answers, stderr for everything else, checks before slow work."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from janus_r1.errors import UserError, first_line, require

if TYPE_CHECKING:
    from janus_r1.api import JanusR1


def say(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


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


def load_model(name: str, dtype: str, device: str, weights: str | None = None) -> JanusR1:
    """The model, without transformers' own bars and notes.

    Raises:
        UserError: for whatever is wrong with the device or with the model's files.
    """
    say(f"loading {name} ({dtype}, {device})")
    quiet_transformers()
    from janus_r1.api import JanusR1

    check_device(device)
    with loading_errors(name):
        return JanusR1.from_pretrained(name, dtype=dtype, device=device, weights=weights)


def quiet_transformers() -> None:
    """No bars and notes of transformers' own."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@contextlib.contextmanager
def loading_errors(name: str) -> Iterator[None]:
    """A config is a user's file too, and transformers raises anything about it: one line for all."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(f"cannot load the model {name}: {first_line(error)}") from error


def check_texts(texts: Sequence[str], kind: str = "prompt", task: str = "draw") -> None:
    """Raises UserError, before a model is loaded, where one is blank."""
    for text in texts:
        require(bool(text.strip()), f"the {kind} is empty: say what to {task}")


def check_device(name: str) -> None:
    """Raises UserError for a device that torch does not know or this machine does not have."""
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"no device {name!r} here: {first_line(error)}") from None


def check_writable(path: Path) -> None:
    """Find out before slow work whether ``path`` can be written; leaves nothing behind.

    Raises:
        UserError: if a parent is a file, or the disk refuses.
    """
    if path.name in ("", ".", ".."):
        raise UserError(f"--out {path} names no new file or folder: choose a name inside it")
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise UserError(f"cannot write {path}: {parent} is a file")
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise UserError(f"cannot write {path}: {os.strerror(error.errno or 0)}; choose another --out") from None


def check_new_folder(path: Path, overwrite: bool, ours: str) -> None:
    """As :func:`check_writable`, and never replace a folder that does not hold the file ``ours``.

    Raises:
        UserError: if ``path`` exists and may not be replaced.
    """
    check_writable(path)
    if not path.exists():
        return
    if not overwrite:
        raise UserError(f"{path} exists already: pass --overwrite to replace it, or choose another --out")
    if not path.is_dir() or (any(path.iterdir()) and not (path / ours).exists()):
        raise UserError(f"{path} was not written by this command (no {ours} in it): choose another --out")
