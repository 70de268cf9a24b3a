"""The one writer: nothing is ever half-written, and nothing is replaced that this project did not write.

Output goes to a temporary name beside the target, which is then renamed. A folder that is written this way holds an
empty file :data:`MARKER`; only folders that hold it are ever replaced.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from janus_r1.errors import UserError, first_line

MARKER = ".janus-r1"
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}  # what a disk says that cannot be written
Kind = Literal["file", "folder"]


def check_replaceable(path: Path, kind: Kind) -> None:
    """Whether a new ``kind`` may take the place of ``path``: of nothing, of a regular file, or of a folder of ours.

    Raises:
        UserError: for a link, a device or a FIFO, a file where a folder is to be or the reverse, and a folder
            that was not written by this project.
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISDIR(mode):
        if kind == "file":
            raise UserError(f"{path} is a folder: name a file in it, or another one")
        if not (path / MARKER).is_file() and any(path.iterdir()):
            raise UserError(f"{path} was not written by janus-r1 (no {MARKER} in it): choose another name")
    elif not stat.S_ISREG(mode):
        raise UserError(f"{path} is a link, a device or a pipe, which is never replaced: choose another name")
    elif kind == "folder":
        raise UserError(f"{path} is a file: choose another name for the folder")


def check_new_files(overwrite: bool, *paths: Path | None) -> None:
    """As :func:`check_replaceable`, of files that the user named, before slow work.

    Raises:
        UserError: also if there is a file that the user did not give up.
    """
    for path in filter(None, paths):
        check_replaceable(path, "file")
        if os.path.lexists(path) and not overwrite:
            raise UserError(f"{path} exists already: pass --overwrite to replace it, or choose another name")


def write_atomically(path: Path, write: Callable[[Path], None], kind: Kind = "folder") -> None:
    """Call ``write`` with a temporary path at which it leaves a file or a folder, then rename it to ``path``.

    Raises:
        UserError: when ``path`` may not be replaced (:func:`check_replaceable`; ``write`` is not called then), or
            the disk refuses (full, read-only); what was at ``path`` before is untouched.
    """
    path = Path(path)
    check_replaceable(path, kind)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        if kind == "folder":
            (temporary / MARKER).touch()
        _replace(temporary, path)
    except BaseException as error:
        _remove(temporary)
        if why := _refusal(error):
            raise UserError(f"cannot write {path}: {why}; free some space or choose another --out") from error
        raise


@contextmanager
def appending(path: Path, further: str = "go on with --resume") -> Iterator[None]:
    """For what grows line by line in or at ``path``: a disk that refuses is told in one line, and what to do then.

    Raises:
        UserError: where the disk is full, read-only or broken.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise UserError(f"cannot write {path}: {error.strerror}; free some space, then {further}") from error


def _refusal(error: BaseException) -> str | None:
    """What the disk said, in one line; None for any other error. torch and safetensors wrap what it says."""
    if isinstance(error, OSError):
        return error.strerror or first_line(error)
    wrapped = type(error).__name__ == "SafetensorError" or (
        isinstance(error, RuntimeError)
        and any(word in str(error) for word in ("PytorchStreamWriter", "unexpected pos"))
    )
    return first_line(error) if wrapped else None


def _replace(temporary: Path, path: Path) -> None:
    """Rename over ``path``. A folder cannot be renamed over, so the old one steps aside first."""
    if not path.is_dir():
        os.replace(temporary, path)
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    os.replace(path, aside)
    try:
        os.replace(temporary, path)
    except OSError:
        os.replace(aside, path)
        raise
    shutil.rmtree(aside)


LEFT = re.compile(r"\.(?P<name>.+)\.\d+\.(?P<kind>tmp|old)(?P<suffix>\.\w+)?")  # names of write_atomically


def clear_left(folder: Path) -> None:
    """Away with what a killed writer left in ``folder``, which this process holds; what it moved aside comes back."""
    for path in folder.glob(".*"):
        if found := LEFT.fullmatch(path.name):
            target = folder / f"{found['name']}{found['suffix'] or ''}"
            if found["kind"] == "old" and not os.path.lexists(target):
                os.replace(path, target)
            else:
                _remove(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold ``path``, a file or folder that exists or is to be made, for this process; the system lets go at its end.

    Raises:
        UserError: if another process holds it, or nothing can be written beside it.
    """
    path = Path(path).absolute()
    beside = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(beside)
    except BlockingIOError:
        raise UserError(f"{path} is in use by another janus-r1 process: wait for it, or choose another name") from None
    except OSError as error:
        raise UserError(f"cannot write beside {path}: {error.strerror or error}") from None
    try:
        yield
    finally:
        beside.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(beside: Path) -> int:
    """The descriptor of a locked file. Raises BlockingIOError while another process holds it."""
    while True:
        descriptor = os.open(beside, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # its last holder may have removed the file between our opening and our locking it
            if os.fstat(descriptor).st_ino == os.lstat(beside).st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """A whole file or none, as :func:`write_atomically`. Half a surrogate pair is spelt ``\\ud800``, as JSON does."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")

    write_atomically(path, write, "file")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
