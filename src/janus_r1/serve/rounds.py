"""One more round for many unfinished chains at once: the only file of the server that touches the engine.

Chains of both formats, of any seed, prompt and number of rounds are rows of one batch, and join and leave whenever a
round ends. What a chain is drawn from and what follows a No is :mod:`janus_r1.introspect`'s to say. Between two rounds
a chain keeps its rows of the batch (:class:`Kept`), so that only what is new is fed; where it has none, or the format
has no context that grows, its context is fed anew.

A chain draws the numbers of its own seed and row, never of its place in the batch, and pixels are coded and decoded
one image at a time. So in float32 a chain comes out as it would alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch

from janus_r1 import introspect
from janus_r1.chain import Chain, Round, Settings, Verdict, final_round
from janus_r1.engine.cache import Stream
from janus_r1.engine.decoder import Decoder
from janus_r1.engine.sampling import DRAW, Place, numbers
from janus_r1.engine.window import WIDEST, width_for
from janus_r1.images import square
from janus_r1.model.janus import Janus
from janus_r1.segments import Drawn, Lead, Row, Seen, Source, Text, row_length

T = TypeVar("T")

# Ids or tokens a forward that pay in large batches, too, and for how many rows: measured on a CPU, docs/serving.md.
MANY_ROWS_WIDTH, BLANK_ROWS, GUESSED_ROWS, SAYING_ROWS = 4, 12, 32, 64


@dataclass(eq=False)
class Kept:
    """A chain's row in the streams of its last round, in which others of that batch have theirs."""

    drawing: Stream
    seeing: Stream
    row: int


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
    cut: bool = False
    """Whether the model reads the prompt's beginning alone."""
    format: str = "paper"
    """Of the model that draws it."""
    kept: Kept | None = None
    """What :func:`next_rounds` left for its next round; it may be dropped at any time."""

    @property
    def key(self) -> tuple:
        """Chains of equal keys may share a round."""
        s = self.settings
        mending = (s.repair_temperature,) if self.format == "repair" else ()
        return "draw", s.guidance, s.temperature, *mending, s.top_k, s.top_p, *_saying(s)

    @property
    def mends(self) -> int | None:
        """The round whose draft the next one mends, where the model's format has that."""
        return introspect.mended_round(self.rounds, self.settings) if self.format == "repair" else None

    @property
    def temperature(self) -> float:
        """Of the next draft."""
        return self.settings.temperature if self.mends is None else self.settings.repair_temperature

    @property
    def place(self) -> Place:
        """What the next round's random numbers follow from."""
        return Place(self.settings.seed, self.row, len(self.rounds))

    def ended_by(self, verdict: Verdict, rounds: int) -> bool:
        """Whether the verdict on draft number ``rounds`` (from 1) ends it."""
        return (verdict.accepted and self.settings.early_stop) or rounds >= self.settings.rounds

    def finished(self) -> bool:
        """Whether the last verdict or the limit of rounds ends it."""
        return bool(self.rounds) and self.ended_by(self.rounds[-1].verdict, len(self.rounds))

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
    cut: bool = False
    format: str = "paper"

    @property
    def key(self) -> tuple:
        return "look", *_saying(self.settings)

    @property
    def place(self) -> Place:
        return Place(self.settings.seed, self.row)


def _saying(s: Settings) -> tuple:
    return s.text_temperature, s.text_top_k, s.max_reason_tokens, s.max_list_tokens


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
    work.cut = model.layout.is_cut(work.prompt, edit=work.original is not None)
    work.input_tokens = sum(len(part) for part in opening.drawing if isinstance(part, Text))


def fits(model: Janus, chain: Drawing) -> bool:
    """Whether one more round fits into the model's positions."""
    lead, settings, layout = _lead(model, chain), chain.settings, model.layout
    said = len(layout.self_check) + settings.max_reason_tokens
    if chain.format == "repair":
        said += settings.max_list_tokens + len(layout.list_end)
    longest = max(row_length(lead.drawing) + model.image_tokens, row_length(lead.seeing) + model.image_tokens + said)
    return longest <= model.positions


# ------------------------------------------------------------------------------------------------- a round


