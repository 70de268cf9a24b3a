"""Contact sheets: draft -> verdict -> redraft at a glance, one card a chain, drawn with Pillow alone.

Of an edit the source stands before the drafts, and behind them what the final one changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from janus_r1.chain import Chain, Round

PAPER, CARD, LINE, INK, MUTED = "#eef0f3", "#ffffff", "#d9dde3", "#1b2330", "#6a7483"
YES, NO = "#16804a", "#c22f46"
SIDE = 192  # of a shown draft: three times the 64 pixels of the tiny model
GUTTER = 60  # between two drafts, where the arrow stands
PAD, GAP, LINE_GAP, FRAME = 20, 14, 8, 5
PER_LINE = 5  # panels beside each other before a chain continues on the next line
REASON_LINES = 4
LIST_LINES = 9
MAX_CHAINS = 48  # keeps a sheet below about 20,000 pixels

Box = tuple[float, float, float, float]


def sheet(chains: Sequence[Chain]) -> Image.Image:
    """All chains below each other, RGB. Beyond ``MAX_CHAINS`` a line says how many are left out."""
    shown = list(chains[:MAX_CHAINS])
    columns = max((min(PER_LINE, len(_panels(chain))) for chain in shown), default=1)
    width = _card_width(max(2, columns))
    cards = [_card(chain, width) for chain in shown]
    left_out = len(chains) - len(shown)
    height = GAP + sum(card.height + GAP for card in cards) + (30 if left_out else 0)
    canvas = Image.new("RGB", (width + 2 * GAP, height), PAPER)
    top = GAP
    for card in cards:
        canvas.paste(card, (GAP, top))
        top += card.height + GAP
    if left_out:
        _text(ImageDraw.Draw(canvas), (GAP + PAD, top), f"... and {left_out} more", 15, MUTED)
    return canvas


def side_by_side(chains: Sequence[Chain], columns: int = 3) -> Image.Image:
    """Short chains in up to ``columns`` sheets beside each other, row by row from left to right."""
    sheets = [sheet(chains[column::columns]) for column in range(min(columns, len(chains)))]
    canvas = Image.new("RGB", (sum(part.width for part in sheets), max(part.height for part in sheets)), PAPER)
    left = 0
    for part in sheets:
        canvas.paste(part, (left, 0))
        left += part.width
    return canvas


def difference(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where two pictures (uint8 [H, W, 3]) differ: uint8 [H, W, 3], black where they are equal.

    The largest difference of a pixel's channels, from dark red over orange to white for 255.
    """
    change = np.abs(before.astype(np.int16) - after.astype(np.int16)).max(-1)
    return np.stack([np.clip(change * 3 - start, 0, 255) for start in (0, 255, 510)], axis=-1).astype(np.uint8)


# ------------------------------------------------------------------------------------------ a card

SOURCE, DIFFERENCE = -1, -2  # panels of an edit; the others are numbers of rounds


def _panels(chain: Chain) -> list[int]:
    rounds = list(range(len(chain.rounds)))
    return [SOURCE, *rounds, DIFFERENCE] if chain.source else rounds


def _card_width(columns: int) -> int:
    return 2 * PAD + columns * SIDE + (columns - 1) * GUTTER


def _card(chain: Chain, width: int) -> Image.Image:
    """One chain: the prompt, what became of it, then its rounds from left to right."""
    title = _wrapped(chain.prompt, 20, width - 2 * PAD, 3)
    panels = _panels(chain)
    lines = [panels[i : i + PER_LINE] for i in range(0, len(panels), PER_LINE)]
    depths = [_depth([chain.rounds[i] for i in line if i >= 0]) for line in lines]
    head = PAD + 26 * len(title) + 24
    card = Image.new("RGB", (width, head + sum(depths) + PAD), PAPER)
    _rounded(card, (0, 0, width, card.height), 12, LINE)
    _rounded(card, (1, 1, width - 1, card.height - 1), 11, CARD)
    draw = ImageDraw.Draw(card)
    for number, text in enumerate(title):
        _text(draw, (PAD, PAD - 4 + 26 * number), text, 20, INK, bold=True)
    _text(draw, (PAD, head - 26), _outcome(chain), 14, MUTED)
    top = head
    for line, depth in zip(lines, depths, strict=True):
        for column, panel in enumerate(line):
            left = PAD + column * (SIDE + GUTTER)
            if panel >= 0:
                _round(card, chain, panel, left, top, last=column + 1 == len(line))
            else:
                _plain(card, chain, panel, left, top)
        top += depth
    return card


def _outcome(chain: Chain) -> str:
    drafts = "1 draft" if len(chain.rounds) == 1 else f"{len(chain.rounds)} drafts"
    word = "accepted" if chain.accepted else "not accepted"
    return f"{drafts}, final: draft {chain.final + 1}, {word}   |   seed {chain.settings.seed}, row {chain.row}"


def _depth(rounds: list[Round]) -> int:
    """Height of a line of rounds; the longest reason decides."""
    return 26 + SIDE + 42 + 18 * max((len(_reason_lines(item)) for item in rounds), default=0) + LINE_GAP


def _reason_lines(item: Round) -> list[str]:
    return _wrapped(item.verdict.reason, 14, SIDE + 16, REASON_LINES) + _list_lines(item)


def _list_lines(item: Round) -> list[str]:
    """What the model said that it sees, below the reason."""
    return _wrapped(f"sees: {item.verdict.listing}", 14, SIDE + 16, LIST_LINES) if item.verdict.listing else []


# ----------------------------------------------------------------------------------------- a round


