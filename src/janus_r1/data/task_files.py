"""Tasks that the user's files list: prompts to draw, and edits with the paths of their images.

Prompts as people have them: text, JSON lines, a JSON list, or a table with a header. Edits in two forms, as JSONL or as
a JSON list; a folder stands for all such files in it:

* ``{"instruction": ..., "source": path, "target": path}``
* the official code's rows, ``{"sample_id": ..., "text": ..., "input": path, "output": path}``

Paths are relative to the file that names them, or to its parent folder (the official data keeps its rows
in a folder of their own).
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from janus_r1.chain import Task
from janus_r1.errors import UserError, require
from janus_r1.images import read_image
from janus_r1.layout import clean
from janus_r1.reading import MAX_TEXT, parse_json, read_json, read_jsonl, read_table, read_text

NAMES = ("prompt", "text", "caption")  # of the key or the column that holds the prompt; the first that is there
KINDS = "text (.txt), JSON lines (.jsonl), a JSON list (.json), or a table with a header (.csv, .tsv)"
Row = tuple[str, dict[str, Any]]


def read_prompt_list(name: str) -> list[Row]:
    """(prompt, the other keys or columns) of every entry of a file; ``-`` is standard input.

    The name tells the kind: ``.jsonl`` holds an object a line, ``.json`` a list of texts or objects, ``.csv`` and
    ``.tsv`` a table whose header names a column ``prompt``, ``text`` or ``caption``; ``.txt``, or no ending, a prompt a
    line, where blank lines and ``#`` comments are skipped. Standard input is JSON where it begins like it.

    Raises:
        UserError: for a file of another kind, one that is missing, damaged or without any prompt, and an entry that is
            none.
    """
    rows = list(_rows(name, Path(name).suffix.lower()))
    require(bool(rows), f"{name} holds no prompt: write one a line")
    return rows


def _rows(name: str, ending: str) -> Iterator[Row]:
    if name == "-":
        text, ending = _standard_input(), ".txt"
        ending = {"[": ".json", "{": ".jsonl"}.get(text.lstrip()[:1], ".txt")
    elif ending in (".csv", ".tsv"):
        for place, row in read_table(name):
            yield _row({key.lower(): value for key, value in row.items()}, place)
        return
    elif ending in ("", ".txt", ".text", ".json", ".jsonl", ".ndjson"):
        text = read_text(name)
    else:
        raise UserError(f"{name}: a list of prompts is {KINDS}, not {ending}")
    if ending == ".json":
        yield from _listed(parse_json(text, name), name)
    elif ending in (".jsonl", ".ndjson"):
        for number, line in _lines(text):
            place = f"{name}, line {number}"
            yield _row(parse_json(line, place), place)
    else:
        require(not _is_json(text), f"{name} looks like JSON: name it .json (a list) or .jsonl (an object a line)")
        texts = ((number, line) for number, line in _lines(text) if not line.startswith("#"))
        yield from (_row({"prompt": line}, f"{name}, line {number}") for number, line in texts)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    return ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def _is_json(text: str) -> bool:
    """Whether a text file holds JSON as a whole, or begins with an object."""
    for part in (text.strip(), text.strip().partition("\n")[0]):
        with contextlib.suppress(UserError):
            return part[:1] in ("[", "{") and parse_json(part, "") is not None
    return False


def _listed(value: Any, name: str) -> Iterator[Row]:
    require(isinstance(value, list), f"{name} must hold a JSON list of prompts, or of objects with a prompt")
    for number, entry in enumerate(value, 1):
        place = f"{name}, entry {number}"
        yield _row({"prompt": entry} if isinstance(entry, str) else entry, place)


def _row(record: Any, place: str) -> Row:
    key = next((key for key in NAMES if isinstance(record, dict) and key in record), None)
    if key is None or not isinstance(record[key], str) or not record[key].strip():
        raise UserError(f'{place}: expected a text under {" or ".join(NAMES)}, such as {{"prompt": "a red circle"}}')
    try:
        prompt = clean(record[key])  # before any work: a run must not end at line 9,000
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    return prompt, {other: value for other, value in record.items() if other != key}


def _standard_input() -> str:
    try:
        text = sys.stdin.read(MAX_TEXT + 1)
    except UnicodeDecodeError as error:
        raise UserError(f"standard input is not UTF-8 text (byte {error.start})") from None
    require(len(text) <= MAX_TEXT, "standard input holds more than a list of prompts may")
    return text.removeprefix("\ufeff")


FORMS = (("instruction", "source", "target"), ("text", "input", "output"))
PATIENCE = 20  # unreadable rows in a row before reading gives up


def read_prompts(name: str) -> list[str]:
    """The texts of :func:`read_tasks`."""
    return [task.prompt for task in read_tasks(name)]


def read_tasks(name: str) -> list[Task]:
    """The prompts of a list in any form that :func:`read_prompt_list` knows; what else an entry says are its columns.

    Raises:
        UserError: if the file is missing or damaged, holds no prompt, or an entry that is none.
    """
    return [Task(prompt, columns=columns) for prompt, columns in read_prompt_list(name)]


# ----------------------------------------------------------------------------------------- edits


@dataclass(frozen=True)
class EditRow:
    """A row of a user's file: its images are read when its task is wanted."""

    id: str
    """``sample_id``, else file and line."""
    instruction: str
    source: Path
    target: Path | None
    """Not needed where results are scored instead of learnt."""

    def task(self) -> Task:
        """Raises UserError where the source cannot be read."""
        return Task(self.instruction, read_image(self.source))