@torch.inference_mode()
def next_rounds(
    decoder: Decoder,
    chains: Sequence[Drawing],
    drawn: Callable[[int, np.ndarray], None],
    window: int | None = 1,
) -> list[Round]:
    """The next round of every chain, all with one :attr:`Drawing.key`; of the chains only ``kept`` changes.

    ``drawn`` hears of each chain's draft (its position and uint8 [H, W, 3]) before there is a verdict on it. ``window``
    is :meth:`Decoder.draw`'s width; None: what pays for the batch at hand.
    """
    if chains[0].format == "repair":
        return _mending_rounds(decoder, chains, drawn, window)
    model, settings, every = decoder.model, chains[0].settings, _filled(decoder, chains)
    drawing, seeing = _streams(decoder, every)
    ids, logprobs = _drafts(decoder, drawing, every, window)
    images = _shown(model, ids[: len(chains)], range(len(chains)), drawn)
    decoder.feed(seeing, [_look(model, *pair) for pair in zip(every, _filled(decoder, images), strict=True)])
    saying = _width(decoder, window, len(every), True, SAYING_ROWS)
    verdicts = introspect.say_verdicts(decoder, seeing, settings, [chain.place for chain in every], saying)
    for position, (chain, verdict) in enumerate(zip(chains, verdicts, strict=False)):
        goes_on = not chain.ended_by(verdict, len(chain.rounds) + 1) and chain.settings.history == "full"
        keep = goes_on and not decoder.graph  # captured steps want caches that stay where they are
        chain.kept = Kept(drawing, seeing, position) if keep else None
    rows = zip(ids.tolist(), images, verdicts, logprobs.tolist(), strict=False)
    return [Round(tuple(row), pixels, verdict, tuple(p)) for row, pixels, verdict, p in rows]


def _mending_rounds(
    decoder: Decoder, chains: Sequence[Drawing], drawn: Callable[[int, np.ndarray], None], window: int | None
) -> list[Round]:
    """The same in the format ``repair``. Drafts that mend others have a temperature and a guess of their own, so these
    are drawn apart from those that do not; all are looked at together.
    """
    model, settings = decoder.model, chains[0].settings
    drafts: dict[int, tuple[list[int], np.ndarray, list[float]]] = {}
    for mending in (False, True):
        part = [position for position, chain in enumerate(chains) if (chain.mends is not None) == mending]
        if part:
            some = _filled(decoder, [chains[position] for position in part])
            ids, logprobs = _drafts(decoder, _opened(decoder, some), some, window)
            images = _shown(model, ids[: len(part)], part, drawn)
            drafts |= dict(zip(part, zip(ids.tolist(), images, logprobs.tolist(), strict=False), strict=True))
    every = _filled(decoder, chains)
    shown = _filled(decoder, [drafts[position][1] for position in range(len(chains))])
    openings = [model.layout.opening(chain.prompt, chain.source).seeing for chain in every]
    saying = _width(decoder, window, len(every), True, SAYING_ROWS)
    verdicts = introspect.look(decoder, openings, shown, settings, [chain.place for chain in every], saying)
    return [
        Round(tuple(ids), pixels, verdicts[position], tuple(p), chains[position].mends)
        for position, (ids, pixels, p) in sorted(drafts.items())
    ]


