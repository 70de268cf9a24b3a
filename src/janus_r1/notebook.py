"""How a notebook shows a chain: its source and drafts side by side, each with its verdict."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from janus_r1.chain import Chain

SIDE = 192  # pixels of a shown picture
YES, NO, MUTED = "#16804a", "#c22f46", "#6a7483"


def chain_html(chain: Chain) -> str:
    """A chain as HTML that needs nothing else: pictures are inside it, and texts are escaped."""
    cells = []
    if chain.source is not None:
        cells.append(_cell(chain.source.pixels, "source", "", MUTED))
    for number, drawn in enumerate(chain.rounds):
        verdict = drawn.verdict
        final = ", final" if number == chain.final else ""
        title = f"draft {number + 1}{final}: {'Yes' if verdict.accepted else 'No'} {verdict.p_yes:.2f}"
        cells.append(_cell(drawn.pixels, title, verdict.text, YES if verdict.accepted else NO))
    row = f"<div style='display:flex;flex-wrap:wrap;gap:12px'>{''.join(cells)}</div>"
    return f"<div><p><b>{html.escape(chain.prompt)}</b></p>{row}</div>"


def _cell(pixels: np.ndarray, title: str, text: str, colour: str) -> str:
    said = f"<div style='font-size:12px;color:{MUTED}'>{html.escape(text)}</div>" if text else ""
    picture = f"<img src='{_url(pixels)}' width='{SIDE}' style='image-rendering:pixelated'>"
    heading = f"<div style='font-size:12px;color:{colour}'>{html.escape(title)}</div>"
    return f"<div style='width:{SIDE}px'>{picture}{heading}{said}</div>"


def _url(pixels: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
