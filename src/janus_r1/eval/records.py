"""Files of JSON lines that grow while slow work goes on, and survive its end at any moment.

The first line is a header that says what made the rows; work goes on only under the same one. A last line that was
cut off by a kill is dropped. One process at a time writes a file.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from janus_r1.errors import UserError
from janus_r1.files import appending, check_replaceable, locked
from janus_r1.reading import open_regular, parse_json

Row = dict[str, Any]


class Records:
    """Rows of a file that is open for more of them."""

    def __init__(self, file: BinaryIO, rows: list[Row]) -> None:
        self._file, self.rows = file, rows

    def append(self, rows: Sequence[Row]) -> None:
        """On the disk when this returns."""
        if rows:
            self._write(rows)
            self.rows.extend(rows)

    def _write(self, rows: Sequence[Row]) -> None:
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows]
        self._file.write("".join(lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())


@contextlib.contextmanager
def open_records(path: Path, header: Mapping[str, Any]) -> Iterator[Records]:
    """Begin or go on with a file.

    Raises:
        UserError: if another process writes it, it is no such file, or its rows were made otherwise.
    """
    check_replaceable(path, "file")
    with appending(path, "run the same command again"), locked(path):
        data = _bytes(path) if path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        rows = _parse(whole, path)
        if rows:
            _check_header(rows[0], header, path)
        elif not b'{"header": '.startswith(data[:11]):
            raise UserError(f"{path} is not a file of this command: choose another --out")
        with _opened(path) as file:
            file.truncate(len(whole))
            file.seek(len(whole))
            records = Records(file, rows[1:])
            if not rows:
                records._write([{"header": dict(header)}])
            yield records


def read_records(path: Path) -> tuple[Row, list[Row]]:
    """Header and rows; a last line that was cut off is passed over.

    Raises:
        UserError: if the file is missing or is none of ours.
    """
    data = _bytes(path)
    rows = _parse(data[: data.rfind(b"\n") + 1], path)
    if not rows or not isinstance(rows[0].get("header"), dict):
        raise UserError(f"{path} has no header: it was not written by this command")
    return rows[0]["header"], rows[1:]


def _bytes(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+b")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    with file:
        yield file


def _parse(data: bytes, path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(data.splitlines(), 1):
        place = f"{path}, line {number}"
        row = parse_json(line.decode("utf-8", "replace"), place)
        if not isinstance(row, dict):
            raise UserError(f"{place} is not a JSON object: this is not a file of this command")
        rows.append(row)
    return rows


def _check_header(first: Row, header: Mapping[str, Any], path: Path) -> None:
    was = first.get("header")
    if not isinstance(was, dict):
        raise UserError(f"{path} has no header: it was not written by this command; choose another --out")
    now = json.loads(json.dumps(dict(header)))
    changed = [key for key in {**was, **now} if was.get(key) != now.get(key)]
    if changed:
        key = changed[0]
        told = f"{key} was {was.get(key)!r} and is {now.get(key)!r}"
        raise UserError(f"{path} was made with other settings ({told}): choose another --out, or the same settings")
