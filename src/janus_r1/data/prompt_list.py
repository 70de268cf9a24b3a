"""Lists of prompts as people have them: text, JSON lines, a JSON list, or a table with a header."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from janus_r1.errors import UserError, require
from janus_r1.layout import clean
from janus_r1.reading import MAX_TEXT, parse_json, read_table, read_text

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
