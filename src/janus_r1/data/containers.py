"""The containers that people's data comes in, as one stream of rows: names to values, images as bytes or as paths.

Nothing is read whole: parquet by batches, JSON lines by line, a JSON list by entry, a tar by member. What is broken
becomes a row with a ``problem``, so that it is counted and the rest is read. What the columns mean is the business of
:mod:`janus_r1.data.schemas`.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from janus_r1.errors import UserError, first_line
from janus_r1.reading import open_regular

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
TEXT_MEMBERS = ("txt", "text", "caption")
MAX_TEXT = 16_000_000  # bytes of one line or one entry: a row is text and perhaps some images in base64
MAX_MEMBER = 200_000_000  # bytes of one image file in a tar
PARQUET_BATCH = 16
CHUNK = 1 << 20


@dataclass(frozen=True)
class Raw:
    """One row as its container holds it."""

    values: dict[str, Any] = field(default_factory=dict)
    base: Path = Path()
    """What relative image paths are relative to."""
    where: str = ""
    """File and place in it, for complaints."""
    problem: str = ""
    """Why there are no values."""


@dataclass(frozen=True)
class Container:
    """What a path was recognised as. ``rows(skip)`` are its rows after the first ``skip``."""

    name: str
    files: list[Path]
    rows: Callable[[int], Iterator[Raw]]
    total: int | None = None
    """Rows, where that is known without reading all."""


def recognise(source: str | Path) -> Container:
    """The container that a file or a folder is.

    Raises:
        UserError: if it is missing, or holds nothing that can be read.
    """
    source = Path(source)
    if source.is_file():
        return _of_files(source, [source])
    if not source.is_dir():
        raise UserError(f"no such file or folder: {source}")
    files = sorted(path for path in source.rglob("*") if path.is_file() and not _hidden(path, source))
    metadata = [path for path in files if path.name in ("metadata.jsonl", "metadata.csv", "metadata.parquet")]
    if metadata:
        return _container("imagefolder", metadata, _imagefolder)
    parts = [path for path in files if path.name == "candidates.jsonl" and path.with_name("images.npy").is_file()]
    if parts:
        return _container("candidates", parts, _candidates)
    for suffixes in ((".tar",), (".parquet",), (".jsonl", ".json", ".csv", ".tsv")):
        found = [path for path in files if path.suffix.lower() in suffixes and not _captions(path, source)]
        if found:
            return _of_files(source, found)
    if (source / "input").is_dir() and (source / "output").is_dir():
        return _listed("folder of pairs", source, lambda: _before_and_after(source))
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if any(path.with_suffix(".txt").is_file() for path in images):
        return _listed("images with texts", source, lambda: _with_texts(images), len(images))
    found_instead = f"{len(images)} images without a text" if images else "no images and no rows"
    raise UserError(
        f"{source} holds {found_instead}: put NAME.txt beside NAME.png, or a metadata.jsonl with file_name and prompt"
    )


def _hidden(path: Path, source: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.relative_to(source).parts)


def _captions(path: Path, source: Path) -> bool:
    """The texts of a folder of pairs, which are no rows of their own."""
    return path.stem == "captions" and path.parent == source and (source / "input").is_dir()


def _of_files(source: Path, files: list[Path]) -> Container:
    kind = files[0].suffix.lower()
    readers: dict[str, tuple[str, Callable[[Path, int], Iterator[Raw]]]] = {
        ".tar": ("webdataset", _tar),
        ".parquet": ("parquet", _parquet),
        ".jsonl": ("JSON lines", _json),
        ".json": ("JSON", _json),
        ".csv": ("CSV", _csv),
        ".tsv": ("TSV", _csv),
    }
    if kind not in readers:
        raise UserError(f"{source} is no data that can be read: use {', '.join(readers)}, or a folder")
    name = readers[kind][0]
    return _container(name, files, lambda file, skip: readers[file.suffix.lower()][1](file, skip))


def _container(name: str, files: list[Path], read: Callable[[Path, int], Iterator[Raw]]) -> Container:
    """Several files of a kind, one after the other."""
    counts = [_parquet_rows(file) if file.suffix.lower() == ".parquet" else None for file in files]
    known = [count for count in counts if count is not None]
    total = sum(known) if len(known) == len(files) else None

    def rows(skip: int) -> Iterator[Raw]:
        for file, count in zip(files, counts, strict=True):
            if count is not None and count <= skip:
                skip -= count
                continue
            seen = -1
            for seen, raw in enumerate(_guarded(file, read, skip if count is not None else 0)):
                if count is not None or seen >= skip:
                    yield raw
            skip = 0 if count is not None else max(0, skip - seen - 1)

    return Container(name, files, rows, total)


def _guarded(file: Path, read: Callable[[Path, int], Iterator[Raw]], skip: int) -> Iterator[Raw]:
    """The rows of a file; where it breaks off, a row that says so."""
    try:
        yield from read(file, skip)
    except UserError as error:
        yield Raw(where=str(file), problem=f"broken file: {error}")
    except (
        OSError,
        ValueError,
        TypeError,
        RecursionError,
        EOFError,
        tarfile.TarError,
        pa.ArrowException,
        csv.Error,
    ) as error:
        yield Raw(where=str(file), problem=f"broken file: {first_line(error)}")


def _listed(name: str, source: Path, rows: Callable[[], Iterator[Raw]], total: int | None = None) -> Container:
    return Container(name, [source], lambda skip: itertools.islice(rows(), skip, None), total)


# ----------------------------------------------------------------------------------------- parquet


def _parquet_rows(file: Path) -> int:
    try:
        return int(pq.read_metadata(file).num_rows)
    except (OSError, pa.ArrowException):
        return 1  # the row that says that it is broken


def _parquet(file: Path, skip: int) -> Iterator[Raw]:
    with pq.ParquetFile(file) as parquet:
        number = 0
        for group in range(parquet.num_row_groups):
            count = parquet.metadata.row_group(group).num_rows
            if number + count <= skip:
                number += count
                continue
            for batch in parquet.iter_batches(batch_size=PARQUET_BATCH, row_groups=[group]):
                for row in range(batch.num_rows):
                    if number >= skip:
                        yield Raw(batch.slice(row, 1).to_pylist()[0], file.parent, f"{file}, row {number + 1}")
                    number += 1


# -------------------------------------------------------------------------------------------- text


def _json(file: Path, skip: int) -> Iterator[Raw]:
    """JSON lines, or a JSON list, whatever the name says: T2I-R1's ``.json`` holds lines."""
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as text:
        opening = next((line.lstrip() for line in text if line.strip()), "")
    if opening.startswith("["):
        entries: Iterable[tuple[str, Any]] = _entries(file)
    elif opening.startswith("{") and _parse(opening)[0] is None and file.suffix.lower() == ".json":
        entries = [("entry 1", _text(file))]  # one object over several lines
    else:
        entries = _lines(file)
    for place, entry in entries:
        where = f"{file}, {place}"
        value, problem = _parse(entry) if isinstance(entry, str) else (entry, "")
        if problem:
            yield Raw(where=where, problem=problem)
        elif isinstance(value, dict):
            yield Raw(value, file.parent, where)
        else:
            yield Raw(where=where, problem="not an object: a row is like {...}")


