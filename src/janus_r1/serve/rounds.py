"""One more round for many unfinished chains at once: the only file of the server that touches the engine.

Between two rounds nothing is kept on the device. A chain's context (prompt, drafts so far, verdicts) is fed anew
before its next draft, so that chains may join and leave a batch whenever a round ends. That costs one prefill of the
context a round, beside one forward for every image token (docs/serving.md has the measured share).

A chain draws the numbers of its own seed and row, never of its place in the batch, and pixels are coded and decoded
one image at a time. So in float32 a chain comes out as it would alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from janus_r1.chain import Chain, Round, Settings, Source, Verdict, final_round
from janus_r1.engine.decoder import Decoder, Said
from janus_r1.engine.sampling import DRAW, SAY, uniforms
from janus_r1.images import square
from janus_r1.layout import Drawn, Lead, Row, Seen, Text, row_length
from janus_r1.model.janus import Janus


@dataclass(eq=False)
class Drawing:
    """A chain that is not finished, or has not even begun."""

    prompt: str
    """For an edit: the instruction."""
    settings: Settings
    row: int = 0
    original: np.ndarray | None = None
    """The picture to edit, uint8 [H, W, 3] of any size."""
    source: Source | None = None
    """``original`` as the model reads it; :func:`prepare` fills it in."""
    rounds: list[Round] = field(default_factory=list)
    input_tokens: int = 0
    """Text tokens of the request; :func:`prepare` counts them."""

    @property
    def key(self) -> tuple:
        """Chains of equal keys may share forwards."""
        s = self.settings
        return "draw", s.guidance, s.temperature, s.top_k, s.top_p, *_saying(s)

    def finished(self) -> bool:
        """Whether the last verdict or the limit of rounds ends it."""
        if not self.rounds:
            return False
        accepted = self.rounds[-1].verdict.accepted and self.settings.early_stop
        return accepted or len(self.rounds) >= self.settings.rounds

    def chain(self) -> Chain:
        """What there is of it, which must be a round at least."""
        rounds = tuple(self.rounds)
        return Chain(self.prompt, rounds, final_round(rounds, self.settings), self.settings, self.row, self.source)


@dataclass(eq=False)
class Look:
    """A verdict that is wanted on a given picture."""

    prompt: str
    """For an edit: the instruction that ``shown`` should follow."""
    shown: np.ndarray
    """uint8 [H, W, 3] of any size."""
    settings: Settings
    row: int = 0
    original: np.ndarray | None = None
    """The picture that was edited."""
    source: Source | None = None
    input_tokens: int = 0

    @property
    def key(self) -> tuple:
        return "look", *_saying(self.settings)


def _saying(s: Settings) -> tuple:
    return s.text_temperature, s.text_top_k, s.max_reason_tokens


# ------------------------------------------------------------------------------------ before the first round


def prepare(model: Janus, work: Drawing | Look) -> None:
    """Fit and encode the picture that is edited, and count the request's text tokens.

    Raises:
        UserError: for a prompt that is empty or spells a special token.
    """
    size = model.image_size
    if work.original is not None:
        (work.source,) = model.sources([square(work.original, size)])
    if isinstance(work, Look):
        work.shown = square(work.shown, size)
    opening = model.layout.opening(work.prompt, work.source)
    work.input_tokens = sum(len(part) for part in opening.drawing if isinstance(part, Text))


def fits(model: Janus, chain: Drawing) -> bool:
    """Whether one more round fits into the model's positions."""
    lead = _lead(model, chain)
    longest = max(
        row_length(lead.drawing) + model.image_tokens,
        row_length(lead.seeing) + model.image_tokens + len(model.layout.self_check) + chain.settings.max_reason_tokens,
    )
    return longest <= model.core.config.text_config.max_position_embeddings


# ------------------------------------------------------------------------------------------------- a round


