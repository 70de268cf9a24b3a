"""What a store holds: counted, some rows of it shown, and which prompts of benchmarks stand in it.

The counts take one pass over the text columns: ``report.json`` and the table that an import shows. Prompts are compared
without case, punctuation and spacing, and without "a photo of", with which those of GenEval begin.
"""

from __future__ import annotations

import io
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from janus_r1.data.store import Record, Store
from janus_r1.data.task_files import read_prompts
from janus_r1.errors import require
from janus_r1.files import write_atomically

COLUMNS = ["prompt", "score", "reason", "source", "licence", "sha256", "width", "height", "repair_of"]
RIGHT = 0.5  # from this score on an image counts as a Yes
LISTED = 12  # names of sources, licences and causes that are shown
NO_LICENCE = "not stated"


@dataclass(frozen=True)
class Report:
    """Counts of a store. Of sizes and lengths: smallest, median, largest."""

    images: int
    prompts: int
    edits: int
    scored: int
    yes: int
    """Scored images with at least 0.5."""
    reasons: int
    repairs: int
    """Images that mend a rejected one."""
    duplicates: int
    """Images whose pixels stand in the store already."""
    widths: tuple[int, int, int]
    heights: tuple[int, int, int]
    prompt_words: tuple[int, int, int]
    sources: dict[str, int]
    licences: dict[str, int]
    overlap: dict[str, int]
    """Prompts of every test file that the data holds too, as :func:`plain` has them."""
    imported: dict[str, Any]
    """Of an import: source rows, what was dropped by cause, with examples. Of a build (``made``): what it took."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def dropped(self) -> int:
        return sum(self.imported.get("dropped", {}).values())


def describe(folder: Path, prompts: Sequence[Path] = (), imported: Mapping[str, Any] | None = None) -> Report:
    """Counts of a store.

    Memory: 8 bytes an image for its hash and 8 for its prompt, beside a few names.

    Raises:
        UserError: if there is no store, or a prompt file cannot be read.
    """
    tests = {path.name: {plain(prompt) for prompt in read_prompts(str(path))} for path in map(Path, prompts)}
    store, counts = Store(folder), Counter[str]()
    sources, licences = Counter[str](), Counter[str]()
    found: dict[str, set[str]] = {name: set() for name in tests}
    hashes, texts, sizes = [], [], []
    for batch in store.columns([*COLUMNS, "source_image.path"]):
        rows = batch.to_pydict()
        counts.update(_count(rows))
        sources.update(rows["source"])
        licences.update(licence or NO_LICENCE for licence in rows["licence"])
        alike = [plain(prompt) for prompt in rows["prompt"]]
        for name, wanted in tests.items():
            found[name] |= wanted.intersection(alike)
        hashes.append(np.array([int(digest[:16] or "0", 16) for digest in rows["sha256"]], np.uint64))
        texts.append(np.array([hash(prompt) for prompt in rows["prompt"]], np.int64))
        words = [len(prompt.split()) for prompt in rows["prompt"]]
        sizes.append(np.array([rows["width"], rows["height"], words], np.int32))
    width, height, length = (_spread(values) for values in np.concatenate(sizes, 1))
    return Report(
        images=len(store),
        prompts=len(np.unique(np.concatenate(texts))),
        edits=counts["edits"],
        scored=counts["scored"],
        yes=counts["yes"],
        reasons=counts["reasons"],
        repairs=counts["repairs"],
        duplicates=len(store) - len(np.unique(np.concatenate(hashes))),
        widths=width,
        heights=height,
        prompt_words=length,
        sources=_most(sources),
        licences=_most(licences),
        overlap={name: len(both) for name, both in found.items()},
        imported=dict(imported or {}),
    )


def _count(rows: Mapping[str, list[Any]]) -> dict[str, int]:
    scores = [score for score in rows["score"] if score is not None]
    return {
        "edits": sum(source is not None and source["path"] is not None for source in rows["source_image"]),
        "scored": len(scores),
        "yes": sum(score >= RIGHT for score in scores),
        "reasons": sum(map(bool, rows["reason"])),
        "repairs": sum(map(bool, rows["repair_of"])),
    }


def _spread(values: np.ndarray) -> tuple[int, int, int]:
    return int(values.min()), int(np.median(values)), int(values.max())


def _most(counts: Counter[str]) -> dict[str, int]:
    """The most frequent names; the rest as one."""
    listed = dict(counts.most_common(LISTED))
    rest = sum(counts.values()) - sum(listed.values())
    return listed | ({"others": rest} if rest else {})


def show(report: Report, console: Console | None = None) -> None:
    """The report as a table."""
    console = console or Console(highlight=False)
    table = Table("", "", show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in _lines(report):
        table.add_row(name, value)
    console.print(table)
    for cause, count in sorted(report.imported.get("dropped", {}).items(), key=lambda item: -item[1]):
        console.print(f"dropped {count}: {cause}", markup=False)
        for example in report.imported.get("examples", {}).get(cause, [])[:1]:
            console.print(f"  {example}", markup=False)


def _lines(report: Report) -> Iterable[tuple[str, str]]:
    if "rows" in report.imported:
        kept = f"{report.imported['rows']} rows, {report.imported['kept']} images kept, {report.dropped} dropped"
        yield "read", f"{report.imported['container']}, {', '.join(report.imported['schemas']) or 'nothing'}: {kept}"
    yield "images", f"{report.images} of {report.prompts} prompts"
    if report.edits:
        yield "edits", str(report.edits)
    if report.scored:
        yield "scored", f"{report.scored}, {report.yes / report.scored:.0%} of them Yes (at least {RIGHT})"
    yield "reasons", str(report.reasons)
    if report.repairs:
        yield "repairs", str(report.repairs)
    yield "duplicates", f"{report.duplicates} images with the same pixels as another"
    widths, heights = (f"{low} to {high}, median {middle}" for low, middle, high in (report.widths, report.heights))
    yield "pixels", f"width {widths}; height {heights}"
    low, middle, high = report.prompt_words
    yield "prompt words", f"{low} to {high}, median {middle}"
    for name, counts in (("sources", report.sources), ("licences", report.licences)):
        yield name, ", ".join(f"{key or 'not stated'} {count}" for key, count in counts.items())
    for name, count in report.overlap.items():
        yield "overlap", f"{count} prompts of {name} are in the data"


# ----------------------------------------------------------------------------------------------------- some rows


SIDE, PAD, TEXT_LINES, CARDS = 192, 12, 4, 5
INK, MUTED, YES, NO, PAPER = "#1b2330", "#6a7483", "#16804a", "#c22f46", "#ffffff"
LETTERS = 34  # a line of text below a picture


def look_at(data: Path, rows: int = 20, seed: int = 0, sheet: Path | None = None) -> list[dict[str, Any]]:
    """Some rows of a store, chosen at random: a table, and on request a sheet of their images.

    Args:
        data: Folder of the store.
        rows: How many rows.
        seed: Which ones.
        sheet: PNG file for the images with what is said of them.

    Raises:
        UserError: if there is no store.
    """
    require(rows >= 1, f"rows must be at least 1, not {rows}")
    store = Store(data)
    chosen = sorted(random.Random(seed).sample(range(len(store)), min(rows, len(store))))
    records = [store[index] for index in chosen]
    if sheet is not None:
        picture = contact_sheet(records)
        write_atomically(Path(sheet), lambda temporary: picture.save(temporary, "PNG"), "file")
    return [{"row": index, **_said(record)} for index, record in zip(chosen, records, strict=True)]


def show_rows(rows: Sequence[dict[str, Any]], console: Console | None = None) -> None:
    """The rows of :func:`look_at` as a table."""
    table = Table("row", "id", "prompt", "score", "reason", "source", "pixels", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        score = "" if row["score"] is None else f"{row['score']:.2f}"
        texts = (escape(str(row[name])) for name in ("id", "prompt"))
        pixels = f"{row['width']}x{row['height']}{' edit' if row['edit'] else ''}"
        table.add_row(str(row["row"]), *texts, score, escape(row["reason"]), escape(row["source"]), pixels)
    (console or Console(highlight=False)).print(table)


def _said(record: Record) -> dict[str, Any]:
    names = ("id", "prompt", "score", "reason", "source", "licence", "width", "height")
    claims = [{"text": claim.text, "mark": claim.mark} for claim in record.claims]
    return {name: getattr(record, name) for name in names} | {
        "edit": record.source_image is not None,
        "claims": claims,
    }


def contact_sheet(records: Sequence[Record]) -> Image.Image:
    """A card a record: its source if it is an edit, the image, score, prompt and reason."""
    cards = [_card(record) for record in records]
    width = max(card.width for card in cards)
    columns = max(1, min(CARDS * (SIDE + PAD) // width, len(cards)))
    height = max(card.height for card in cards)
    lines = -(-len(cards) // columns)
    canvas = Image.new("RGB", (columns * (width + PAD) + PAD, lines * (height + PAD) + PAD), PAPER)
    for index, card in enumerate(cards):
        line, column = divmod(index, columns)
        canvas.paste(card, (PAD + column * (width + PAD), PAD + line * (height + PAD)))
    return canvas


def _card(record: Record) -> Image.Image:
    files = [data for data in (record.source_image, record.image) if data]
    card = Image.new("RGB", (len(files) * (SIDE + PAD) - PAD, SIDE + 8 + 15 * (1 + 2 * TEXT_LINES)), PAPER)
    for index, data in enumerate(files):
        with Image.open(io.BytesIO(data)) as image:
            small = image.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        card.paste(small, (index * (SIDE + PAD), 0))
    draw, top = ImageDraw.Draw(card), SIDE + 4
    score = "no score" if record.score is None else f"{record.score:.2f}"
    colour = MUTED if record.score is None else YES if record.score >= 0.5 else NO
    letters = LETTERS * len(files)
    texts = [(f"{score}  {record.source}"[:letters], colour)]
    texts += [(line, INK) for line in _wrapped(record.prompt, letters)]
    texts += [(line, MUTED) for line in _wrapped(record.reason, letters)]
    font = ImageFont.load_default(12)
    for text, ink in texts:
        draw.text((0, top), text, fill=ink, font=font)
        top += 15
    return card


def _wrapped(text: str, letters: int) -> list[str]:
    """Up to :data:`TEXT_LINES` lines."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= letters:
            lines[-1] += f" {word}"
        else:
            lines.append(word[:letters])
    return lines[:TEXT_LINES]