def _plain(card: Image.Image, chain: Chain, panel: int, left: int, top: int) -> None:
    """Source or difference: a label and a picture without a verdict."""
    if chain.source is None:
        return
    before = chain.source.pixels
    label, pixels = (
        ("source", before) if panel == SOURCE else ("changed in the final", difference(before, chain.pixels))
    )
    _text(ImageDraw.Draw(card), (left, top + 2), label, 14, INK)
    _rounded(card, (left - 1, top + 25, left + SIDE + 1, top + 27 + SIDE), 1, LINE)
    card.paste(_shown(pixels), (left, top + 26))


def _round(card: Image.Image, chain: Chain, index: int, left: int, top: int, last: bool) -> None:
    """Label, draft, verdict; an arrow to the next draft unless this panel is the ``last`` of its line."""
    item, final = chain.rounds[index], index == chain.final
    colour = YES if item.verdict.accepted else NO
    draw = ImageDraw.Draw(card)
    _text(draw, (left, top + 2), f"draft {index + 1}", 14, INK)
    if final:
        _pill(card, "final", 13, (left + SIDE, top - 4), INK, from_right=True)
    top += 26
    frame, margin = (colour, FRAME) if final else (LINE, 1)
    _rounded(card, (left - margin, top - margin, left + SIDE + margin, top + SIDE + margin), margin, frame)
    card.paste(_shown(item.pixels), (left, top))
    _verdict(card, item, left, top + SIDE + 12)
    if index + 1 < len(chain.rounds) and not last:
        _arrow(draw, left + SIDE, top + SIDE // 2, _way(chain.rounds[index + 1].repairs, index))


def _way(mended: int | None, before: int) -> str:
    """How a draft came about that stands behind draft ``before``: it mends that one, another, or none."""
    if mended is None:
        return "redraw"
    return "repair" if mended == before else f"mends {mended + 1}"


def _verdict(card: Image.Image, item: Round, left: int, top: int) -> None:
    """Yes or No, p_yes as figure and bar, the reason."""
    colour = YES if item.verdict.accepted else NO
    draw = ImageDraw.Draw(card)
    right = _pill(card, "Yes" if item.verdict.accepted else "No", 15, (left, top), colour)
    _text(draw, (right + 9, top + 2), f"p_yes {item.verdict.p_yes:.2f}", 14, INK)
    bar = (right + 82, top + 8, left + SIDE, top + 14)
    _rounded(card, bar, 3, LINE)
    filled = (bar[2] - bar[0]) * min(1.0, max(0.0, item.verdict.p_yes))
    if filled >= 1:
        _rounded(card, (bar[0], bar[1], bar[0] + filled, bar[3]), 3, colour)
    for number, text in enumerate(_reason_lines(item)):
        _text(draw, (left, top + 30 + 18 * number), text, 14, MUTED)


def _arrow(draw: ImageDraw.ImageDraw, left: int, middle: int, label: str) -> None:
    start, end = left + 12, left + GUTTER - 12
    draw.line((start, middle, end - 6, middle), MUTED, 2)
    draw.polygon([(end, middle), (end - 9, middle - 5), (end - 9, middle + 5)], MUTED)
    draw.text((left + GUTTER / 2, middle - 8), label, MUTED, _font(12), anchor="ms")


def _shown(pixels: np.ndarray) -> Image.Image:
    """A picture at SIDE pixels: small ones keep their pixels, large ones are scaled down smoothly."""
    image = Image.fromarray(pixels).convert("RGB")
    way = Image.Resampling.NEAREST if max(image.size) < SIDE else Image.Resampling.LANCZOS
    return image.resize((SIDE, SIDE), way)


# --------------------------------------------------------------------------------- strokes and words


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _text(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, colour: str, bold: bool = False
) -> None:
    """The only font that is always there has one weight: a stroke makes it bold."""
    draw.text(at, text, colour, _font(size), stroke_width=0.3 if bold else 0)


def _rounded(canvas: Image.Image, box: Box, radius: float, colour: str) -> None:
    """A filled rectangle with smooth corners: drawn four times as large, then scaled down."""
    left, top = int(box[0]), int(box[1])
    size = (max(1, round(box[2] - left)), max(1, round(box[3] - top)))
    mask = Image.new("L", (4 * size[0], 4 * size[1]), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), 4 * radius, 255)
    canvas.paste(colour, (left, top, left + size[0], top + size[1]), mask.resize(size, Image.Resampling.BOX))


def _pill(canvas: Image.Image, text: str, size: int, at: tuple[int, int], colour: str, from_right: bool = False) -> int:
    """A word on a coloured ground; returns its right edge."""
    width = round(_font(size).getlength(text)) + 18
    left = at[0] - width if from_right else at[0]
    _rounded(canvas, (left, at[1], left + width, at[1] + 21), 10, colour)
    ImageDraw.Draw(canvas).text((left + width / 2, at[1] + 10.5), text, CARD, _font(size), anchor="mm")
    return left + width


def _wrapped(text: str, size: int, width: int, most: int) -> list[str]:
    """Lines that fit ``width``; what does not fit ``most`` lines ends in "..."."""
    lines: list[str] = [""]
    for word in " ".join(text.split()).split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if _font(size).getlength(longer) <= width:
            lines[-1] = longer
            continue
        pieces = _pieces(word, size, width)
        lines = [*(line for line in lines if line), *pieces]
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and _font(size).getlength(f"{last}...") > width:
        last = last[:-1]
    return [*lines[: most - 1], f"{last.rstrip()}..."]


def _pieces(word: str, size: int, width: int) -> list[str]:
    """A word cut where it alone is wider than a line."""
    pieces = [""]
    for letter in word[:500]:
        if pieces[-1] and _font(size).getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces
