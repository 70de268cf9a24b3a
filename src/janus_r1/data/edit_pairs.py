"""Editing data of the user's own: rows that name a source image, an instruction and, to learn from, the result.

Two forms, as JSONL or as a JSON list; a folder stands for all such files in it:

* ``{"instruction": ..., "source": path, "target": path}``
* the official code's rows, ``{"sample_id": ..., "text": ..., "input": path, "output": path}``

Paths are relative to the file that names them, or to its parent folder (the official data keeps its rows
in a folder of their own).
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from janus_r1.errors import UserError
from janus_r1.images import read_image
from janus_r1.layout import clean

FORMS = (("instruction", "source", "target"), ("text", "input", "output"))
PATIENCE = 20  # unreadable pairs in a row before reading gives up


@dataclass(frozen=True)
class EditPair:
    id: str
    """``sample_id``, else file and line."""
    instruction: str
    source: Path
    target: Path | None
    """Not needed where results are scored instead of learnt."""


def read_pairs(path: str | Path, targets: bool = True) -> list[EditPair]:
    """All pairs of a file, or of the ``*.jsonl`` and ``*.json`` files of a folder.

    Raises:
        UserError: for the first row that is broken, names a file that is missing, or lacks its result
            although ``targets`` are wanted; and when there is no row at all.
    """
    path = Path(path)
    files = sorted([*path.glob("*.jsonl"), *path.glob("*.json")]) if path.is_dir() else [path]
    pairs = [_pair(file, number, row, targets) for file in files for number, row in _rows(file)]
    if not pairs:
        raise UserError(
            f'{path} holds no edits: expected rows like {{"instruction": ..., "source": ..., "target": ...}}'
        )
    return pairs


def _rows(file: Path) -> Iterator[tuple[int, Any]]:
    """Numbered rows: lines of JSONL, entries of a list."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the edits in {file}: {error}") from None
    try:
        if file.suffix == ".json":
            listed = json.loads(text)
            yield from enumerate(listed if isinstance(listed, list) else [listed], 1)
            return
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield number, json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not JSON as its name says: {error}") from None


def _pair(file: Path, number: int, row: Any, targets: bool) -> EditPair:
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
    return EditPair(str(row.get("sample_id", place)), instruction, source, target)


def _found(file: Path, name: str, place: str) -> Path:
    for folder in (file.parent, file.parent.parent):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{place}: no such image: {name} (looked in {file.parent} and {file.parent.parent})")


class PairReader:
    """Pairs in random order, with their pictures. One that cannot be read is named, counted and passed over."""

    def __init__(self, pairs: list[EditPair]) -> None:
        self.pairs = pairs
        self.unreadable: set[str] = set()

    def pick(self, rng: random.Random) -> tuple[EditPair, np.ndarray, np.ndarray | None]:
        """A pair, its source and its target, uint8 [H, W, 3] as they are.

        Raises:
            UserError: when ``PATIENCE`` pairs in a row cannot be read.
        """
        for _ in range(PATIENCE):
            pair = rng.choice(self.pairs)
            try:
                return pair, read_image(pair.source), read_image(pair.target) if pair.target else None
            except UserError as error:
                self._report(pair, error)
        raise UserError(f"{PATIENCE} edits in a row have images that cannot be read, the last of them {pair.id}")

    def _report(self, pair: EditPair, error: UserError) -> None:
        if pair.id not in self.unreadable:
            self.unreadable.add(pair.id)
            print(f"janus-r1: warning: edit {pair.id} is left out: {error}", file=sys.stderr, flush=True)
