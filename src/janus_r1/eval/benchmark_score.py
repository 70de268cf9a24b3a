"""A benchmark's second step: scoring the images of a folder, whoever drew them.

A row an image is written as soon as its batch is scored, so a run that was killed goes on and scores nothing twice.
An image is known by its bytes: one that was replaced is scored anew, and rounds that ended with the same image as an
earlier one share its score. What cannot be scored is a row with ``failed`` and is tried again the next time.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from janus_r1.errors import UserError, first_line, require
from janus_r1.eval.benchmark import Benchmark, Item, Shot, arms
from janus_r1.eval.records import Records, Row, open_records
from janus_r1.images import read_image
from janus_r1.reading import field as field_of
from janus_r1.reading import open_regular


@dataclass(frozen=True)
class Outcome:
    """What a scorer finds: a value in [0, 1], several measures, or why there is neither."""

    value: float | None
    detail: Mapping[str, Any] = field(default_factory=dict)
    failed: str | None = None
    most: float = 1.0
    least: float = 0.0
    """What a value may be; [0, 1] unless the measure is none of shares."""
    measures: Mapping[str, float | None] | None = None
    """By name, of a benchmark without a headline; None where an image has nothing to measure."""

    def __post_init__(self) -> None:
        """Raises ValueError for a value that is no score: a fault of the scorer, never a 0."""
        if sum(one is not None for one in (self.value, self.measures, self.failed)) != 1:
            raise ValueError("an outcome is a value, measures or a failure")
        wrong = [f"{name} {value}" for name, value in (self.measures or {}).items() if not _number(value)]
        if wrong:
            raise ValueError(", ".join(wrong))
        if self.value is not None and not self.least <= self.value <= self.most:
            raise ValueError(f"a value must lie in [{self.least:g}, {self.most:g}], not {self.value}")


def _number(value: float | None) -> bool:
    return value is None or math.isfinite(value)


def failed(why: str) -> Outcome:
    return Outcome(None, failed=why)


class Scorer(Protocol):
    """Looks at images; answers in their order and never raises for a single one."""

    record: Mapping[str, Any]
    """Judge, revision, device, options: whatever a score depends on. Header of the score file."""
    batch: int

    def score(self, shots: Sequence[tuple[Item, np.ndarray]]) -> list[Outcome]: ...


def kind_of(device: str) -> str:
    """``cuda`` of ``cuda:1``: shards on several GPUs of a machine make one result."""
    return device.partition(":")[0]


class Tally(NamedTuple):
    """What a scoring run did."""

    scored: int
    shared: int
    """Images that are equal to scored ones."""
    known: int
    failed: int
    seconds: float
    complaints: list[str]


Progress = Callable[[int, int], None]
Known = dict[tuple[str, str, int | None], Row]


def score_folder(
    benchmark: Benchmark,
    folder: Path,
    scorer: Scorer,
    out: Path,
    *,
    shard: tuple[int, int] = (0, 1),
    on_progress: Progress = lambda done, total: None,
) -> Tally:
    """Score what is not scored yet; rows go to ``out``.

    Raises:
        UserError: if the folder is none of this benchmark, or ``out`` holds rows of another scorer.
    """
    shots, complaints = _survey(benchmark, folder, shard)
    began, counts = time.monotonic(), {"scored": 0, "shared": 0, "known": 0, "failed": 0}
    with open_records(out, {"benchmark": benchmark.name, **scorer.record}) as records:
        told = {row["complaint"] for row in records.rows if "complaint" in row}
        records.append([{"complaint": line} for line in complaints if line not in told])
        rows = {row_key(row): row for row in score_rows(out, records.rows)}
        known = {(r["id"], r["sha256"], r.get("tile")): r for r in rows.values() if is_scored(r)}
        for start in range(0, len(shots), scorer.batch):
            _score_batch(benchmark, folder, scorer, shots[start : start + scorer.batch], records, rows, known, counts)
            on_progress(min(start + scorer.batch, len(shots)), len(shots))
    return Tally(**counts, seconds=time.monotonic() - began, complaints=complaints)


def score_rows(path: Path, rows: Sequence[Row]) -> list[Row]:
    """Those of ``rows`` that tell of an image.

    Raises:
        UserError: for one that this command did not write so.
    """
    told = [row for row in rows if "file" in row]
    for row in told:
        for key in ("arm", "file", "id", "group", "sha256" if is_scored(row) else "file"):
            field_of(row, key, str, f"a row of {path}")
        field_of(row, "index", int, f"a row of {path}")
        numbers = [row[key] for key in ("value", "tile") if row.get(key) is not None]
        fits = all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers)
        require(fits, f"a row of {path} holds a value or a tile that is no number")
    return told


def row_key(row: Row) -> tuple[str, str, int | None]:
    """What a row is about: arm, file and tile. The last row about a thing counts."""
    return row["arm"], row["file"], row.get("tile")


def is_scored(row: Row) -> bool:
    return "value" in row or "measures" in row


def means(rows: Iterable[Mapping[str, Any]], names: str, values: str) -> dict[str, float]:
    """The mean value under every name; a score row's detail holds both as lists of one length."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in zip(row["detail"][names], row["detail"][values], strict=True):
            found.setdefault(name, []).append(value)
    return {name: float(np.mean(own)) for name, own in found.items()}