def _text(file: Path) -> str:
    """Raises UserError if it is none that can be read."""
    with open_regular(file, MAX_TEXT) as stream:
        return stream.read().decode("utf-8-sig", "surrogateescape")


def _parse(text: str) -> tuple[Any, str]:
    try:
        return json.loads(text), ""
    except RecursionError:
        return None, "not JSON: nested too deeply"
    except ValueError as error:
        return None, f"not JSON: {first_line(error)}"


def _lines(file: Path) -> Iterator[tuple[str, Any]]:
    with file.open("rb") as stream:
        number = 0
        while line := stream.readline(MAX_TEXT + 1):
            number += 1
            if len(line) > MAX_TEXT:
                raise ValueError(f"line {number} is longer than {MAX_TEXT // 1_000_000} MB")
            if line.strip():
                yield f"line {number}", line.decode("utf-8-sig", "surrogateescape")


def _entries(file: Path) -> Iterator[tuple[str, Any]]:
    """The entries of a JSON list, one at a time: its text is never held whole."""
    decoder, number = json.JSONDecoder(), 0
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as stream:
        text = stream.read(CHUNK).lstrip()[1:]
        while True:
            text = text.lstrip().removeprefix(",").lstrip()
            if text.startswith("]"):
                return
            try:
                value, end = decoder.raw_decode(text)
                complete = end < len(text)  # a number may go on in the next piece
            except ValueError:
                complete = False
            if not complete:
                piece = stream.read(CHUNK)
                if not piece or len(text) > MAX_TEXT:
                    raise ValueError(f"not JSON after entry {number}")
                text += piece
                continue
            number += 1
            yield f"entry {number}", value
            text = text[end:]


def _csv(file: Path, skip: int) -> Iterator[Raw]:
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.DictReader(stream, delimiter="\t" if file.suffix.lower() == ".tsv" else ",", strict=True)
        for number, values in enumerate(reader, 1):
            where = f"{file}, row {number}"
            if None in values or None in values.values():
                yield Raw(where=where, problem="not as many values as the header has names")
            else:
                yield Raw({name: value for name, value in values.items() if value != ""}, file.parent, where)


# ----------------------------------------------------------------------------------- files and tars


def _tar(file: Path, skip: int) -> Iterator[Raw]:
    """Samples of a webdataset: neighbouring members whose names agree up to the first dot of the last part."""
    with tarfile.open(file, "r|*") as archive:
        members = (member for member in archive if member.isfile())
        for key, group in itertools.groupby(members, key=lambda member: _key(member.name)):
            values: dict[str, Any] = {"__key__": key}
            problem = ""
            for member in group:
                problem = _member(archive, member, values) or problem
            where = f"{file}, {key}"
            yield Raw(where=where, problem=problem) if problem else Raw(values, file.parent, where)


