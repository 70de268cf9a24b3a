"""Tasks that the user's files list: prompts to draw, and edits with the paths of their images.

Prompts: see ``prompt_list``. Edits, in two forms, as JSONL or as a JSON list; a folder stands for all such files in it:

* ``{"instruction": ..., "source": path, "target": path}``
* the official code's rows, ``{"sample_id": ..., "text": ..., "input": path, "output": path}``

Paths are relative to the file that names them, or to its parent folder (the official data keeps its rows
in a folder of their own).
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from janus_r1.chain import Task
from janus_r1.data.prompt_list import read_prompt_list
from janus_r1.errors import UserError
from janus_r1.images import read_image
from janus_r1.layout import clean
from janus_r1.reading import read_json, read_jsonl

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
    rows = [_edit(file, number, row, targets) for file in files for number, row in _rows(file)]
    if not rows:
        raise UserError(
            f'{path} holds no edits: expected rows like {{"instruction": ..., "source": ..., "target": ...}}'
        )
    return rows


def _rows(file: Path) -> Iterator[tuple[int, Any]]:
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
