"""From logits to tokens. A row's random numbers depend on the seed, its index and the round alone.

Sampling inverts the cumulative distribution at one uniform number a token: that number is drawn
before the image starts, so a row is sampled alike whatever else is in its batch, and nothing waits
for the device inside an image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

DRAW, SAY, LIST = 0, 1, 2  # what the uniforms of a row are for


class Place(NamedTuple):
    """What the random numbers of a row follow from."""

    seed: int
    row: int
    round: int = 0


def numbers(places: Iterable[Place], purpose: int, count: int) -> torch.Tensor:
    """[rows, count] numbers in [0, 1), each row from a generator of its own."""
    keys = ([place.seed & 0xFFFFFFFF, place.row, place.round, purpose] for place in places)
    return torch.from_numpy(np.stack([np.random.default_rng(key).random(count, np.float32) for key in keys]))


def uniforms(seed: int, rows: list[int], round_index: int, purpose: int, count: int) -> torch.Tensor:
    """:func:`numbers` of rows that have seed and round in common."""
    return numbers([Place(seed, row, round_index) for row in rows], purpose, count)


def guided(conditional: torch.Tensor, unconditional: torch.Tensor, weight: float) -> torch.Tensor:
    """Classifier-free guidance: u + w (c - u)."""
    return unconditional + weight * (conditional - unconditional)


def restrict(logits: torch.Tensor, temperature: float, top_k: int, top_p: float) -> torch.Tensor:
    """Log-probabilities [R, V] (float32) of the distribution that is sampled from.

    Temperature 0 keeps the likeliest token only; ``top_k`` 0 and ``top_p`` 1 keep all.
    """
    logits = logits.float()
    if temperature == 0:
        top_k, temperature = 1, 1.0
    logits = logits / temperature
    if 0 < top_k < logits.shape[-1]:
        weakest = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < weakest, -torch.inf)
    logprobs = logits.log_softmax(-1)
    if top_p < 1:
        ordered, index = logprobs.sort(dim=-1, descending=True)
        before = ordered.exp().cumsum(-1) - ordered.exp()
        dropped = torch.zeros_like(before, dtype=torch.bool).scatter(-1, index, before >= top_p)
        logprobs = logprobs.masked_fill(dropped, -torch.inf).log_softmax(-1)
    return logprobs


def sample(logprobs: torch.Tensor, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [R] and their log-probabilities [R] at uniform numbers [R]."""
    cumulative = logprobs.exp().cumsum(-1)
    target = uniform.to(cumulative.device).unsqueeze(-1) * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, target, right=True).squeeze(-1)
    # Rounding can land on a token of probability 0 behind the last possible one: step back to it.
    last = logprobs.shape[-1] - 1 - (logprobs > -torch.inf).flip(-1).to(torch.int8).argmax(-1)
    tokens = torch.minimum(tokens, last)
    return tokens, logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True)
class Sampling:
    """What a drawn id is sampled from."""

    guidance: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    @property
    def plain(self) -> bool:
        """Whether our kernel samples it."""
        return self.temperature > 0 and self.top_p >= 1

    def choose(self, logits: torch.Tensor, in_halves: bool, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [R, K] of both halves, numbers [B] -> ids [B] and their log-probs [B]."""
        if in_halves:
            conditional, unconditional = logits.float().chunk(2)
            logits = guided(conditional, unconditional, self.guidance)
        return sample(restrict(logits, self.temperature, self.top_k, self.top_p), uniform)