def _key(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, values: dict[str, Any]) -> str:
    """Adds one member to its sample; what is wrong with it, else nothing."""
    if member.size > MAX_MEMBER:
        return f"too large: {member.name} has {member.size} bytes"
    stream = archive.extractfile(member)
    data = stream.read() if stream else b""
    name = member.name.rpartition("/")[2].partition(".")[2].lower()
    if name == "json":
        parsed, problem = _parse(data.decode("utf-8", "surrogateescape"))
        if problem or not isinstance(parsed, dict):
            return problem or "not an object: a sample's json is like {...}"
        values.update({key: value for key, value in parsed.items() if key not in values})
    elif name in TEXT_MEMBERS or name.endswith(".txt"):
        values[name.removesuffix(".txt")] = data.decode("utf-8", "surrogateescape")
    else:
        values[name] = data
        stem, dot, suffix = name.rpartition(".")
        if dot and f".{suffix}" in IMAGE_SUFFIXES:  # KEY.source.jpg is the column source
            values[stem] = data
    return ""


def _imagefolder(file: Path, skip: int) -> Iterator[Raw]:
    """Hugging Face's imagefolder: ``file_name`` is the image, ``NAME_file_name`` is the column NAME."""
    read = {".jsonl": _json, ".csv": _csv, ".parquet": _parquet}[file.suffix]
    for raw in read(file, skip):
        values = dict(raw.values)
        for name in [name for name in values if name == "file_name" or name.endswith("_file_name")]:
            values[name.removesuffix("_file_name") if name != "file_name" else "image"] = values.pop(name)
        yield Raw(values, file.parent, raw.where, raw.problem)


def _candidates(file: Path, skip: int) -> Iterator[Raw]:
    """A part of ``data build`` or of a run's rollouts: its pictures lie beside it, in its order."""
    pictures = np.load(file.with_name("images.npy"), mmap_mode="r", allow_pickle=False)
    for number, raw in enumerate(_json(file, skip)):
        if raw.problem or number >= len(pictures):
            yield Raw(where=raw.where, problem=raw.problem or "no picture: images.npy ends before it")
            continue
        if number < skip:  # passed over by the caller: its picture need not be packed
            yield raw
            continue
        stream = io.BytesIO()
        Image.fromarray(np.asarray(pictures[number])).save(stream, "PNG")
        said = {name: value for name, value in raw.values.items() if name in ("prompt", "p_yes", "reason", "source")}
        name = f"{file.parent.name} {number:06d}"
        yield Raw({**said, "id": name, "image": stream.getvalue()}, file.parent, raw.where)


def _with_texts(images: list[Path]) -> Iterator[Raw]:
    """Every image with the text file of its name."""
    for path in images:
        text = path.with_suffix(".txt")
        try:
            caption = _text(text)
        except UserError as error:
            yield Raw(where=str(path), problem=f"no text: {error}")
            continue
        yield Raw({"image": path.name, "prompt": caption, "id": path.stem}, path.parent, str(path))


def _before_and_after(source: Path) -> Iterator[Raw]:
    """``input/NAME.png`` and ``output/NAME.png`` with ``captions.json|jsonl|txt`` (NAME, a tab or a colon, the text)
    or ``captions/NAME.txt``."""
    texts = _captions_of(source)
    after = {path.stem: path for path in sorted((source / "output").iterdir())}
    for path in sorted((source / "input").iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if path.stem not in after:
            yield Raw(where=str(path), problem=f"no result: there is no output/{path.name}")
        elif path.stem not in texts:
            yield Raw(where=str(path), problem=f"no text: no caption is named {path.stem}")
        else:
            pair = {"source_image": f"input/{path.name}", "image": f"output/{after[path.stem].name}"}
            yield Raw({"id": path.stem, "prompt": texts[path.stem], **pair}, source, str(path))


def _captions_of(source: Path) -> dict[str, str]:
    for name in ("captions.json", "captions.jsonl", "captions.txt"):
        file = source / name
        if not file.is_file():
            continue
        text = _text(file)
        if name.endswith(".txt"):
            pairs = [line.replace("\t", ":", 1).partition(":") for line in text.splitlines() if line.strip()]
            return {Path(key.strip()).stem: value.strip() for key, _, value in pairs}
        parsed = _parse(text)[0] if name.endswith(".json") else None
        if isinstance(parsed, dict):
            return {Path(key).stem: str(value) for key, value in parsed.items()}
        rows = [raw.values for raw in _json(file, 0)]
        named = [(row.get("file_name") or row.get("name") or row.get("id"), row) for row in rows]
        texts = ((key, row.get("text") or row.get("prompt") or row.get("instruction")) for key, row in named)
        return {Path(str(key)).stem: str(value) for key, value in texts if key and value}
    folder = source / "captions"
    return {path.stem: _text(path) for path in sorted(folder.glob("*.txt"))}
