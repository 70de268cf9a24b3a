"""The one reader: every file that comes from outside is opened here, with limits, and complained of in one line.

Only regular files are opened (a FIFO would wait for ever, a device never ends), up to a size that fits their kind; JSON
may nest :data:`MAX_DEPTH` levels and holds no NaN; what is damaged is named with its place.
"""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from janus_r1.errors import UserError, first_line

MAX_TEXT = 256 * 2**20  # bytes of a prompt list, a JSONL or a result file
MAX_RECIPE = 2**20
MAX_DEPTH = 64
MAX_VALUES = 100_000  # of a YAML file, in which one line may stand for thousands
Parsed = TypeVar("Parsed")


def open_regular(path: str | Path, limit: int | None = None) -> io.BufferedReader:
    """``path`` opened to read bytes, without ever waiting for it.

    Raises:
        UserError: if it is missing, not a regular file (links are followed), larger than ``limit`` bytes, or refused
            by the system.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer before we can see that it is one
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and (limit is None or status.st_size <= limit):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is larger ({status.st_size:,} bytes) than such a file may be ({limit:,})")
    kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or a pipe"
    raise UserError(f"{path} is {kind}, not a file")


def read_text(path: str | Path, limit: int = MAX_TEXT) -> str:
    """The text of a UTF-8 file, a byte-order mark dropped.

    Raises:
        UserError: as :func:`open_regular`, and if it is not UTF-8.
    """
    with open_regular(path, limit) as file:
        try:
            return file.read(limit + 1).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 text (byte {error.start})") from None
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def parse_json(text: str, place: str) -> Any:
    """The JSON value that ``text`` holds; ``place`` is for the complaint.

    Raises:
        UserError: if it is not JSON, nests too deep, or holds NaN, an infinity or half a surrogate pair.
    """
    try:
        value = json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise UserError(f"{place} nests too deep to be read") from None
    except ValueError as error:  # JSONDecodeError, and integers of thousands of digits
        raise UserError(f"cannot read {place} as JSON: {first_line(error)}") from None
    _check(value, place, MAX_DEPTH)
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _check(value: Any, place: str, depth: int) -> None:
    if depth == 0:
        raise UserError(f"{place} nests too deep to be read")
    if isinstance(value, dict):
        for key, item in value.items():
            _check(key, place, depth)
            _check(item, place, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, place, depth - 1)
    elif isinstance(value, str) and not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError(f"{place} holds half a surrogate pair, which is no character") from None


def read_json(path: str | Path, limit: int = MAX_TEXT) -> Any:
    """The value of a JSON file.

    Raises:
        UserError: as :func:`read_text` and :func:`parse_json`.
    """
    return parse_json(read_text(path, limit), str(path))


def read_json_object(path: str | Path, limit: int = MAX_TEXT) -> dict[str, Any]:
    """As :func:`read_json`, of a file that must hold an object.

    Raises:
        UserError: also if it holds anything else.
    """
    value = read_json(path, limit)
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object, not {_kind(value)}")
    return value


def read_jsonl(path: str | Path, limit: int = MAX_TEXT) -> Iterator[tuple[str, Any]]:
    """(place, value) of every line that is not blank; ``place`` is "FILE, line N", for complaints.

    Raises:
        UserError: for the first line that is broken.
    """
    for number, line in enumerate(read_text(path, limit).split("\n"), 1):
        if line.strip():
            place = f"{path}, line {number}"
            yield place, parse_json(line, place)


def read_table(path: str | Path, limit: int = MAX_TEXT) -> Iterator[tuple[str, dict[str, str]]]:
    """(place, row) of a CSV file, or of a TSV by its name; the first line names the columns.

    Raises:
        UserError: if there is no header, or a row has another number of cells than it.
    """
    text = read_text(path, limit)
    delimiter = "\t" if str(path).endswith(".tsv") else ","
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header = next(rows, [])
        if not header or len(set(header)) < len(header) or any(not name.strip() for name in header):
            raise UserError(f"{path}: the first line must name every column once")
        names = [name.strip() for name in header]
        for row in rows:
            if not row:
                continue
            place = f"{path}, line {rows.line_num}"
            if len(row) != len(names):
                raise UserError(f"{place}: {len(row)} cells under {len(names)} columns")
            yield place, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}: not a table that can be read: {error}") from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; an empty file holds an empty one.

    Raises:
        UserError: if it is not YAML or holds anything else.
    """
    try:
        value = yaml.safe_load(read_text(path, MAX_RECIPE))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {_where(error)}") from None
    except (RecursionError, ValueError, OverflowError) as error:  # deep nesting; dates and integers that are none
        why = "it nests too deep" if isinstance(error, RecursionError) else first_line(error)
        raise UserError(f"{path} is not valid YAML: {why}") from None
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold keys with values, not {_kind(value)}")
    check_tree(value, str(path))
    return value


def check_tree(value: Any, place: str) -> None:
    """Whether what YAML makes of a text, in which a part may hold itself, is a tree of a sensible size.

    Raises:
        UserError: if it nests too deep or holds too much.
    """
    left, count = [(value, 0)], 0
    while left:
        item, depth = left.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise UserError(f"{place} {'nests too deep' if depth > MAX_DEPTH else 'holds too much'} to be read")
        inner = [*item.keys(), *item.values()] if isinstance(item, dict) else item
        if isinstance(inner, list | tuple):
            left += [(one, depth + 1) for one in inner]


def _where(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return first_line(error) if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def field(record: Any, key: str, kind: type[Parsed] | Callable[[Any], Parsed], place: str) -> Parsed:
    """``record[key]``, which must be a ``kind`` (``bool`` is no ``int``).

    Raises:
        UserError: if ``record`` is no object, lacks the key, or holds another kind of value there.
    """
    if not isinstance(record, dict) or key not in record:
        raise UserError(f"{place} lacks {key!r}")
    value = record[key]
    fits = isinstance(value, kind) if isinstance(kind, type) else True
    if kind is float and isinstance(value, int):
        fits = True
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{place}: {key!r} holds {_kind(value)}, not {getattr(kind, '__name__', 'what it should')}")
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")
