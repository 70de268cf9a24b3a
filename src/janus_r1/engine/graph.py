"""Drawing with static shapes: one step function that runs as it is on a CPU and as a CUDA graph on a GPU.

A step samples an id from the last hidden states, embeds it, and runs all layers on it. Whatever it reads
or changes stands in buffers that never move, its own position too, so a captured step is right for every
token of every image of that shape, and the host does nothing but count and replay. Without the kernels of
:mod:`janus_r1.engine.token` how far back attention reads is fixed in a step; it is rounded up, so an image needs a few
graphs and reads little in vain.

Shapes: B rows of a stream, R cached rows (2 B under guidance), S ids an image, D hidden width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from janus_r1.engine import sampling, token
from janus_r1.engine.cache import Placement, without

if TYPE_CHECKING:
    from janus_r1.engine.decoder import Decoder, Stream

READ = 128  # attention reads a multiple of so many cached tokens
KEPT = 8  # shapes whose buffers and graphs a decoder keeps


@dataclass(frozen=True)
class Sampling:
    """What a drawn id is sampled from."""

    guidance: float
    temperature: float
    top_k: int
    top_p: float

    @property
    def plain(self) -> bool:
        """Whether our kernel samples it."""
        return self.temperature > 0 and self.top_p >= 1

    def choose(self, logits: torch.Tensor, guided: bool, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [R, K] of both halves, numbers [B] -> ids [B] and their log-probs [B]."""
        if guided:
            conditional, unconditional = logits.float().chunk(2)
            logits = sampling.guided(conditional, unconditional, self.guidance)
        return sampling.sample(sampling.restrict(logits, self.temperature, self.top_k, self.top_p), uniform)