def _drafts(
    decoder: Decoder, drawing: Stream, chains: Sequence[Drawing], window: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids [B, image_tokens] of the next drafts, and their log-probs."""
    settings, places = chains[0].settings, [chain.place for chain in chains]
    uniform = numbers(places, DRAW, decoder.model.image_tokens)
    how, guess = (settings.guidance, chains[0].temperature, settings.top_k, settings.top_p), _guess(chains)
    most = BLANK_ROWS if guess is None else GUESSED_ROWS
    width = _width(decoder, window, len(chains), guess is not None, most)
    return decoder.draw(drawing, uniform, *how, width=width, guess=guess)


def _width(decoder: Decoder, window: int | None, rows: int, guessed: bool, most: int) -> int | None:
    """``window``; None, what the engine takes for so many rows, is at least :data:`MANY_ROWS_WIDTH` for up to ``most``
    of them, where the engine takes several at all.
    """
    like = decoder.network.norm
    several = width_for(1, guessed, like) > 1
    if window is None and several and rows <= most and width_for(rows, guessed, like) < MANY_ROWS_WIDTH:
        return MANY_ROWS_WIDTH
    return window


def _shown(
    model: Janus, ids: torch.Tensor, positions: Sequence[int], drawn: Callable[[int, np.ndarray], None]
) -> list[np.ndarray]:
    """The drafts' pixels, of which ``drawn`` hears."""
    images = [model.decode_image(row.unsqueeze(0))[0] for row in ids]
    for position, pixels in zip(positions, images, strict=True):
        drawn(position, pixels)
    return images


@torch.inference_mode()
def look(decoder: Decoder, looks: Sequence[Look], window: int | None = 1) -> list[Verdict]:
    """Verdicts on given pictures, all with one :attr:`Look.key`; ``window`` is as in :func:`next_rounds`."""
    model, settings, every = decoder.model, looks[0].settings, _filled(decoder, looks)
    width = _width(decoder, window, len(every), True, SAYING_ROWS)
    openings = [model.layout.opening(item.prompt, item.source).seeing for item in every]
    images, places = [item.shown for item in every], [item.place for item in every]
    if looks[0].format == "repair":
        return introspect.look(decoder, openings, images, settings, places, width)[: len(looks)]
    seen = [(Seen(image, model.image_tokens), model.layout.self_check) for image in images]
    stream = decoder.open([(*opening, *rest) for opening, rest in zip(openings, seen, strict=True)])
    return introspect.say_verdicts(decoder, stream, settings, places, width)[: len(looks)]


def _filled(decoder: Decoder, parts: Sequence[T]) -> list[T]:
    """With the first again so often that a GPU's captured steps see few sizes: powers of two."""
    rows = len(parts)
    spare = (1 << (rows - 1).bit_length()) - rows if decoder.graph else 0
    return [*parts, *[parts[0]] * spare]


def _guess(chains: Sequence[Drawing]) -> torch.Tensor | None:
    """What the drafts will largely be like: the one that is mended; of edits the draft before, or the source."""
    likely: list[tuple[int, ...]] = []
    for chain in chains:
        if chain.mends is not None:
            likely.append(chain.rounds[chain.mends].ids)
        elif chain.source and chain.format == "paper":
            likely.append(chain.rounds[-1].ids if chain.rounds else chain.source.ids)
    return torch.tensor(likely) if len(likely) == len(chains) else None


# ----------------------------------------------------------------------------------------------- contexts


def _streams(decoder: Decoder, chains: Sequence[Drawing]) -> tuple[Stream, Stream]:
    """The chains' rows before their next drafts, drawing and seeing; what is kept of them only grows by what is new."""
    old = [(position, chain.kept, chain) for position, chain in enumerate(chains) if chain.kept]
    new = [position for position, chain in enumerate(chains) if not chain.kept]
    drawn: dict[int, tuple[Stream, int]] = {}
    seen: dict[int, tuple[Stream, int]] = {}
    if new:
        drawing, seeing = _from_nothing(decoder, [chains[position] for position in new])
        drawn |= {position: (drawing, row) for row, position in enumerate(new)}
        seen |= {position: (seeing, row) for row, position in enumerate(new)}
        if not old:
            return drawing, seeing
    room = decoder.model.image_tokens + WIDEST
    grown = _grown(decoder, [chain for _, _, chain in old], [kept for _, kept, _ in old])
    drawn |= {position: (grown, row) for row, (position, _, _) in enumerate(old)}
    seen |= {position: (kept.seeing, kept.row) for position, kept, _ in old}
    order = range(len(chains))
    drawing = Stream.gathered([drawn[i] for i in order], room) if new else grown
    return drawing, Stream.gathered([seen[i] for i in order], 2 * room)


def _from_nothing(decoder: Decoder, chains: Sequence[Drawing]) -> tuple[Stream, Stream]:
    leads = [_lead(decoder.model, chain) for chain in chains]
    drawing = _open(decoder, leads, chains[0].settings)
    if all(isinstance(part, Text) for lead in leads for part in (*lead.drawing, *lead.seeing)):
        return drawing, decoder.fork(drawing)  # texts read the same in both streams
    return drawing, decoder.open([lead.seeing for lead in leads])


def _opened(decoder: Decoder, chains: Sequence[Drawing]) -> Stream:
    leads = [_lead(decoder.model, chain) for chain in chains]
    return _open(decoder, leads, chains[0].settings)


def _open(decoder: Decoder, leads: Sequence[Lead], settings: Settings) -> Stream:
    unconditional = [lead.unconditional for lead in leads] if settings.guidance > 1 else None
    return decoder.open([lead.drawing for lead in leads], unconditional)


def _grown(decoder: Decoder, chains: Sequence[Drawing], kept: Sequence[Kept]) -> Stream:
    """Drawing streams that go on behind the drafts they hold, all but the last id."""
    layout = decoder.model.layout
    again = [layout.again(chain.prompt, chain.source) for chain in chains]
    lasts = [chain.rounds[-1] for chain in chains]
    said = [(Drawn(r.ids[-1:]), layout.self_check, Text(layout.closed(r.verdict.ids))) for r in lasts]
    rows = [(*row, *lead.drawing) for row, lead in zip(said, again, strict=True)]
    others = [(*row, *lead.unconditional) for row, lead in zip(said, again, strict=True)]
    room = max(map(row_length, rows)) + decoder.model.image_tokens + WIDEST
    stream = Stream.gathered([(item.drawing, item.row) for item in kept], room)
    decoder.feed(stream, rows, others if stream.guided and others != rows else None)
    return stream


def _look(model: Janus, chain: Drawing, pixels: np.ndarray) -> Row:
    """What the seeing stream is fed for a new draft, after what it holds already."""
    seen = (Seen(pixels, model.image_tokens), model.layout.self_check)
    if chain.kept is None:
        return seen
    said = chain.rounds[-1].verdict.ids
    tail = Text(model.layout.closed(said)[len(said) - 1 :])
    return tail, *model.layout.again(chain.prompt, chain.source).seeing, *seen


def _lead(model: Janus, chain: Drawing) -> Lead:
    """What stands before the chain's next draft, in each of its three streams, from nothing."""
    layout = model.layout
    opening = layout.opening(chain.prompt, chain.source)
    if chain.format == "repair":
        mended = chain.mends
        if mended is None:
            return opening
        lead = introspect.mending(layout, chain.rounds[mended])
        return Lead(lead.drawing, lead.unconditional, opening.seeing)  # it is judged by the task
    again = layout.again(chain.prompt, chain.source)
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