def _survey(benchmark: Benchmark, folder: Path, shard: tuple[int, int]) -> tuple[list[tuple[str, Shot]], list[str]]:
    """This shard's images with their arms, and everything that is not as it should be."""
    shots, complaints = [], []
    for arm in arms(folder):
        found = benchmark.survey(folder / arm)
        shots += [(arm, shot) for shot in found.shots if int(_digest(shot.file.encode()), 16) % shard[1] == shard[0]]
        complaints += [f"{arm}/{line}" if arm else line for line in found.complaints]
    return shots, complaints if shard[0] == 0 else []


def _score_batch(
    benchmark: Benchmark,
    folder: Path,
    scorer: Scorer,
    batch: Sequence[tuple[str, Shot]],
    records: Records,
    rows: dict[tuple[str, str, int | None], Row],
    known: Known,
    counts: dict[str, int],
) -> None:
    fresh: list[Row] = []
    asked: list[tuple[Row, Item, np.ndarray]] = []
    for row, arm, shot, problem in _described(folder, batch):
        before = rows.get(row_key(row))
        if before and is_scored(before) and before["sha256"] == row.get("sha256") and before["id"] == row["id"]:
            counts["known"] += 1
        elif problem is None and (same := known.get((row["id"], row["sha256"], row.get("tile")))):
            keys = ("value", "measures", "detail")
            found: Row = {key: same[key] for key in keys if key in same}
            fresh.append({**row, **found, "same_as": same["arm"]})
            counts["shared"] += 1
        else:
            pixels = problem or _pixels(benchmark, folder / arm, shot)
            if isinstance(pixels, str):
                fresh.append({**row, "failed": pixels})
                counts["failed"] += 1
            else:
                asked.append((row, shot.item, pixels))
    fresh += _asked(scorer, asked, counts)
    records.append(fresh)
    for row in fresh:
        rows[row_key(row)] = row
        if is_scored(row):
            known.setdefault((row["id"], row["sha256"], row.get("tile")), row)


def _described(folder: Path, batch: Sequence[tuple[str, Shot]]) -> Iterator[tuple[Row, str, Shot, str | None]]:
    """A row without its score for every image, and why it cannot be read, if so."""
    for arm, shot in batch:
        item = shot.item
        row: Row = {"arm": arm, "file": shot.file, "id": item.id, "group": item.group, "prompt": item.prompt}
        row["index"] = shot.index
        if shot.tile is not None:
            row["tile"] = shot.tile
        try:
            with open_regular(folder / arm / shot.file) as file:
                row["sha256"] = _digest(file.read())
            yield row, arm, shot, None
        except UserError as error:
            yield row, arm, shot, str(error)


def _pixels(benchmark: Benchmark, folder: Path, shot: Shot) -> np.ndarray | str:
    try:
        return benchmark.pixels(folder, shot, read_image(folder / shot.file))
    except UserError as error:
        return str(error)


def _asked(scorer: Scorer, asked: Sequence[tuple[Row, Item, np.ndarray]], counts: dict[str, int]) -> list[Row]:
    """Rows with what the scorer says."""
    if not asked:
        return []
    outcomes = scorer.score([(item, pixels) for _, item, pixels in asked])
    rows = []
    for (row, _, _), outcome in zip(asked, outcomes, strict=True):
        if outcome.failed is not None:
            rows.append({**row, "failed": first_line(Exception(outcome.failed))})
            counts["failed"] += 1
        else:
            found = {"value": outcome.value} if outcome.measures is None else {"measures": dict(outcome.measures)}
            rows.append({**row, **found, "detail": dict(outcome.detail)})
            counts["scored"] += 1
    return rows


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
