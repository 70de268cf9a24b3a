"""The decoder's verbs. Nothing is prefilled twice: a stream only grows, finished rows leave it.

Shapes: B rows of a stream, R cached rows (2 B under guidance: conditional rows, then unconditional), D hidden width.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from janus_r1.engine import phrases, sampling, window
from janus_r1.engine.cache import Stream
from janus_r1.engine.graph import Graphs
from janus_r1.engine.network import Network, has_kernels
from janus_r1.engine.sampling import Sampling
from janus_r1.model.janus import Janus
from janus_r1.segments import Row, Seen, Segment, Text, row_length


@dataclass
class Said:
    """What :meth:`Decoder.say` sampled: per row the tokens, their log-probs, and P(first allowed)."""

    ids: list[tuple[int, ...]]
    logprobs: list[tuple[float, ...]]
    first_probs: torch.Tensor
    """[B, len(allowed_first)]: the first token's distribution over what it was allowed to be."""


class Decoder:
    """Decodes one model, with the weights that it has now: build another one when they have changed.

    The last token of a draw or a say is not fed: the next feed starts with it.

    ``graph`` draws with the static step of :mod:`janus_r1.engine.graph`, a CUDA graph on a GPU; by default
    there alone, since on a CPU static shapes gain nothing. ``kernels`` (with ``graph``) takes that step through
    :mod:`janus_r1.engine.kernels`; by default where these can run.
    """

    def __init__(self, model: Janus, graph: bool | None = None, kernels: bool | None = None) -> None:
        self.model = model
        self.graph = model.device.type == "cuda" if graph is None else graph
        kernels = self.graph and has_kernels(model.device, model.dtype) if kernels is None else kernels
        self.network = Network(model, kernels)
        self.graphs = Graphs(self.network)
        self.phrases = phrases.Phrases()
        self.forwards = self.text_forwards = 0  # that drawing and saying took so far, to be read by benchmarks

    # --------------------------------------------------------------------------------------- verbs

    @torch.inference_mode()
    def open(self, rows: Sequence[Text | Row], unconditional: Sequence[Text | Row] | None = None) -> Stream:
        """A stream of prompts, each a text or a row of segments; equal ones are computed once and copied.

        With ``unconditional`` rows the stream is guided: both halves move in lockstep.
        """
        every = [(row,) if isinstance(row, Text) else row for row in [*rows, *(unconditional or [])]]
        wanted = [tuple(_content(segment) for segment in row) for row in every]
        distinct = dict(zip(wanted, every, strict=True))
        room = max(map(row_length, distinct.values())) + self.model.image_tokens + window.WIDEST
        cache = self.network.cache(len(distinct), room)
        stream = Stream(cache, torch.empty(0), guided=False)
        self.feed(stream, list(distinct.values()))
        place = {content: i for i, content in enumerate(distinct)}
        order = [place[content] for content in wanted]
        if order != list(range(len(distinct))):
            cache.select(order)
            stream.last = stream.last[order]
        stream.guided = unconditional is not None
        return stream

    @torch.inference_mode()
    def fork(self, stream: Stream) -> Stream:
        """An independent, unguided copy of a stream's conditional rows."""
        rows = list(range(stream.rows))
        return Stream(stream.cache.copy(rows), stream.last[rows], guided=False)

    @torch.inference_mode()
    def feed(self, stream: Stream, rows: list[Row], unconditional: list[Row] | None = None) -> None:
        """Append segments to every row; rows may differ in length. Guided halves get the same, or the second one
        ``unconditional`` rows, as long as the others token for token.
        """
        embeddings = self.model.embed_rows([*rows, *(unconditional or [])])
        counts = [row_length(row) for row in rows]
        if stream.guided:
            counts *= 2
            embeddings = embeddings if unconditional else embeddings.repeat(2, 1, 1)
        hidden = self.network.append(stream.cache, embeddings, counts)
        ends = torch.tensor(counts, device=hidden.device) - 1
        stream.last = hidden[torch.arange(len(counts), device=hidden.device), ends]

    @torch.inference_mode()
    def draw(
        self,
        stream: Stream,
        uniform: torch.Tensor,
        guidance: float = 1.0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        *,
        width: int | None = 1,
        guess: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sample one whole image a row: ids [B, image_tokens] and their log-probs.

        ``uniform`` [B, image_tokens] are the random numbers. Log-probs are of the distribution that
        was sampled from: guided, tempered, filtered.

        ``width`` places are drawn in one forward (:mod:`janus_r1.engine.window`), for the same image; None: as many as
        pay. ``guess`` [B, image_tokens] are ids that the image will largely have.
        """
        tokens, cache = self.model.image_tokens, stream.cache
        how, uniform = Sampling(guidance, temperature, top_k, top_p), uniform.to(self.model.device)
        if width is None:
            most = window.USUAL if guess is None else window.MENDING
            width = window.width_for(stream.rows, guess is not None, self.network.norm, most)
        width = min(width, window.WIDEST)
        if width > 1 and max(cache.lengths) + tokens + window.WIDEST <= self.network.limit:
            self.network.make_room(cache, tokens + window.WIDEST)
            guess = None if guess is None else guess.to(self.model.device)
            ids, logprobs, forwards = window.draw(self.network, stream, uniform, how, width, guess)
            self.forwards += forwards
            return ids, logprobs
        self.network.make_room(cache, tokens - 1)  # the last id is not fed
        self.forwards += tokens - 1
        return self.graphs.draw(stream, uniform, how) if self.graph else self._one_by_one(stream, uniform, how)

    def _one_by_one(self, stream: Stream, uniform: torch.Tensor, how: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
        ids, logprobs = [], []
        for index in range(uniform.shape[1]):
            chosen, logprob = how.choose(self.model.image_logits(stream.last), stream.guided, uniform[:, index])
            ids.append(chosen)
            logprobs.append(logprob)
            if index + 1 < uniform.shape[1]:
                self._append(stream, self.network.drawn_table[chosen])
        return torch.stack(ids, 1), torch.stack(logprobs, 1)

    @torch.inference_mode()
    def say(
        self,
        stream: Stream,
        uniform: torch.Tensor,
        allowed_first: tuple[int, ...] = (),
        temperature: float = 1.0,
        top_k: int = 0,
        stop: int | None = None,
        *,
        width: int | None = 1,
    ) -> Said:
        """Sample text until the token ``stop`` (default: end of sequence), at most ``uniform.shape[1]`` tokens.

        The first token is one of ``allowed_first`` and scored over these alone; any, if there are none. ``width``
        tokens are said in one forward (:mod:`janus_r1.engine.phrases`), for the same text; None: as many as pay.
        """
        eos = self.model.layout.special.eos if stop is None else stop
        uniform = uniform.to(self.model.device)
        if allowed_first:
            allowed = torch.tensor(allowed_first, device=self.model.device)
            first = self.model.word_logits(stream.last, allowed)
            choice, logprob = sampling.sample(sampling.restrict(first, temperature, 0, 1.0), uniform[:, 0])
            chosen = allowed[choice]
        else:
            first = self.model.text_logits(stream.last)
            chosen, logprob = sampling.sample(sampling.restrict(first, temperature, top_k, 1.0), uniform[:, 0])
        if width is None:
            width = window.width_for(stream.rows, not stream.guided, self.network.norm, window.WIDEST)
        width, most = min(width, window.WIDEST), max(stream.cache.lengths) + uniform.shape[1] + window.WIDEST
        if width > 1 and not stream.guided and most <= self.network.limit:
            begun = list(zip(chosen.tolist(), logprob.tolist(), strict=True))
            words = phrases.Words(temperature, top_k, eos)
            rows, forwards = phrases.say(self.network, stream, begun, uniform, words, width, self.phrases)
            self.text_forwards += forwards
            every = [(tuple(row.ids), tuple(row.logprobs)) for row in rows]
            return Said([ids for ids, _ in every], [scores for _, scores in every], first.softmax(-1))
        ids, logprobs = [chosen], [logprob]
        running = torch.ones_like(chosen, dtype=torch.bool)
        for index in range(1, uniform.shape[1]):
            running &= chosen != eos
            still = running.tolist()
            if not any(still):
                break
            self._append(stream, self.model.embed_text(chosen), still)
            self.text_forwards += 1
            logits = sampling.restrict(self.model.text_logits(stream.last), temperature, top_k, 1.0)
            chosen, logprob = sampling.sample(logits, uniform[:, index])
            ids.append(chosen)
            logprobs.append(logprob)
        return _until_eos(torch.stack(ids, 1), torch.stack(logprobs, 1), eos, first.softmax(-1))

    @torch.inference_mode()
    def keep(self, stream: Stream, rows: list[int]) -> None:
        """Drop all rows but these, in both halves of a guided stream."""
        kept = [*rows, *(row + stream.rows for row in rows)] if stream.guided else rows
        stream.last = stream.last[kept]
        stream.cache.select(kept)

    def rewind(self, stream: Stream, lengths: list[int]) -> None:
        """Forget everything beyond ``lengths`` (one a row); a feed must follow."""
        stream.cache.lengths = lengths * 2 if stream.guided else list(lengths)

    def _append(self, stream: Stream, embeddings_BD: torch.Tensor, running: list[bool] | None = None) -> None:
        """Feed one token a row; rows that are not ``running`` stay as they are."""
        if stream.guided:
            embeddings_BD = embeddings_BD.repeat(2, 1)
        counts = [1] * len(embeddings_BD) if running is None else [int(r) for r in running]
        if self.network.kernels:
            self.network.make_room(stream.cache, 1)
            stream.last = self.graphs.feed(stream, embeddings_BD)
            stream.cache.extend(counts)
        else:
            stream.last = self.network.append(stream.cache, embeddings_BD.unsqueeze(1), counts)[:, 0]


def _content(segment: Segment) -> tuple[type, Hashable]:
    """What two segments have in common when they embed alike."""
    return type(segment), segment.pixels.tobytes() if isinstance(segment, Seen) else segment.ids


def _until_eos(ids: torch.Tensor, logprobs: torch.Tensor, eos: int, first_probs: torch.Tensor) -> Said:
    """Cut every row behind its end-of-sequence token."""
    texts, scores = [], []
    for row, row_logprobs in zip(ids.tolist(), logprobs.tolist(), strict=True):
        end = row.index(eos) + 1 if eos in row else len(row)
        texts.append(tuple(row[:end]))
        scores.append(tuple(row_logprobs[:end]))
    return Said(texts, scores, first_probs)
