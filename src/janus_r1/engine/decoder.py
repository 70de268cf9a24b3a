"""The decoder's verbs. Nothing is prefilled twice: a stream only grows, finished rows leave it.

Shapes: B rows of a stream, R cached rows (2 B under guidance: conditional rows, then unconditional),
T new tokens, D hidden width, H heads, E head width, S cached positions.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from janus_r1.engine import graph as graphs
from janus_r1.engine import sampling, token
from janus_r1.engine.cache import Cache, Placement
from janus_r1.engine.weights import LayerWeights, laid_out, layer_weights, linear
from janus_r1.layout import Row, Seen, Segment, Text, row_length
from janus_r1.model.janus import Janus


@dataclass
class Stream:
    """A batch of growing sequences. ``last`` [R, D] is what the next token is predicted from."""

    cache: Cache
    last: torch.Tensor
    guided: bool

    @property
    def rows(self) -> int:
        return self.cache.rows // 2 if self.guided else self.cache.rows

    @property
    def lengths(self) -> list[int]:
        return self.cache.lengths[: self.rows]


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
    :mod:`janus_r1.engine.token`; by default where these can run.
    """

    def __init__(self, model: Janus, graph: bool | None = None, kernels: bool | None = None) -> None:
        self.model = model
        self.graph = model.device.type == "cuda" if graph is None else graph
        self.kernels = self.graph and token.available(model.device, model.dtype) if kernels is None else kernels
        self.steps: dict[tuple, graphs.Steps | graphs.Feeding] = {}
        language = model.core.model.language_model
        fused = layer_weights(language)
        self.layers = fused if self.kernels else laid_out(fused)
        self.norm = language.norm.weight
        self.eps = language.config.rms_norm_eps
        self.epsilon = torch.tensor(self.eps, device=model.device)  # again, as addcmul takes it
        self.heads = language.config.num_attention_heads
        self.kv_heads = language.config.num_key_value_heads
        self.width = language.layers[0].self_attn.head_dim
        self.rotary = language.rotary_emb
        self.limit = language.config.max_position_embeddings
        with torch.inference_mode():
            codes = torch.arange(model.core.config.vq_config.num_embeddings, device=model.device)
            self.drawn_table = model.embed_drawn(codes)  # every id embedded once: [K, D]
            self.cos, self.sin = self._rotation(torch.arange(self.limit, device=model.device))

    # --------------------------------------------------------------------------------------- verbs

    @torch.inference_mode()
    def open(self, rows: Sequence[Text | Row], unconditional: Sequence[Text | Row] | None = None) -> Stream:
        """A stream of prompts, each a text or a row of segments; equal ones are computed once and copied.

        With ``unconditional`` rows the stream is guided: both halves move in lockstep.
        """
        every = [(row,) if isinstance(row, Text) else row for row in [*rows, *(unconditional or [])]]
        wanted = [tuple(_content(segment) for segment in row) for row in every]
        distinct = dict(zip(wanted, every, strict=True))
        room = max(map(row_length, distinct.values())) + self.model.image_tokens
        kept = self.model.cache_dtype or self.norm.dtype
        cache = Cache(len(self.layers), len(distinct), self.kv_heads, self.width, room, kept, self.model.device)
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
        hidden = self._forward(stream.cache, embeddings, counts)
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
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sample one whole image a row: ids [B, image_tokens] and their log-probs.

        ``uniform`` [B, image_tokens] are the random numbers. Log-probs are of the distribution that
        was sampled from: guided, tempered, filtered.
        """
        tokens = self.model.image_tokens
        self._make_room(stream.cache, tokens - 1)  # the last id is not fed
        how = graphs.Sampling(guidance, temperature, top_k, top_p)
        uniform = uniform.to(self.model.device)
        if self.graph:
            return graphs.draw(self, stream, uniform, how)
        ids, logprobs = [], []
        for index in range(tokens):
            chosen, logprob = how.choose(self.model.image_logits(stream.last), stream.guided, uniform[:, index])
            ids.append(chosen)
            logprobs.append(logprob)
            if index + 1 < tokens:
                self._append(stream, self.drawn_table[chosen])
        return torch.stack(ids, 1), torch.stack(logprobs, 1)

    @torch.inference_mode()
    def say(
        self,
        stream: Stream,
        uniform: torch.Tensor,
        allowed_first: tuple[int, ...],
        temperature: float = 1.0,
        top_k: int = 0,
    ) -> Said:
        """Sample text until the end-of-sequence token, at most ``uniform.shape[1]`` tokens.

        The first token is one of ``allowed_first`` and scored over these alone.
        """
        eos = self.model.layout.special.eos
        uniform = uniform.to(self.model.device)
        allowed = torch.tensor(allowed_first, device=self.model.device)
        first = self.model.word_logits(stream.last, allowed)
        choice, logprob = sampling.sample(sampling.restrict(first, temperature, 0, 1.0), uniform[:, 0])
        chosen = allowed[choice]
        ids, logprobs = [chosen], [logprob]
        running = torch.ones_like(chosen, dtype=torch.bool)
        for index in range(1, uniform.shape[1]):
            running &= chosen != eos
            still = running.tolist()
            if not any(still):
                break
            self._append(stream, self.model.embed_text(chosen), still)
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

    # ----------------------------------------------------------------------------- one forward pass

    def _append(self, stream: Stream, embeddings_BD: torch.Tensor, running: list[bool] | None = None) -> None:
        """Feed one token a row; rows that are not ``running`` stay as they are."""
        if stream.guided:
            embeddings_BD = embeddings_BD.repeat(2, 1)
        counts = [1] * len(embeddings_BD) if running is None else [int(r) for r in running]
        if self.kernels:
            self._make_room(stream.cache, 1)
            stream.last = graphs.feed(self, stream, embeddings_BD)
            stream.cache.extend(counts)
        else:
            stream.last = self._forward(stream.cache, embeddings_BD.unsqueeze(1), counts)[:, 0]

    def _forward(self, cache: Cache, x_RTD: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """Final hidden states [R, T, D]; keys and values are appended, ``counts`` tokens a row."""
        new = x_RTD.shape[1]
        self._make_room(cache, new)
        hidden = self.layers_of(cache, x_RTD, Placement.of(cache, new, self.norm))
        cache.extend(counts)
        return hidden

    def _make_room(self, cache: Cache, tokens: int) -> None:
        """For as many more in every row."""
        longest = max(cache.lengths) + tokens
        if longest > self.limit:
            raise ValueError(f"a chain of {longest} tokens exceeds the model's {self.limit} positions")
        cache.reserve(tokens)

    def layers_of(self, cache: Cache, x_RTD: torch.Tensor, place: Placement) -> torch.Tensor:
        """All layers on new tokens at ``place``: final hidden states [R, T, D]. Tensors in, tensors out."""
        cos, sin = self.cos[place.positions].unsqueeze(2), self.sin[place.positions].unsqueeze(2)
        x = x_RTD.to(self.norm.dtype)
        for index, layer in enumerate(self.layers):
            x = x + self._attend(cache, index, layer, self._rms(x, layer.norm1), place, cos, sin)
            gate, up = linear(self._rms(x, layer.norm2), layer.gate_up).chunk(2, -1)
            x = x + linear(F.silu(gate).mul_(up), layer.down)
        return self._rms(x, self.norm)

    def _attend(
        self, cache: Cache, index: int, layer: LayerWeights, x: torch.Tensor, place: Placement, cos, sin
    ) -> torch.Tensor:
        rows, new, _ = x.shape
        qkv = linear(x, layer.qkv).view(rows, new, self.heads + 2 * self.kv_heads, self.width)
        qk, v = qkv.split((self.heads + self.kv_heads, self.kv_heads), dim=2)
        qk = torch.addcmul(qk * cos, qk.roll(self.width // 2, -1), sin)
        q, k = qk.split((self.heads, self.kv_heads), dim=2)
        keys, values = cache.keys[index], cache.values[index]
        place.write(keys, k)
        place.write(values, v)
        attended = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            keys[:, : place.end].to(q.dtype).transpose(1, 2),
            values[:, : place.end].to(q.dtype).transpose(1, 2),
            attn_mask=place.mask,
            is_causal=place.causal,
            enable_gqa=self.heads != self.kv_heads,
        )
        return linear(attended.transpose(1, 2).reshape(rows, new, -1), layer.out)

    def _rms(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """RMS norm; on a CPU a third of the time of torch's own, which is fused on a GPU alone."""
        if x.is_cuda:
            return F.rms_norm(x, (x.shape[-1],), weight, self.eps)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = torch.addcmul(self.epsilon, norm, norm, value=1 / x.shape[-1]).rsqrt()
        return (x * scale.to(x.dtype)).mul_(weight)

    def _rotation(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines, and sines whose first half is negated: x cos + roll(x) sin is then the rotation."""
        like = self.norm[:1]
        cos, sin = self.rotary(like, positions.unsqueeze(0))
        half = self.width // 2
        return cos[0], torch.cat((-sin[0, :, :half], sin[0, :, half:]), dim=-1)


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
