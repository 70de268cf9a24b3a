"""Drawing with static shapes: one step function that runs as it is on a CPU and as a CUDA graph on a GPU.

A step samples an id from the last hidden states, embeds it, and runs all layers on it. Whatever it reads
or changes stands in buffers that never move, its own position too, so a captured step is right for every
token of every image of that shape, and the host does nothing but count and replay. Without the GPU's
kernels how far back attention reads is fixed in a step; it is rounded up, so an image needs a few graphs
and reads little in vain.

Shapes: B rows of a stream, R cached rows (2 B under guidance), S ids an image, D hidden width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from janus_r1.engine.cache import Placement, Stream, without
from janus_r1.engine.network import Network
from janus_r1.engine.sampling import Sampling

REACH = 128  # attention reads a multiple of so many cached tokens
KEPT = 8  # shapes whose buffers and graphs are kept


class Graphs:
    """What is held for the shapes that one network has been run in lately."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.held: dict[tuple, Steps | Feeding] = {}

    def draw(self, stream: Stream, uniform: torch.Tensor, how: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
        """As :meth:`Decoder.draw`, in a cache with room for the image; no host sync until the ids are read."""
        tokens, cache = uniform.shape[1], stream.cache
        steps = self.keep(
            (_place(stream), stream.guided, how, tokens),
            lambda: Steps(self.network, self.capture, stream, how, tokens),
        )
        steps.begin(stream, uniform)
        longest = max(cache.lengths)
        for fed in range(1, tokens):  # the last id is not fed
            steps.run(steps.reads(longest + fed))
        steps.choose()
        stream.last = steps.last_RD.clone()
        cache.extend([tokens - 1] * cache.rows)
        del steps.cache  # its memory must not outlive the stream
        return steps.ids_BS.clone(), steps.logprobs_BS.clone()

    def feed(self, stream: Stream, x_RD: torch.Tensor) -> torch.Tensor:
        """One token a row by the kernels; lengths are the caller's to count."""
        feeding = self.keep((_place(stream), len(x_RD)), lambda: Feeding(self.network, self.capture, stream))
        return feeding.run(stream, x_RD)

    def keep(self, key: tuple, make: Callable[[], Steps | Feeding]):
        """What is held for a shape; that of the oldest makes room for a new one."""
        if key not in self.held:
            while len(self.held) >= KEPT:
                del self.held[next(iter(self.held))]
            self.held[key] = make()
        return self.held[key]

    def capture(self, step: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Recorded, not run; it must have run before, which loads all that a capture must not.

        All graphs that live share their memory: they never run at once, and keep nothing in it between runs. With the
        last of them their pool is gone, and its name must not be used again.
        """
        living = [graph for held in self.held.values() for graph in held.captured]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=living[0].pool() if living else None):
            step()
        return graph


def _place(stream: Stream) -> tuple:
    """A graph knows addresses only, so the cache's are part of a shape."""
    cache = stream.cache
    return cache.keys.data_ptr(), cache.values.data_ptr(), cache.keys.shape


Capture = Callable[[Callable[[], None]], torch.cuda.CUDAGraph]


class Steps:
    """The buffers of one shape, its step, and the graphs captured of it."""

    def __init__(self, network: Network, capture: Capture, stream: Stream, how: Sampling, tokens: int) -> None:
        self.network, self.capture, self.how, self.guided = network, capture, how, stream.guided
        self.cache = stream.cache
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
        logits_RV, table_VD = self.network.image_logits(self.last_RD), self.network.drawn_table
        if self.network.kernels and self.how.plain:
            return self._by_kernel(logits_RV, table_VD)
        uniform = self.uniform_BS.index_select(1, self.index).squeeze(1)
        chosen, logprobs = self.how.choose(logits_RV, self.guided, uniform)
        self.ids_BS.index_copy_(1, self.index, chosen.unsqueeze(1))
        self.logprobs_BS.index_copy_(1, self.index, logprobs.unsqueeze(1))
        return table_VD[chosen].repeat(2 if self.guided else 1, 1)

    def _by_kernel(self, logits_RV: torch.Tensor, table_VD: torch.Tensor) -> torch.Tensor:
        from janus_r1.engine import kernels

        guidance = self.how.guidance if self.guided else None
        written = (self.uniform_BS, self.index, table_VD, self.ids_BS, self.logprobs_BS)
        return kernels.sample(logits_RV, *written, guidance, self.how.temperature, self.how.top_k)

    def step(self, end: int) -> None:
        """One id a row, through all layers; attention reads the first ``end`` cached tokens."""
        x_RD = self.choose()
        if self.network.kernels:
            hidden_RD = self.network.token(self.cache, x_RD, self.lengths_R)
        else:
            hidden_RD = self.network.forward(self.cache, x_RD.unsqueeze(1), self.placement(end, x_RD.dtype))[:, 0]
        self.last_RD.copy_(hidden_RD)
        self.lengths_R += 1
        self.index += 1

    def reads(self, longest: int) -> int:
        """How far back attention reads for rows of up to ``longest`` tokens; the kernels know every row's length."""
        capacity = self.cache.capacity
        return capacity if self.network.kernels else min(capacity, -(-longest // REACH) * REACH)

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
            self.graphs[end] = self.capture(partial(self.step, end))


class Feeding:
    """One token of given embeddings a row, for what is sampled outside of the graph: text."""

    def __init__(self, network: Network, capture: Capture, stream: Stream) -> None:
        self.network, self.capture, self.cache = network, capture, stream.cache
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
                self.graph = self.capture(self.step)
        else:
            self.graph.replay()
        del self.cache
        return self.last_RD

    def step(self) -> None:
        self.last_RD.copy_(self.network.token(self.cache, self.x_RD, self.lengths_R))
