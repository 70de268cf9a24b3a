"""What a store holds, counted in one pass over its text columns: ``report.json`` and the table that import shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from janus_r1.data.store import Store
from janus_r1.data.task_files import read_prompts

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
    """Prompts of every test file that the data holds too, letter case, spaces and a final dot aside."""
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
    tests = {path.name: {same(prompt) for prompt in read_prompts(str(path))} for path in map(Path, prompts)}
    store, counts = Store(folder), Counter[str]()
    sources, licences = Counter[str](), Counter[str]()
    found: dict[str, set[str]] = {name: set() for name in tests}
    hashes, texts, sizes = [], [], []
    for batch in store.columns([*COLUMNS, "source_image.path"]):
        rows = batch.to_pydict()
        counts.update(_count(rows))
        sources.update(rows["source"])
        licences.update(licence or NO_LICENCE for licence in rows["licence"])
        alike = [same(prompt) for prompt in rows["prompt"]]
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


def same(prompt: str) -> str:
    """A prompt as it is compared: lower-case, single spaces, no final dot."""
    return " ".join(prompt.casefold().split()).rstrip(" .")


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
