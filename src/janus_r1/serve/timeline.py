"""Chains as a page shows them, while they are drawn and afterwards: HTML with the pictures inside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from janus_r1.chain import Chain, Round, Verdict
from janus_r1.images import data_url
from janus_r1.sheet import difference

VISIBLE = 32  # of 255: smaller differences are the image tokenizer's

CSS = """
.chains { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); }
.chain { border: 1px solid var(--border-color-primary); border-radius: 12px; padding: 12px;
  background: var(--background-fill-primary); min-width: 0; }
.chain > header { display: flex; justify-content: space-between; gap: 8px; font-size: 13px; flex-wrap: wrap;
  color: var(--body-text-color-subdued); margin-bottom: 8px; }
.chain ol { list-style: none; margin: 0; padding: 0; display: grid; gap: 10px; }
.chain li { display: grid; grid-template-columns: 128px minmax(0, 1fr); gap: 12px; align-items: start; }
.chain img { width: 128px; height: 128px; border-radius: 8px; margin: 0;
  border: 1px solid var(--border-color-primary); }
.chain img.small { image-rendering: pixelated; }
.chain li.final img.draft { outline: 3px solid #16804a; outline-offset: 1px; }
.chain li.final.rejected img.draft { outline-color: #c22f46; }
.chain .changed img { width: 64px; height: 64px; }
.chain .changed { display: flex; gap: 8px; align-items: center; font-size: 12px; margin-top: 6px;
  color: var(--body-text-color-subdued); }
.chain .word { display: inline-block; padding: 0 9px; border-radius: 10px; color: #fff; font-weight: 600;
  font-size: 13px; }
.chain .yes { background: #16804a; } .chain .no { background: #c22f46; }
.chain .bar { height: 6px; border-radius: 3px; background: var(--border-color-primary); margin: 6px 0; }
.chain .bar i { display: block; height: 6px; border-radius: 3px; }
.chain .marks { margin: 4px 0; padding: 0; font-size: 13px; list-style: none; display: block; }
.chain .marks li { display: block; }
.chain .holds { color: #16804a; } .chain .fails { color: #c22f46; }
.chain p { margin: 2px 0; font-size: 14px; overflow-wrap: anywhere; }
.chain .cost { font-size: 12px; color: var(--body-text-color-subdued); }
.thinking::after { content: "..."; animation: breathe 1.2s infinite; }
@keyframes breathe { 50% { opacity: .2; } }
@media (prefers-reduced-motion: reduce) { .thinking::after { animation: none; } }
@media (max-width: 400px) { .chain li { grid-template-columns: 96px minmax(0, 1fr); }
  .chain img { width: 96px; height: 96px; } }
"""


@dataclass
class Panel:
    """A draft, and the verdict as soon as there is one."""

    pixels: np.ndarray
    verdict: Verdict | None = None
    tokens: int = 0
    ms: float | None = None
    """Unknown for a chain from the gallery."""
    repairs: int | None = None
    """The panel whose draft this one mends, from 0; None for one drawn from its task alone."""

    @classmethod
    def of(cls, item: Round, ms: float | None = None) -> Panel:
        """A complete one."""
        return cls(item.pixels, item.verdict, len(item.ids) + item.verdict.tokens, ms, item.repairs)


@dataclass
class Story:
    """A chain as far as it has come."""

    seed: int
    source: np.ndarray | None = None
    panels: list[Panel] = field(default_factory=list)
    final: int | None = None
    """None while it is drawn."""
    stop: str = ""

    @classmethod
    def of(cls, chain: Chain) -> Story:
        """A complete one."""
        panels = [Panel.of(item) for item in chain.rounds]
        stop = "accepted" if chain.accepted else "rounds"
        source = chain.source.pixels if chain.source else None
        return cls(chain.settings.seed, source, panels, chain.final, stop)


STOPS = {
    "accepted": "accepted",
    "rounds": "not accepted: no rounds left",
    "context": "not accepted: no room for another round",
    "": "",
}


def timeline(stories: Sequence[Story], status: str) -> str:
    """All chains side by side, with a line for screen readers that says how far they are."""
    cards = "".join(_card(number, story) for number, story in enumerate(stories, 1))
    return f'<p role="status" aria-live="polite">{escape(status)}</p><div class="chains">{cards}</div>'


def _card(number: int, story: Story) -> str:
    tokens = sum(panel.tokens for panel in story.panels)
    seconds = sum(panel.ms or 0 for panel in story.panels) / 1000
    cost = f"{tokens} tokens" + (f", {seconds:.1f} s" if seconds else "")
    state = STOPS.get(story.stop, story.stop) if story.final is not None else '<span class="thinking">drawing</span>'
    head = f"<header><span>sample {number}, seed {story.seed}</span><span>{state}</span><span>{cost}</span></header>"
    rows = [_source(story.source)] if story.source is not None else []
    before = story.source
    for index, panel in enumerate(story.panels):
        mended = before if panel.repairs is None else story.panels[panel.repairs].pixels
        rows.append(_panel(number, index, panel, mended, index == story.final))
        before = panel.pixels
    return f'<section class="chain" aria-label="sample {number}">{head}<ol>{"".join(rows)}</ol></section>'


def _source(pixels: np.ndarray) -> str:
    return f"<li>{image(pixels, 'the picture to edit')}<div><p>the picture to edit</p></div></li>"


def _panel(number: int, index: int, panel: Panel, before: np.ndarray | None, final: bool) -> str:
    verdict = panel.verdict
    kind = ("final" if final else "") + (" rejected" if verdict and not verdict.accepted else "")
    picture = image(panel.pixels, f"draft {index + 1} of sample {number}", "draft")
    said = _verdict(verdict) if verdict else '<p class="thinking">looking at it</p>'
    label = f"draft {index + 1}" + (f", mends {panel.repairs + 1}" if panel.repairs is not None else "")
    label += ", final" if final else ""
    cost = f"{panel.tokens} tokens" + (f", {panel.ms / 1000:.1f} s" if panel.ms else "") if panel.tokens else ""
    changed = _changed(before, panel.pixels) if before is not None else ""
    body = f'<p><b>{label}</b> <span class="cost">{cost}</span></p>{said}{changed}'
    return f'<li class="{kind.strip()}">{picture}<div>{body}</div></li>'


def _verdict(verdict: Verdict) -> str:
    word, colour = ("Yes", "#16804a") if verdict.accepted else ("No", "#c22f46")
    width = round(100 * min(1.0, max(0.0, verdict.p_yes)))
    bar = f'<div class="bar" aria-hidden="true"><i style="width:{width}%;background:{colour}"></i></div>'
    reason = f"<p>{escape(verdict.reason)}</p>" if verdict.reason else ""
    if verdict.listing and verdict.instruction:
        reason = f'<p class="asked">to change: <b>{escape(verdict.instruction)}</b></p>'
    pill = f'<span class="word {word.lower()}">{word}</span>'
    return f"<p>{pill} p_yes {verdict.p_yes:.2f}</p>{bar}{_marks(verdict)}{reason}"


def _marks(verdict: Verdict) -> str:
    """What was seen before the word was said, a claim a line, where the model's format has it."""
    signs = {True: '<b class="holds">Yes</b> ', False: '<b class="fails">No</b> ', None: ""}
    items = "".join(f"<li>{signs[mark]}{escape(text)}</li>" for text, mark in verdict.marks)
    return f'<ul class="marks" aria-label="what it sees">{items}</ul>' if items else ""


def _changed(before: np.ndarray, after: np.ndarray) -> str:
    share = float((np.abs(before.astype(int) - after).max(-1) > VISIBLE).mean())
    picture = image(difference(before, after), "where this draft differs from the picture before it")
    return f'<div class="changed">{picture}<span>{share:.0%} of the pixels changed</span></div>'


def image(pixels: np.ndarray, alternative: str, kind: str = "") -> str:
    """An <img> with its picture inside."""
    small = " small" if max(pixels.shape[:2]) < 128 else ""
    return f'<img class="{(kind + small).strip()}" alt="{escape(alternative)}" src="{data_url(pixels)}">'
