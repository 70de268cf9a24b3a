"""The store: images with their prompts, scores and reasons, in parquet shards that ``datasets`` reads as they are.

``FOLDER/data/train-00000.parquet`` and so on; ``datasets.load_dataset(FOLDER)`` gives its columns with images decoded.
A shard appears whole or not at all. Opening reads footers only; a row is read with its row group, so that memory does
not grow with the data. What is derived from the rows (VQ ids) is cached beside them, see :mod:`janus_r1.data.codes`.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from janus_r1.errors import UserError, first_line, require
from janus_r1.files import locked, write_atomically, write_json
from janus_r1.reading import field as field_of
from janus_r1.reading import open_regular, parse_json, read_json

SPLIT = "train"  # the name that datasets looks for
NOTE = b"janus_r1"  # key of our own metadata in a shard's footer
GROUP_ROWS, GROUP_BYTES = 64, 4_000_000  # a row group: what is read for one row
SHARD_ROWS, SHARD_BYTES = 4096, 256_000_000  # a shard: what a killed import loses at most
OPEN_FILES, OPEN_GROUPS = 64, 8  # opening a shard again costs more than reading a row; an open one takes 0.5 MB


@dataclass(frozen=True)
class Claim:
    """One statement about the image, and whether it holds; None where nobody has said."""

    text: str
    mark: bool | None = None


@dataclass(frozen=True)
class Record:
    """One image of a prompt. An image without a score is an example: it counts as right."""

    id: str
    prompt: str
    """For an edit: the instruction."""
    image: bytes
    """An image file: PNG, JPEG, WebP, ..."""
    score: float | None = None
    """P(yes) in [0, 1]: how well the image matches the prompt."""
    reason: str = ""
    """Why, beginning with Yes or No."""
    claims: tuple[Claim, ...] = ()
    source_image: bytes | None = None
    """For an edit: the image file before it."""
    repair_of: str = ""
    """Id of the rejected image that this one mends."""
    source: str = ""
    """Where the image comes from: FLUX, Janus-Pro-7B, a folder's name."""
    licence: str = ""
    sha256: str = ""
    """Of the decoded pixels, so that copies in other files are found."""
    width: int = 0
    height: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    """Other columns, for rewards that want them."""

    @property
    def size(self) -> int:
        """Bytes of its images, which are nearly all that it holds."""
        return len(self.image) + len(self.source_image or b"")


_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.string()),
        ("image", _IMAGE),
        ("score", pa.float64()),
        ("reason", pa.string()),
        ("claims", pa.list_(pa.struct([("text", pa.string()), ("mark", pa.bool_())]))),
        ("source_image", _IMAGE),
        ("repair_of", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("extra", pa.string()),
    ]
)
IMAGES = ("image", "source_image")
TEXTS = [name for name in SCHEMA.names if name not in IMAGES]
STRINGS = [name for name in TEXTS if SCHEMA.field(name).type == pa.string()]
WITHOUT_IMAGES = [*TEXTS, "source_image.path"]  # the path says whether there is a source


def _features() -> dict[str, Any]:
    """What ``datasets`` reads from the footer, so that it decodes the image columns."""
    plain = {name: {"dtype": str(SCHEMA.field(name).type), "_type": "Value"} for name in TEXTS if name != "claims"}
    plain |= {"score": {"dtype": "float64", "_type": "Value"}}
    claim = {"text": {"dtype": "string", "_type": "Value"}, "mark": {"dtype": "bool", "_type": "Value"}}
    nested = {"claims": {"feature": claim, "_type": "List"}, **{name: {"_type": "Image"} for name in IMAGES}}
    return {name: (plain | nested)[name] for name in SCHEMA.names}


# ------------------------------------------------------------------------------------------ writing


def shard_path(folder: Path, number: int) -> Path:
    return folder / "data" / f"{SPLIT}-{number:05d}.parquet"