class Steps:
    """The buffers of one shape, its step, and the graphs captured of it."""

    def __init__(self, decoder: Decoder, stream: Stream, how: Sampling, tokens: int) -> None:
        self.decoder, self.how, self.guided, self.cache = decoder, how, stream.guided, stream.cache
        device, rows = stream.last.device, stream.cache.rows
        self.last_RD = torch.empty_like(stream.last)
        self.uniform_BS = torch.empty(stream.rows, tokens, device=device)
        self.logprobs_BS = torch.empty(stream.rows, tokens, device=device)
        self.ids_BS = torch.empty(stream.rows, tokens, dtype=torch.long, device=device)
        self.index = torch.empty(1, dtype=torch.long, device=device)  # of the id to draw
        self.lengths_R = torch.empty(rows, dtype=torch.long, device=device)
        self.starts_R = torch.arange(rows, device=device) * stream.cache.capacity
        self.positions = torch.arange(stream.cache.capacity, device=device)
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}

    @property
    def captured(self) -> list[torch.cuda.CUDAGraph]:
        return list(self.graphs.values())

    def begin(self, stream: Stream, uniform: torch.Tensor) -> None:
        """Fill the buffers for an image."""
        self.cache = stream.cache
        self.last_RD.copy_(stream.last)
        self.uniform_BS.copy_(uniform)
        self.lengths_R.copy_(torch.tensor(stream.cache.lengths))
        self.index.zero_()

    def choose(self) -> torch.Tensor:
        """Sample and write down the ids at ``index``; their embeddings, [R, D]."""
        logits_RV, table_VD = self.decoder.model.image_logits(self.last_RD), self.decoder.drawn_table
        if self.decoder.kernels and self.how.plain:
            return token.sample(self, logits_RV, table_VD)
        uniform = self.uniform_BS.index_select(1, self.index).squeeze(1)
        chosen, logprobs = self.how.choose(logits_RV, self.guided, uniform)
        self.ids_BS.index_copy_(1, self.index, chosen.unsqueeze(1))
        self.logprobs_BS.index_copy_(1, self.index, logprobs.unsqueeze(1))
        return table_VD[chosen].repeat(2 if self.guided else 1, 1)

    def step(self, end: int) -> None:
        """One id a row, through all layers; attention reads the first ``end`` cached tokens."""
        x_RD = self.choose()
        if self.decoder.kernels:
            hidden_RD = token.forward(self.decoder, self.cache, x_RD, self.lengths_R)
        else:
            hidden_RD = self.decoder.layers_of(self.cache, x_RD.unsqueeze(1), self.placement(end, x_RD.dtype))[:, 0]
        self.last_RD.copy_(hidden_RD)
        self.lengths_R += 1
        self.index += 1

    def reads(self, longest: int) -> int:
        """How far back attention reads for rows of up to ``longest`` tokens; the kernels know every row's length."""
        capacity = self.cache.capacity
        return capacity if self.decoder.kernels else min(capacity, -(-longest // READ) * READ)

    def placement(self, end: int, dtype: torch.dtype) -> Placement:
        """Each row's new token behind its own; later places are masked."""
        hidden = self.positions[:end] > self.lengths_R.unsqueeze(1)
        mask = without(hidden, dtype)[:, None, None]
        return Placement(self.lengths_R.unsqueeze(1), self.starts_R + self.lengths_R, end, mask, causal=False)

    def run(self, end: int) -> None:
        """A step; the first of its kind on a GPU runs as it is."""
        if end in self.graphs:
            self.graphs[end].replay()
            return
        self.step(end)
        if self.last_RD.is_cuda:
            self.graphs[end] = capture(self.decoder, partial(self.step, end))


class Feeding:
    """One token of given embeddings a row, for what is sampled outside of the graph: text."""

    def __init__(self, decoder: Decoder, stream: Stream) -> None:
        self.decoder, self.cache = decoder, stream.cache
        self.x_RD, self.last_RD = torch.empty_like(stream.last), torch.empty_like(stream.last)
        self.lengths_R = torch.empty(stream.cache.rows, dtype=torch.long, device=stream.last.device)
        self.graph: torch.cuda.CUDAGraph | None = None

    @property
    def captured(self) -> list[torch.cuda.CUDAGraph]:
        return [self.graph] if self.graph else []

    def run(self, stream: Stream, x_RD: torch.Tensor) -> torch.Tensor:
        """Final hidden states [R, D] behind what the cache holds, overwritten by the next run."""
        self.cache = stream.cache
        self.x_RD.copy_(x_RD)
        self.lengths_R.copy_(torch.tensor(stream.cache.lengths))
        if self.graph is None:
            self.step()
            if self.x_RD.is_cuda:
                self.graph = capture(self.decoder, self.step)
        else:
            self.graph.replay()
        del self.cache
        return self.last_RD

    def step(self) -> None:
        self.last_RD.copy_(token.forward(self.decoder, self.cache, self.x_RD, self.lengths_R))


def feed(decoder: Decoder, stream: Stream, x_RD: torch.Tensor) -> torch.Tensor:
    """One token a row by the kernels; lengths are the caller's to count."""
    return _kept(decoder, (_place(stream), len(x_RD)), lambda: Feeding(decoder, stream)).run(stream, x_RD)


def capture(decoder: Decoder, step: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """Recorded, not run; it must have run before, which loads all that a capture must not.

    All graphs that live share their memory: they never run at once, and keep nothing in it between runs. With the last
    of them their pool is gone, and its name must not be used again.
    """
    living = [graph for kept in decoder.steps.values() for graph in kept.captured]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=living[0].pool() if living else None):
        step()
    return graph


def draw(decoder: Decoder, stream: Stream, uniform: torch.Tensor, how: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """As :meth:`Decoder.draw`, whose cache has room for the image already; no host sync until the ids are read."""
    tokens, cache = uniform.shape[1], stream.cache
    steps = _steps(decoder, stream, how, tokens)
    steps.begin(stream, uniform)
    longest = max(cache.lengths)
    for fed in range(1, tokens):  # the last id is not fed
        steps.run(steps.reads(longest + fed))
    steps.choose()
    stream.last = steps.last_RD.clone()
    cache.extend([tokens - 1] * cache.rows)
    del steps.cache  # its memory must not outlive the stream
    return steps.ids_BS.clone(), steps.logprobs_BS.clone()


def _steps(decoder: Decoder, stream: Stream, how: Sampling, tokens: int) -> Steps:
    """Buffers and graphs of this shape."""
    key = (_place(stream), stream.guided, how, tokens)
    return _kept(decoder, key, lambda: Steps(decoder, stream, how, tokens))


def _place(stream: Stream) -> tuple:
    """A graph knows addresses only, so the cache's are part of a shape."""
    cache = stream.cache
    return cache.keys.data_ptr(), cache.values.data_ptr(), cache.keys.shape


def _kept(decoder: Decoder, key: tuple, make: Callable[[], Any]) -> Any:
    """What is held for a shape; that of the oldest makes room for a new one."""
    if key not in decoder.steps:
        while len(decoder.steps) >= KEPT:
            del decoder.steps[next(iter(decoder.steps))]
        decoder.steps[key] = make()
    return decoder.steps[key]
