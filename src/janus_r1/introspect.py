"""Draw, judge, redraw: the paper's algorithm over a batch of tasks; and draw, look, repair.

Every row draws; the model looks at its own drawing and says Yes or No and why; rows that said Yes
leave, the others go on with all of that in their context, for at most ``settings.rounds`` drafts.
A task with a source image is an edit: its prompt is an instruction, and the drafts are edits of the source.

In the format ``repair`` (design section 4) every draft is looked at in a context of its own: the model lists what it
sees, says Yes or No, and after a No what to change. A repair is an edit of that draft by that instruction, which is all
that it is given. So nothing is said of earlier drafts, and every round costs the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from janus_r1.chain import AGAIN, Chain, Round, Settings, Task, Verdict, best_round, final_round
from janus_r1.engine.decoder import Decoder, Stream
from janus_r1.engine.sampling import DRAW, LIST, SAY, Place, numbers, uniforms
from janus_r1.errors import require
from janus_r1.images import square
from janus_r1.layout import Layout
from janus_r1.model.janus import Janus
from janus_r1.segments import Drawn, Lead, Row, Seen, Source, Text, row_length


def introspect(
    model: Janus,
    tasks: Sequence[Task],
    settings: Settings,
    *,
    max_batch: int = 64,
    on_progress: Callable[[int], None] | None = None,
    first_row: int = 0,
    window: int | None = None,
    begun: Sequence[Round] | None = None,
) -> list[Chain]:
    """One chain per task, in order. A row's random numbers follow from the seed and its index.

    Format repair may go on from first drafts that are there, ``begun``, one a task: they are only looked at.

    ``window`` ids are drawn in one forward, for the same image (:mod:`janus_r1.engine.window`); None: as many as pay.

    Raises:
        UserError: for an empty prompt, a window below 1 or ``begun`` in another format; nothing has been drawn then.
    """
    require(begun is None or model.format == "repair", "only models of the format repair go on from a given draft")
    require(window is None or window >= 1, "window must be at least 1")
    prompts, sources = [task.prompt for task in tasks], encoded_sources(model, tasks)
    openings = [model.layout.opening(*pair) for pair in zip(prompts, sources, strict=True)]
    decoder = Decoder(model)
    chains: list[Chain] = []
    for start in range(0, len(prompts), max_batch):
        part = slice(start, start + max_batch)
        rows = range(first_row + start, first_row + start + len(prompts[part]))
        args = (decoder, prompts[part], sources[part], openings[part], list(rows), settings, window)
        if model.format == "repair":
            chains += repair_chains(*args, begun=None if begun is None else begun[part])
        else:
            chains += _Batch(*args).run()
        if on_progress:
            on_progress(len(chains))
    return chains


def judge(
    model: Janus,
    images: Sequence[np.ndarray],
    tasks: Sequence[Task],
    settings: Settings,
    *,
    max_batch: int = 64,
    rows: Sequence[int] | None = None,
) -> list[Verdict]:
    """Verdicts on images (uint8 [H, W, 3], fitted to the model's size), one a task, as the chain would judge them.

    The random numbers of an image follow from the seed and its number in ``rows``, by default its place.
    """
    places = [Place(settings.seed, row) for row in (range(len(images)) if rows is None else rows)]
    sources = encoded_sources(model, tasks)
    seeing = [model.layout.opening(task.prompt, s).seeing for task, s in zip(tasks, sources, strict=True)]
    decoder = Decoder(model)
    verdicts: list[Verdict] = []
    for start in range(0, len(images), max_batch):
        shown = [square(image, model.image_size) for image in images[start : start + max_batch]]
        part = places[start : start + max_batch]
        if model.format == "repair":
            verdicts += look(decoder, seeing[start : start + max_batch], shown, settings, part)
            continue
        stream = decoder.open(seeing[start : start + max_batch])
        decoder.feed(stream, [(Seen(i, model.image_tokens), model.layout.self_check) for i in shown])
        verdicts += say_verdicts(decoder, stream, settings, part)
    return verdicts


def encoded_sources(model: Janus, tasks: Sequence[Task]) -> list[Source | None]:
    """The sources of ``tasks`` as the model takes them, fitted to its size, with their ids; None for one to draw."""
    images = [square(task.source, model.image_size) for task in tasks if task.source is not None]
    encoded = iter(model.sources(images))
    return [None if task.source is None else next(encoded) for task in tasks]


def first_drafts(
    decoder: Decoder, openings: Sequence[Lead], uniform: torch.Tensor, guidance: float, temperature: float
) -> torch.Tensor:
    """VQ ids [B, S] of chains' first drafts, which nobody judges. ``uniform`` [B, S] are the random numbers."""
    unconditional = [opening.unconditional for opening in openings] if guidance > 1 else None
    stream = decoder.open([opening.drawing for opening in openings], unconditional)
    return decoder.draw(stream, uniform, guidance, temperature)[0]


class _Batch:
    """The rows of one batch while they are being drawn, judged and redrawn."""

    def __init__(
        self,
        decoder: Decoder,
        prompts: list[str],
        sources: Sequence[Source | None],
        openings: list[Lead],
        rows: list[int],
        settings: Settings,
        window: int | None = None,
    ) -> None:
        self.decoder, self.model, self.layout = decoder, decoder.model, decoder.model.layout
        self.prompts, self.sources, self.openings = prompts, sources, openings
        self.rows, self.settings, self.window = rows, settings, window
        self.rounds: list[list[Round]] = [[] for _ in prompts]
        self.active = list(range(len(prompts)))  # positions in ``rounds`` of the streams' rows
        self.later = [self.layout.again(*pair) for pair in zip(prompts, sources, strict=True)]
        self.guided = settings.guidance > 1
        unconditional = [opening.unconditional for opening in openings] if self.guided else None
        self.drawing = decoder.open([opening.drawing for opening in openings], unconditional)
        if any(sources):
            self.seeing = decoder.open([opening.seeing for opening in openings])
        else:  # texts read the same in both streams
            self.seeing = decoder.fork(self.drawing)

    def run(self) -> list[Chain]:
        for index in range(self.settings.rounds):
            self._draw_and_judge(index)
            if index + 1 < self.settings.rounds:
                self._keep_unsatisfied()
            if not self.active:
                break
            if index + 1 < self.settings.rounds:
                self._lead_into_redraw()
        return [self._chain(position) for position in range(len(self.prompts))]

    def _draw_and_judge(self, index: int) -> None:
        s = self.settings
        rows = [self.rows[position] for position in self.active]
        uniform = uniforms(s.seed, rows, index, DRAW, self.model.image_tokens)
        how = (s.guidance, s.temperature, s.top_k, s.top_p)
        ids, logprobs = self.decoder.draw(self.drawing, uniform, *how, width=self.window, guess=self._guess())
        images = self.model.decode_image(ids)
        self.decoder.feed(self.seeing, [self._look(p, image) for p, image in zip(self.active, images, strict=True)])
        places = [Place(s.seed, row, index) for row in rows]
        verdicts = say_verdicts(self.decoder, self.seeing, s, places, self.window)
        drawn = zip(self.active, ids.tolist(), images, verdicts, logprobs.tolist(), strict=True)
        for position, row_ids, image, verdict, row_logprobs in drawn:
            self.rounds[position].append(Round(tuple(row_ids), image, verdict, tuple(row_logprobs)))

    def _guess(self) -> torch.Tensor | None:
        """What the drafts will largely be like: of edits the draft before, or the source."""
        sources = [self.sources[position] for position in self.active]
        drafts = [self.rounds[position][-1].ids if self.rounds[position] else None for position in self.active]
        likely = [draft or source.ids for draft, source in zip(drafts, sources, strict=True) if source]
        return torch.tensor(likely) if len(likely) == len(sources) else None

    def _look(self, position: int, image: np.ndarray) -> Row:
        """What the seeing stream is fed for a new draft, after what it holds already."""
        seen = (Seen(image, self.model.image_tokens), self.layout.self_check)
        if not self.rounds[position] or self.settings.history == "last":
            return seen
        verdict = self.rounds[position][-1].verdict
        return Text(self.layout.closed(verdict.ids)[len(verdict.ids) - 1 :]), *self.later[position].seeing, *seen

    def _keep_unsatisfied(self) -> None:
        if not self.settings.early_stop:
            return
        going = [i for i, p in enumerate(self.active) if not self.rounds[p][-1].verdict.accepted]
        if len(going) < len(self.active):
            self.active = [self.active[i] for i in going]
            if going:
                self.decoder.keep(self.drawing, going)
                self.decoder.keep(self.seeing, going)

    def _lead_into_redraw(self) -> None:
        if self.settings.history == "last":
            openings = [self.openings[position] for position in self.active]
            self.decoder.rewind(self.drawing, [row_length(opening.drawing) for opening in openings])
            self.decoder.rewind(self.seeing, [row_length(opening.seeing) for opening in openings])
        leads = [self.later[position] for position in self.active]
        before = [self._rejected(position) for position in self.active]
        conditional = [(*row, *lead.drawing) for row, lead in zip(before, leads, strict=True)]
        unconditional = [(*row, *lead.unconditional) for row, lead in zip(before, leads, strict=True)]
        alike = unconditional == conditional  # without edits: nothing of a prompt is said again
        self.decoder.feed(self.drawing, conditional, None if alike or not self.guided else unconditional)

    def _rejected(self, position: int) -> Row:
        """What follows the ids that the drawing stream holds already (all but the last, or none)."""
        last = self.rounds[position][-1]
        unfed = last.ids if self.settings.history == "last" else last.ids[-1:]
        return Drawn(unfed), self.layout.self_check, Text(self.layout.closed(last.verdict.ids))

    def _chain(self, position: int) -> Chain:
        rounds = tuple(self.rounds[position])
        prompt, source, row = self.prompts[position], self.sources[position], self.rows[position]
        return Chain(prompt, rounds, final_round(rounds, self.settings), self.settings, row, source)


def say_verdicts(
    decoder: Decoder, stream: Stream, settings: Settings, places: Sequence[Place], window: int | None = None
) -> list[Verdict]:
    """Yes or No and why, of what the rows of ``stream`` end with; one verdict a place."""
    special = decoder.model.layout.special
    uniform = numbers(places, SAY, settings.max_reason_tokens)
    how = settings.text_temperature, settings.text_top_k
    said = decoder.say(stream, uniform, (special.yes, special.no), *how, width=window)
    p_yes = said.first_probs[:, 0].tolist()
    require(all(map(math.isfinite, p_yes)), "P(Yes) is not a number: the weights are broken, or overflow in this dtype")
    texts = [decoder.model.tokenizer.decode(ids, skip_special_tokens=True) for ids in said.ids]
    return [
        Verdict(ids[0] == special.yes, text.strip(), p, ids, logprobs)
        for ids, logprobs, text, p in zip(said.ids, said.logprobs, texts, p_yes, strict=True)
    ]


# ------------------------------------------------------------------------------------ format repair


@dataclass
class _Growing:
    """A chain while it is drawn."""

    prompt: str
    source: Source | None
    opening: Lead
    row: int
    rounds: list[Round] = field(default_factory=list)


def repair_chains(
    decoder: Decoder,
    prompts: Sequence[str],
    sources: Sequence[Source | None],
    openings: Sequence[Lead],
    rows: Sequence[int],
    settings: Settings,
    window: int | None = None,
    begun: Sequence[Round] | None = None,
) -> list[Chain]:
    """One chain a prompt, in order; ``window`` as :meth:`Decoder.draw` takes it, ``begun`` as :func:`introspect`."""
    batch = [_Growing(*parts) for parts in zip(prompts, sources, openings, rows, strict=True)]
    going = batch
    if begun is not None:
        places = [Place(settings.seed, row) for row in rows]
        shown = [draft.pixels for draft in begun]
        verdicts = look(decoder, [o.seeing for o in openings], shown, settings, places, window)
        for chain, draft, verdict in zip(batch, begun, verdicts, strict=True):
            chain.rounds.append(Round(draft.ids, draft.pixels, verdict))
        going = [chain for chain in batch if not (settings.early_stop and chain.rounds[-1].verdict.accepted)]
    for index in range(0 if begun is None else 1, settings.rounds if going else 0):
        plans = [_next_draft(decoder, chain, settings) for chain in going]
        # Mended drafts are sampled at another temperature than those from the task alone.
        for mends, temperature in ((False, settings.temperature), (True, settings.repair_temperature)):
            chosen = [i for i, (parent, _) in enumerate(plans) if (parent is not None) == mends]
            if chosen:
                part = [going[i] for i in chosen]
                _draw_and_look(decoder, part, [plans[i] for i in chosen], settings, temperature, index, window)
        if settings.early_stop:
            going = [chain for chain in going if not chain.rounds[-1].verdict.accepted]
        if not going:
            break
    return [_finished(chain, settings) for chain in batch]


def look(
    decoder: Decoder,
    openings: Sequence[Row],
    images: Sequence[np.ndarray],
    settings: Settings,
    places: Sequence[Place],
    window: int | None = None,
) -> list[Verdict]:
    """Verdicts on images (uint8 [H, W, 3]) of tasks whose seeing streams begin with ``openings``: listed, then said."""
    model, layout = decoder.model, decoder.model.layout
    stream = decoder.open(list(openings))
    decoder.feed(stream, [(Seen(image, model.image_tokens), layout.self_check) for image in images])
    uniform = numbers(places, LIST, settings.max_list_tokens)
    end = layout.list_end.ids[-1]
    how = settings.text_temperature, settings.text_top_k
    listed = decoder.say(stream, uniform, (), *how, stop=end, width=window)
    decoder.feed(stream, [_ending(ids, layout.list_end) for ids in listed.ids])
    verdicts = say_verdicts(decoder, stream, settings, places, window)
    lists = [model.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in listed.ids]
    return [
        replace(verdict, listing=listing, list_ids=ids, list_logprobs=logprobs)
        for verdict, listing, ids, logprobs in zip(verdicts, lists, listed.ids, listed.logprobs, strict=True)
    ]


def _ending(ids: tuple[int, ...], end: Text) -> Row:
    """What follows a list in the stream: its last token, which is not fed yet, and the end where it was cut short."""
    return (Text(ids[-1:]),) if ids[-1] == end.ids[-1] else (Text(ids[-1:]), end)


def mended_round(rounds: Sequence[Round], settings: Settings) -> int | None:
    """The round whose draft the next one mends; None where it is drawn from the task alone."""
    if not rounds or settings.redraw == "again":
        return None
    parent = best_round(rounds) if settings.repair_from == "best" else len(rounds) - 1
    verdict = rounds[parent].verdict
    hopeless = verdict.instruction == AGAIN or verdict.faults > settings.repair_most
    anew = not verdict.instruction or (settings.redraw == "auto" and hopeless)
    return None if anew else parent


def mending(layout: Layout, rejected: Round) -> Lead:
    """What stands before a draft that mends another: that one, and what its verdict asks for."""
    return layout.opening(rejected.verdict.instruction, Source(rejected.ids, rejected.pixels))


def _next_draft(decoder: Decoder, chain: _Growing, settings: Settings) -> tuple[int | None, Lead]:
    """The round to mend, or None, and what stands before the new draft."""
    parent = mended_round(chain.rounds, settings)
    return parent, chain.opening if parent is None else mending(decoder.model.layout, chain.rounds[parent])


def _draw_and_look(
    decoder: Decoder,
    part: Sequence[_Growing],
    plans: Sequence[tuple[int | None, Lead]],
    settings: Settings,
    temperature: float,
    index: int,
    window: int | None,
) -> None:
    model, guided = decoder.model, settings.guidance > 1
    leads = [lead for _, lead in plans]
    stream = decoder.open([lead.drawing for lead in leads], [x.unconditional for x in leads] if guided else None)
    places = [Place(settings.seed, chain.row, index) for chain in part]
    uniform = numbers(places, DRAW, model.image_tokens)
    how = settings.guidance, temperature, settings.top_k, settings.top_p
    ids, logprobs = decoder.draw(stream, uniform, *how, width=window, guess=_mended(part, plans))
    images = model.decode_image(ids)
    verdicts = look(decoder, [chain.opening.seeing for chain in part], list(images), settings, places, window)
    drawn = zip(part, plans, ids.tolist(), images, verdicts, logprobs.tolist(), strict=True)
    for chain, (parent, _), row_ids, image, verdict, row_logprobs in drawn:
        chain.rounds.append(Round(tuple(row_ids), image, verdict, tuple(row_logprobs), parent))


def _mended(part: Sequence[_Growing], plans: Sequence[tuple[int | None, Lead]]) -> torch.Tensor | None:
    """The drafts that are mended, which are most of what comes; None where one is drawn from its task alone."""
    ids = [chain.rounds[parent].ids for chain, (parent, _) in zip(part, plans, strict=True) if parent is not None]
    return torch.tensor(ids) if len(ids) == len(part) else None


def _finished(chain: _Growing, settings: Settings) -> Chain:
    rounds = tuple(chain.rounds)
    return Chain(chain.prompt, rounds, final_round(rounds, settings), settings, chain.row, chain.source)