def write_shard(path: Path, records: Iterable[Record], note: dict[str, Any]) -> None:
    """Write one shard, row group by row group; it appears whole or not at all.

    ``note`` (JSON values) is read after the last record: it may be filled in while ``records`` runs.

    Raises:
        UserError: when the disk refuses.
    """
    schema = SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": _features()}})})

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema, compression=dict.fromkeys(TEXTS, "zstd")) as writer:
            for group in _groups(records):
                writer.write_table(pa.Table.from_pylist([_row(record) for record in group], schema))
            writer.add_key_value_metadata({NOTE: json.dumps(note).encode()})

    write_atomically(path, write, "file")


def claim(folder: Path, state: str, asked: dict[str, Any], resume: bool) -> None:
    """Make ``folder`` the place of what was ``asked``, which the file ``state`` in it remembers.

    Raises:
        UserError: if it is in use by something else, or was begun and is not gone on with, or was begun otherwise.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: choose another folder for the data")
    path = folder / state
    if not path.exists():
        if folder.is_dir() and any(not one.name.startswith(".") for one in folder.iterdir()):  # a kill leaves these
            raise UserError(f"{folder} holds other files: choose a new folder for the data")
        write_json(path, asked)
        return
    if not resume:
        what = "already holds data" if is_store(folder) else "was begun already"
        raise UserError(f"{folder} {what}: pass --resume to go on, or choose another folder")
    before = read_json(path)
    if changed := [key for key in asked if not isinstance(before, dict) or before.get(key) != asked[key]]:
        raise UserError(f"{folder} was begun with another {changed[0]}: repeat it as it was, or choose another folder")


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """One writer a store. What a killed one left half-written is cleared away.

    Raises:
        UserError: while another process writes here.
    """
    with locked(folder):
        for left in (folder / "data").glob(f".{SPLIT}-*.tmp.parquet"):
            left.unlink(missing_ok=True)
        yield


def _groups(records: Iterable[Record]) -> Iterator[list[Record]]:
    group: list[Record] = []
    size = 0
    for record in records:
        group.append(record)
        size += record.size
        if len(group) >= GROUP_ROWS or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _row(record: Record) -> dict[str, Any]:
    row = {name: getattr(record, name) for name in TEXTS}
    row["claims"] = [{"text": claim.text, "mark": claim.mark} for claim in record.claims]
    row["extra"] = json.dumps(record.extra, ensure_ascii=False) if record.extra else ""
    row["image"] = {"bytes": record.image, "path": record.id}
    edit = record.source_image is not None
    row["source_image"] = {"bytes": record.source_image, "path": f"{record.id} source"} if edit else None
    return row


# ------------------------------------------------------------------------------------------ reading


@dataclass(frozen=True)
class Shard:
    """Where a shard lies, and the first row of each of its row groups; the last entry is their number."""

    path: Path
    starts: tuple[int, ...]
    note: dict[str, Any]

    @property
    def rows(self) -> int:
        return self.starts[-1]


def read_shard(path: Path) -> Shard:
    """A shard's footer.

    Raises:
        UserError: if it is none of ours.
    """
    open_regular(path).close()  # a pipe is never waited for
    try:
        footer = pq.read_metadata(path)
        note = json.loads((footer.metadata or {}).get(NOTE, b"null"))
        schema = footer.schema.to_arrow_schema()
    except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
        raise UserError(f"{path} is not a whole shard: {first_line(error)}; delete it and import again") from None
    types = {name: schema.field(name).type for name in SCHEMA.names if schema.get_field_index(name) >= 0}
    if not isinstance(note, dict) or types != {name: SCHEMA.field(name).type for name in SCHEMA.names}:
        raise UserError(f"{path} is not a shard of this project: make one with janus-r1 data import")
    starts = [0]
    for group in range(footer.num_row_groups):
        starts.append(starts[-1] + footer.row_group(group).num_rows)
    return Shard(path, tuple(starts), note)


def is_store(folder: str | Path) -> bool:
    return any((Path(folder) / "data").glob(f"{SPLIT}-*.parquet"))


class Store:
    """Rows of one or several stores, read when they are asked for.

    >>> store = Store("data/cats")
    >>> store[0].prompt, len(store)

    Raises:
        UserError: for a folder that holds none, or a shard that is broken.
    """

    def __init__(self, *folders: str | Path) -> None:
        self.folders = [Path(folder) for folder in folders]
        self.shards: list[Shard] = []
        for folder in self.folders:
            own = sorted((folder / "data").glob(f"{SPLIT}-*.parquet"))
            if not own:
                raise UserError(f"{folder} holds no data: make it with janus-r1 data import or janus-r1 data make")
            self.shards += [read_shard(path) for path in own]
        self.firsts = [0]
        for shard in self.shards:
            self.firsts.append(self.firsts[-1] + shard.rows)
        self._files: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._recent: OrderedDict[tuple[int, int, bool], pa.Table] = OrderedDict()

    def __len__(self) -> int:
        return self.firsts[-1]

    def __getitem__(self, index: int) -> Record:
        return self._read(index, images=True)

    def __iter__(self) -> Iterator[Record]:
        """All rows in order, a row group at a time."""
        for index in range(len(self)):
            yield self[index]

    def without_images(self, index: int) -> Record:
        """The row with its images empty (``b""``): a fraction of the reading."""
        return self._read(index, images=False)

    def columns(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows of a few columns, a row group at a time, for counts and indices."""
        for number, shard in enumerate(self.shards):
            with _readable(shard.path):
                for batch in self._file(number).iter_batches(batch_size=8192, columns=list(names)):
                    batch.validate(full=True)
                    empty = [name for name in batch.schema.names if name in STRINGS and batch[name].null_count]
                    require(not empty, f"cannot read {shard.path}: {empty[:1]} is missing; import it again")
                    yield batch

    def place(self, index: int) -> tuple[int, int]:
        """Shard and row in it."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        number = bisect_right(self.firsts, index) - 1
        return number, index - self.firsts[number]

    def _read(self, index: int, images: bool) -> Record:
        number, row = self.place(index)
        starts = self.shards[number].starts
        group = bisect_right(starts, row) - 1
        table = self._group(number, group, images)
        return _record(table.slice(row - starts[group], 1).to_pylist()[0], f"{self.shards[number].path}, row {row + 1}")

    def _group(self, number: int, group: int, images: bool) -> pa.Table:
        for key in ((number, group, images), (number, group, True)):
            if key in self._recent:
                self._recent.move_to_end(key)
                return self._recent[key]
        with _readable(self.shards[number].path):
            columns = None if images else WITHOUT_IMAGES
            # one thread: a group is small, and readers are many processes side by side
            table = self._file(number).read_row_group(group, columns, use_threads=False)
            table.validate(full=True)  # text that is none would end in an error wherever it is first looked at
        self._recent[number, group, images] = table
        if len(self._recent) > OPEN_GROUPS:
            self._recent.popitem(last=False)
        return table

    def _file(self, number: int) -> pq.ParquetFile:
        if number not in self._files:
            self._files[number] = pq.ParquetFile(self.shards[number].path)
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(number)
        return self._files[number]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"cannot read {path}: {first_line(error)}; import it again") from None


def _record(row: dict[str, Any], place: str) -> Record:
    """Raises UserError for a row that cannot have been imported."""
    for name in STRINGS:
        field_of(row, name, str, place)
    score = row["score"]
    require(score is None or 0 <= score <= 1, f"{place}: the score {score} is not in [0, 1]")
    extra = parse_json(row["extra"], f"{place}: extra") if row["extra"] else {}
    require(isinstance(extra, dict), f"{place}: extra holds no columns")
    claims = [claim or {} for claim in row["claims"] or ()]
    require(all(isinstance(claim.get("text"), str) for claim in claims), f"{place}: a claim without a text")
    source = row["source_image"] or {"path": None}
    return Record(
        **{name: row[name] for name in TEXTS if name not in ("claims", "extra")},
        image=(row.get("image") or {}).get("bytes") or b"",
        source_image=None if source["path"] is None else source.get("bytes") or b"",
        claims=tuple(Claim(claim["text"], claim["mark"]) for claim in claims),
        extra=extra,
    )
