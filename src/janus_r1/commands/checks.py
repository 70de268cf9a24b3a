"""What commands refuse before slow work."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from janus_r1.errors import UserError, first_line, require
from janus_r1.files import check_replaceable


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
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise UserError(f"{path} exists already: pass --overwrite to replace it, or choose another --out")
    check_replaceable(path, "folder")
    if any(path.iterdir()) and not (path / ours).is_file():
        raise UserError(f"{path} was not written by this command (no {ours} in it): choose another --out")
