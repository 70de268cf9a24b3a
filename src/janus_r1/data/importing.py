"""``janus-r1 data import``: people's data -> the store, streaming, in several processes, resumable.

Rows are read in order by one process and checked by others, a window of them at a time, so that memory does not grow
with the data. Every shard's footer says how many source rows it covers and what was dropped of them: a killed import
goes on behind the last whole shard, and comes to the same files.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from janus_r1.data.checking import Dropped, Rules, check
from janus_r1.data.containers import Container, Raw, recognise
from janus_r1.data.report import Report, describe
from janus_r1.data.schemas import FIELDS, findings, named
from janus_r1.data.store import (
    SHARD_BYTES,
    SHARD_ROWS,
    Record,
    claim,
    exclusive,
    read_shard,
    shard_path,
    write_shard,
)
from janus_r1.errors import UserError, require
from janus_r1.fields import Above0, Checked, Count, Positive, Range
from janus_r1.files import write_json
from janus_r1.images import MIN_SIDE
from janus_r1.progress import reporter

STATE = "import.json"
ROWS_A_TASK = 8  # small, since a row of the released data holds 16 images
TASKS_A_PROCESS = 3  # read ahead
EXAMPLES = 3  # of dropped rows, told for every cause

CheckedRow = tuple[str, list[Record | Dropped]]


@dataclass
class Tally:
    """What became of the rows of a shard; it goes into the shard's footer."""

    rows: int = 0
    """Source rows, dropped ones included."""
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    schemas: Counter[str] = field(default_factory=Counter)

    def drop(self, dropped: Dropped) -> None:
        self.dropped[dropped.cause] += 1
        told = self.examples.setdefault(dropped.cause, [])
        if len(told) < EXAMPLES:
            told.append(dropped.detail)

    def add(self, note: Mapping[str, Any]) -> None:
        """What an earlier shard says of itself."""
        self.rows, self.kept = self.rows + note["rows"], self.kept + note["kept"]
        self.dropped.update(note["dropped"])
        self.schemas.update(note["schemas"])
        for cause, told in note["examples"].items():
            self.examples[cause] = (self.examples.get(cause, []) + told)[:EXAMPLES]

    def note(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "kept": self.kept,
            "dropped": dict(self.dropped),
            "examples": self.examples,
            "schemas": dict(self.schemas),
        }


@dataclass(frozen=True)
class ImportOptions(Checked):
    """How people's data is read, and how the store is cut."""

    images: Path | None = None
    """Folder that image paths are relative to; by default that of the file that names them, or its parent."""
    origin: str = ""
    """Where images come from, for rows that do not say."""
    licence: str = ""
    """Under which licence, for rows that do not say."""
    score_scale: Above0 = 1.0
    """Scores are divided by it: 10 for ratings of up to 10."""
    max_side: Count = 0
    """Shrink larger images to this longest side in pixels; 0 keeps all files as they are."""
    limit: Count = 0
    """Source rows at most; 0 takes all."""
    processes: Annotated[int, Range(ge=1, le=256)] = 1
    """How many check images beside the one that reads; 1 does both in one."""
    shard_rows: Positive = SHARD_ROWS
    """Images a shard at most: what a killed import loses."""


AS_IT_COMES = ImportOptions()


def renamed(text: str) -> tuple[str, str]:
    """ "prompt=my_caption": a column's name here, and what it is in a user's file.

    Raises:
        UserError: for any other text.
    """
    ours, equals, theirs = text.partition("=")
    if not (equals and ours and theirs):
        raise UserError(f"--columns {text!r} renames nothing: write OURS=YOURS, such as prompt=my_caption")
    return ours, theirs


def import_data(
    source: Path,
    out: Path,
    options: ImportOptions = AS_IT_COMES,
    *,
    columns: Mapping[str, str] | None = None,
    prompts: Sequence[Path] = (),
    resume: bool = False,
) -> Report:
    """Read images with their prompts, scores, reasons or edits into the store in the folder ``out``.

    Every image is decoded and checked; what is left out is counted by its cause.

    Args:
        source: A file or a folder in one of the formats that docs/your-data.md lists.
        columns: Names that are not known by themselves, ours to yours, such as {prompt: my_caption, image: photo}.
            Ours are prompt, image, source_image, score, reason, claims, source, licence, id, wrong and right.
        prompts: Files of test prompts: their overlap with the data is reported.
        resume: Go on with an import that was interrupted.

    Raises:
        UserError: if there is nothing that can be read, or the store exists already.
    """
    columns = dict(columns or {})
    unknown = sorted(set(columns) - set(FIELDS))
    require(not unknown, f"columns names {', '.join(unknown)}: ours are {', '.join(FIELDS)}")
    side = options.max_side
    require(side == 0 or side >= MIN_SIDE, f"max_side must be 0 or at least {MIN_SIDE} pixels, not {side}")
    container = recognise(source)
    asked = {"source": str(Path(source).resolve()), "columns": columns, **asdict(options)}
    asked["images"] = str(options.images or "")
    del asked["processes"]  # which may differ when the import goes on
    with exclusive(Path(out)):
        claim(Path(out), STATE, asked, resume)
        total = _write(container, Path(out), columns, options)
        return _finish(Path(out), container, total, prompts)