# ------------------------------------------------------------------------------------------------- contamination


EXAMPLES = 5


@dataclass(frozen=True)
class Overlap:
    """Of one benchmark."""

    prompts: int
    """Of the benchmark that stand in the data."""
    of: int
    """Prompts that the benchmark has."""
    rows: int
    """Of the data that are such a prompt."""
    examples: tuple[str, ...]


def plain(prompt: str) -> str:
    """What is compared."""
    words = re.sub(r"[\W_]+", " ", prompt.casefold()).strip()
    return re.sub(r"^(?:an? )?(?:photo|picture|image) of ", "", words)


def overlap(data: Iterable[str], benchmarks: Mapping[str, Iterable[str]]) -> dict[str, Overlap]:
    """For every benchmark by name, given its prompts."""
    wanted = {name: {plain(prompt): prompt for prompt in prompts} for name, prompts in benchmarks.items()}
    hits: dict[str, dict[str, int]] = {name: {} for name in wanted}
    for prompt in data:
        key = plain(prompt)
        for name, known in wanted.items():
            if key in known:
                hits[name][key] = hits[name].get(key, 0) + 1
    return {
        name: Overlap(
            len(found), len(wanted[name]), sum(found.values()), tuple(wanted[name][key] for key in [*found][:EXAMPLES])
        )
        for name, found in hits.items()
    }


def own_prompts(path: Path) -> Iterator[str]:
    """Of a file of prompts, or of every image of a store.

    Raises:
        UserError: if it is neither.
    """
    if not path.is_dir():
        yield from read_prompts(str(path))
        return
    for batch in Store(path).columns(["prompt"]):
        yield from batch.to_pydict()["prompt"]