@torch.inference_mode()
def next_rounds(decoder: Decoder, chains: Sequence[Drawing], drawn: Callable[[int, np.ndarray], None]) -> list[Round]:
    """The next round of every chain, all with one :attr:`Drawing.key`; the chains stay as they are.

    ``drawn(position, pixels)`` is called as soon as the drafts are there, before they are judged.
    """
    model, settings = decoder.model, chains[0].settings
    leads = [_lead(model, chain) for chain in chains]
    padded = [*leads, *leads[:1] * _spare(decoder, len(leads))]
    unconditional = [lead.unconditional for lead in padded] if settings.guidance > 1 else None
    stream = decoder.open([lead.drawing for lead in padded], unconditional)
    numbers = _numbers(chains, DRAW, model.image_tokens, len(padded))
    ids, logprobs = decoder.draw(
        stream, numbers, settings.guidance, settings.temperature, settings.top_k, settings.top_p
    )
    images = [model.decode_image(row.unsqueeze(0))[0] for row in ids[: len(chains)]]
    for position, pixels in enumerate(images):
        drawn(position, pixels)
    del stream
    seeing = [lead.seeing for lead in leads]
    verdicts = _verdicts(decoder, seeing, images, chains)
    rows = zip(ids.tolist(), images, verdicts, logprobs.tolist(), strict=False)
    return [Round(tuple(row), pixels, verdict, tuple(scores)) for row, pixels, verdict, scores in rows]


@torch.inference_mode()
def look(decoder: Decoder, looks: Sequence[Look]) -> list[Verdict]:
    """Verdicts on given pictures, all with one :attr:`Look.key`."""
    layout = decoder.model.layout
    seeing = [layout.opening(item.prompt, item.source).seeing for item in looks]
    return _verdicts(decoder, seeing, [item.shown for item in looks], looks)


def _verdicts(
    decoder: Decoder, seeing: Sequence[Row], images: Sequence[np.ndarray], asked: Sequence[Drawing | Look]
) -> list[Verdict]:
    model, settings = decoder.model, asked[0].settings
    rows = [
        (*row, Seen(image, model.image_tokens), model.layout.self_check)
        for row, image in zip(seeing, images, strict=True)
    ]
    rows += rows[:1] * _spare(decoder, len(rows))
    numbers = _numbers(asked, SAY, settings.max_reason_tokens, len(rows))
    special = model.layout.special
    said = decoder.say(
        decoder.open(rows), numbers, (special.yes, special.no), settings.text_temperature, settings.text_top_k
    )
    return [_verdict(model, said, position) for position in range(len(asked))]


def _verdict(model: Janus, said: Said, position: int) -> Verdict:
    ids = said.ids[position]
    text = model.tokenizer.decode(ids, skip_special_tokens=True).strip()
    p_yes = float(said.first_probs[position, 0])
    return Verdict(ids[0] == model.layout.special.yes, text, p_yes, ids, said.logprobs[position])


def _lead(model: Janus, chain: Drawing) -> Lead:
    """What stands before the chain's next draft, in each of its three streams."""
    layout = model.layout
    opening, again = layout.opening(chain.prompt, chain.source), layout.again(chain.prompt, chain.source)
    last_only = chain.settings.history == "last"
    kept = chain.rounds[-1:] if last_only else chain.rounds
    closed = [Text(layout.closed(item.verdict.ids)) for item in kept]
    drawn = [(Drawn(item.ids), layout.self_check, text) for item, text in zip(kept, closed, strict=True)]
    seen = [
        (Seen(item.pixels, model.image_tokens), layout.self_check, text)
        for item, text in zip(kept, closed, strict=True)
    ]
    return Lead(
        _joined(opening.drawing, drawn, again.drawing),
        _joined(opening.unconditional, drawn, again.unconditional),
        _joined(opening.seeing, [] if last_only else seen, again.seeing),
    )


def _joined(opening: Row, rejected: Sequence[Row], again: Row) -> Row:
    """``opening``, then every rejected draft with its verdict, each followed by ``again``."""
    return (*opening, *(segment for part in rejected for segment in (*part, *again)))


def _numbers(asked: Sequence[Drawing | Look], purpose: int, count: int, rows: int) -> torch.Tensor:
    """[rows, count], each from the seed, row and round of its chain; the first stands in for spare rows."""
    each = [
        uniforms(item.settings.seed, [item.row], len(item.rounds) if isinstance(item, Drawing) else 0, purpose, count)
        for item in asked
    ]
    return torch.cat([*each, *each[:1] * (rows - len(each))])


def _spare(decoder: Decoder, rows: int) -> int:
    """Rows to add so that a GPU's captured steps see few sizes: powers of two. None without captured steps."""
    return (1 << (rows - 1).bit_length()) - rows if decoder.graph else 0