def _write(container: Container, out: Path, columns: Mapping[str, str], options: ImportOptions) -> Tally:
    """All shards that are not there yet; what became of all rows."""
    number, total = _done(out)
    limit, folders = options.limit, (options.images,) if options.images else ()
    rules = Rules(folders, options.score_scale, options.max_side, options.origin, options.licence)
    left = itertools.islice(container.rows(total.rows), limit - total.rows if limit else None)
    progress = reporter(out.name, total.rows, container.total or limit or 0, "row")
    with _checker(options.processes) as checked:
        stream = _Stream(checked(left, total.rows, columns, rules), options.shard_rows)
        while not stream.ended:
            tally = stream.write(shard_path(out, number))
            total.add(tally.note())
            number += 1
            progress.update(total.rows, {"kept": total.kept, "dropped": sum(total.dropped.values())})
    progress.stop()
    return total


def _done(out: Path) -> tuple[int, Tally]:
    """The number of the next shard, and what the earlier ones hold."""
    number, total = 0, Tally()
    while shard_path(out, number).exists():
        total.add(read_shard(shard_path(out, number)).note)
        number += 1
    return number, total


def _finish(out: Path, container: Container, total: Tally, prompts: Sequence[Path]) -> Report:
    if not total.kept:
        causes = "; ".join(f"{cause} ({count})" for cause, count in total.dropped.most_common(3)) or "it has no rows"
        example = next((told[0] for told in total.examples.values() if told), "")
        raise UserError(f"nothing was imported: {causes}{'. The first: ' if example else ''}{example}")
    report = describe(out, prompts, total.note() | {"container": container.name})
    write_json(out / "report.json", report.as_dict())
    return report


class _Stream:
    """Checked rows, cut into shards at the borders of source rows."""

    def __init__(self, checked: Iterator[CheckedRow], shard_rows: int) -> None:
        self.rows, self.shard_rows = checked, shard_rows
        self.next = next(self.rows, None)

    @property
    def ended(self) -> bool:
        return self.next is None

    def write(self, path: Path) -> Tally:
        """The next shard. A tally covers rows that were dropped to the last one, too."""
        tally = Tally()
        note: dict[str, Any] = {}
        write_shard(path, self._records(tally, note), note)
        return tally

    def _records(self, tally: Tally, note: dict[str, Any]) -> Iterator[Record]:
        size = 0
        while self.next is not None and tally.kept < self.shard_rows and size < SHARD_BYTES:
            schema, results = self.next
            tally.rows += 1
            tally.schemas[schema] += bool(schema)
            for result in results:
                if isinstance(result, Dropped):
                    tally.drop(result)
                    continue
                tally.kept += 1
                size += result.size
                yield result
            self.next = next(self.rows, None)
        note.update(tally.note())


# ----------------------------------------------------------------------------- reading and checking


def read_records(
    source: Path, columns: Mapping[str, str], dropped: Counter[str], rules: Rules | None = None
) -> Iterator[Record]:
    """The checked rows of anything that can be imported, one by one; what is left out is counted in ``dropped``.

    Raises:
        UserError: if there is nothing that can be read.
    """
    for number, raw in enumerate(recognise(source).rows(0)):
        for result in _check_row(number, raw, columns, rules or Rules())[1]:
            if isinstance(result, Dropped):
                dropped[result.cause] += 1
            else:
                yield result


def check_rows(rows: Sequence[tuple[int, Raw]], columns: Mapping[str, str], rules: Rules) -> list[CheckedRow]:
    """What a worker does: the records and the drops of a few numbered rows."""
    return [_check_row(number, raw, columns, rules) for number, raw in rows]


def _check_row(number: int, raw: Raw, columns: Mapping[str, str], rules: Rules) -> CheckedRow:
    if raw.problem:
        return "", [Dropped(raw.problem.partition(":")[0], f"{raw.where}: {raw.problem}")]
    try:
        schema, found = findings(raw, columns)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, RecursionError) as error:
        return "", [Dropped("row cannot be read", f"{raw.where}: {error}")]
    if not schema:
        names = ", ".join(sorted(map(str, raw.values))[:12]) or "none"
        return "", [Dropped("unknown columns", f"{raw.where}: columns {names}; name yours with columns")]
    if not found:
        return schema, [Dropped("row without images", raw.where)]
    results: list[Record | Dropped] = []
    for index, one in enumerate(found):
        record = check(named(one, f"{number:08d}-{index + 1}"), raw.base, raw.where, rules)
        results.append(record)
    return schema, results


@contextmanager
def _checker(processes: int) -> Iterator[Any]:
    """A function that maps rows to checked rows, in order, with a bounded number of rows in flight."""
    if processes == 1:

        def here(rows: Iterator[Raw], first: int, columns: Mapping[str, str], rules: Rules) -> Iterator[CheckedRow]:
            return (_check_row(number, raw, columns, rules) for number, raw in enumerate(rows, first))

        yield here
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:

        def spread(rows: Iterator[Raw], first: int, columns: Mapping[str, str], rules: Rules) -> Iterator[CheckedRow]:
            numbered, waiting = enumerate(rows, first), deque[Future[list[CheckedRow]]]()
            while True:
                while len(waiting) < processes * TASKS_A_PROCESS:
                    task = list(itertools.islice(numbered, ROWS_A_TASK))
                    if not task:
                        break
                    waiting.append(pool.submit(check_rows, task, columns, rules))
                if not waiting:
                    return
                yield from waiting.popleft().result()

        yield spread
