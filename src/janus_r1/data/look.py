"""``janus-r1 data look``: rows of a store as a contact sheet and a table."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from janus_r1.data.store import Record, Store
from janus_r1.errors import require
from janus_r1.files import write_atomically

SIDE, PAD, TEXT_LINES, COLUMNS = 192, 12, 4, 5
INK, MUTED, YES, NO, PAPER = "#1b2330", "#6a7483", "#16804a", "#c22f46", "#ffffff"
LETTERS = 34  # a line of text below a picture


def look(data: Path, rows: int = 20, seed: int = 0, sheet: Path | None = None) -> list[dict[str, Any]]:
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


def show(rows: Sequence[dict[str, Any]], console: Console | None = None) -> None:
    """The rows of :func:`look` as a table."""
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
    columns = max(1, min(COLUMNS * (SIDE + PAD) // width, len(cards)))
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