def read_edits(path: str | Path, targets: bool = True) -> list[EditRow]:
    """All rows of a file, or of the ``*.jsonl`` and ``*.json`` files of a folder.

    Raises:
        UserError: for the first row that is broken, names a file that is missing, or lacks its result
            although ``targets`` are wanted; and when there is no row at all.
    """
    path = Path(path)
    files = sorted([*path.glob("*.jsonl"), *path.glob("*.json")]) if path.is_dir() else [path]
    rows = [_edit(file, number, row, targets) for file in files for number, row in _edit_rows(file)]
    if not rows:
        raise UserError(
            f'{path} holds no edits: expected rows like {{"instruction": ..., "source": ..., "target": ...}}'
        )
    return rows


def _edit_rows(file: Path) -> Iterator[tuple[int, Any]]:
    """Numbered rows: lines of JSONL, entries of a list."""
    if file.suffix == ".json":
        listed = read_json(file)
        yield from enumerate(listed if isinstance(listed, list) else [listed], 1)
        return
    yield from enumerate((row for _, row in read_jsonl(file)), 1)


def _edit(file: Path, number: int, row: Any, targets: bool) -> EditRow:
    place = f"{file}, row {number}"
    keys = next((form for form in FORMS if isinstance(row, dict) and form[0] in row), None)
    wanted = keys and (keys if targets else keys[:2])
    if keys is None or wanted is None or not all(isinstance(row.get(k), str) and row[k].strip() for k in wanted):
        raise UserError(f"{place}: expected texts under {' or '.join(', '.join(form) for form in FORMS)}")
    try:
        instruction = clean(row[keys[0]], "instruction", "change")
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    source, target = (_found(file, row[key], place) if row.get(key) else None for key in keys[1:])
    if source is None:
        raise UserError(f"{place}: no source image")
    return EditRow(str(row.get("sample_id", place)), instruction, source, target)


def _found(file: Path, name: str, place: str) -> Path:
    for folder in (file.parent, file.parent.parent):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{place}: no such image: {name} (looked in {file.parent} and {file.parent.parent})")


class ReadableEdit(Protocol):
    """A row of a file or of a store."""

    @property
    def id(self) -> str: ...

    @property
    def target(self) -> Path | None: ...

    def task(self) -> Task: ...


class EditReader:
    """Tasks of rows in random order. One whose images cannot be read is named, counted and passed over."""

    def __init__(self, rows: Sequence[ReadableEdit]) -> None:
        self.rows = rows
        self.unreadable: set[str] = set()

    def pick(self, rng: random.Random) -> tuple[Task, np.ndarray | None]:
        """An edit and its result, uint8 [H, W, 3] as it is; None where the row names none.

        Raises:
            UserError: when ``PATIENCE`` rows in a row cannot be read.
        """
        for _ in range(PATIENCE):
            row = rng.choice(self.rows)
            try:
                return row.task(), read_image(row.target) if row.target else None
            except UserError as error:
                self._report(row, error)
        raise UserError(f"{PATIENCE} edits in a row have images that cannot be read, the last of them {row.id}")

    def _report(self, row: ReadableEdit, error: UserError) -> None:
        if row.id not in self.unreadable:
            self.unreadable.add(row.id)
            print(f"janus-r1: warning: edit {row.id} is left out: {error}", file=sys.stderr, flush=True)
