"""Whole files made odd by chance: cut, flipped, replaced by what is none, one value of their JSON changed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

ODD_VALUES: list[Any] = [None, True, -1, 0, 10**30, 1e308, float("nan"), float("inf"), "", "x", "\ud800", "a\0b"]
ODD_VALUES += ["\x1b[31m", "../../etc/passwd", "/dev/zero", "<begin_of_image>", "x" * 70_000, [], {}, [[]], {"a": []}]


def copied(root: Path, name: str, here: Path) -> Path:
    return Path(shutil.copytree(root / name, here / name))


def files_in(folder: Path, *suffixes: str) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in suffixes]


def damage(rng: random.Random, path: Path) -> None:
    """Cut, flip or replace a file by what is none."""
    data = path.read_bytes()
    kind = rng.randrange(7)
    path.unlink()
    if kind == 0:
        path.write_bytes(data[: rng.randrange(max(1, len(data)))])
    elif kind == 1 and data:
        at = rng.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :])
    elif kind == 2:
        path.write_bytes(bytes(rng.randrange(256) for _ in range(rng.randrange(300))))
    elif kind == 3:
        path.write_bytes(rng.choice([b"", b"null", b"[]", b"{}", b"[" * 100_000, b"\xff\xfe", b"3", b'"x"', b"{" * 99]))
    elif kind == 4:
        os.mkfifo(path)
    elif kind == 5:
        path.symlink_to(rng.choice([Path("/dev/zero"), path, path.parent]))
    else:
        path.mkdir()


def changed(rng: random.Random, value: Any) -> Any:
    """``value`` with one part of it, wherever, replaced or left out."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.2:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: changed(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        if rng.random() < 0.2:
            return value[:at] + value[at + 1 :] * rng.choice([1, 3])
        return [*value[:at], changed(rng, value[at]), *value[at + 1 :]]
    return rng.choice(ODD_VALUES)


def change_json(rng: random.Random, path: Path) -> None:
    """One value of a JSON file, or of a line of JSON lines."""
    text = path.read_text()
    if path.suffix == ".jsonl" and len(lines := text.splitlines()) > 1:
        at = rng.randrange(len(lines))
        lines[at] = json.dumps(changed(rng, json.loads(lines[at])))
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_text(json.dumps(changed(rng, json.loads(text))))


def spoil(rng: random.Random, path: Path) -> None:
    """Either of both; what was spoilt already may be no JSON any more."""
    if path.suffix in (".json", ".jsonl") and rng.random() < 0.7:
        with contextlib.suppress(ValueError, RecursionError):
            return change_json(rng, path)
    damage(rng, path)
