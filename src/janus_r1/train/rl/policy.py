"""Log-probs of sampled chains under the current weights, with gradients: what the engine reported, recomputed.

Only positions whose token was sampled reach a head, a chunk at a time and recomputed backwards, so
that [tokens, vocabulary] logits (576 x 16,384 a draft of the real models) never stand in memory at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from janus_r1.chain import Chain, Settings
from janus_r1.engine.sampling import guided
from janus_r1.layout import Row
from janus_r1.model.janus import Janus
from janus_r1.train.objective import targets
from janus_r1.train.rl.trajectory import Rows
from janus_r1.train.rl.trajectory import rows as rows_of

PolicyName = Literal["guided", "tempered", "conditional"]


class Policy(nn.Module):
    """Janus as a policy over image ids and verdicts; the module that optimizers and accelerate see.

    How an image token's log-prob is taken, c and u being conditional and unconditional logits and w
    the guidance weight: ``guided`` softmax(u + w (c - u)), exactly the sampler's; ``tempered``
    softmax((u + w (c - u)) / w), as the official code does; ``conditional`` softmax(c), at half the cost.
    """

    def __init__(self, janus: Janus, settings: Settings, name: PolicyName = "guided", chunk: int = 2048) -> None:
        super().__init__()
        self.janus, self.settings, self.name, self.chunk = janus, settings, name, chunk

    def forward(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        """(log-probs of image tokens, of text tokens), float32, flat as in :mod:`trajectory`."""
        return self._image(rows), self._text(rows)

    def _image(self, rows: Rows) -> torch.Tensor:
        wanted = targets(rows.drawing)
        unconditional = None if self.name == "conditional" else rows.unconditional
        hidden = self._hidden([*rows.drawing, *(unconditional or [])])
        flat, device = hidden.flatten(0, 1), hidden.device
        at = wanted.image_at.to(device)
        inputs = [flat.index_select(0, at)]
        if unconditional is not None:  # the second half of the batch, token for token below the first
            inputs.append(flat.index_select(0, at + flat.shape[0] // 2))
        return self._in_chunks(self._image_score, *inputs, wanted.image_ids.to(device))

    def _image_score(self, conditional: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        *unconditional, ids = rest
        logits = self.janus.image_logits(conditional).float()
        if unconditional:
            logits = guided(logits, self.janus.image_logits(unconditional[0]).float(), self.settings.guidance)
            if self.name == "tempered":
                logits = logits / self.settings.guidance
        return _chosen(logits / self.settings.temperature, ids, self.settings.top_k)

    def _text(self, rows: Rows) -> torch.Tensor:
        wanted = targets(rows.seeing)
        hidden = self._hidden(rows.seeing).flatten(0, 1)
        device = hidden.device
        picked = hidden.index_select(0, wanted.text_at.to(device))
        return self._in_chunks(self._text_score, picked, rows.first.to(device), wanted.text_ids.to(device))

    def _text_score(self, hidden: torch.Tensor, first: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """A verdict's word is scored over {Yes, No}, what it was allowed to be."""
        logits = self.janus.text_logits(hidden).float() / self.settings.text_temperature
        rest = _chosen(logits, ids, self.settings.text_top_k)
        special = self.janus.layout.special
        yes_no = torch.tensor([special.yes, special.no], device=ids.device)
        words = (self.janus.word_logits(hidden, yes_no) / self.settings.text_temperature).log_softmax(-1)
        word = torch.where(ids == special.yes, words[:, 0], words[:, 1])
        return torch.where(first, word, rest)

    def _hidden(self, rows: list[Row]) -> torch.Tensor:
        return self.janus.hidden(self.janus.embed_rows(rows))

    def _in_chunks(self, score: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        chunks = zip(*(tensor.split(self.chunk) for tensor in inputs), strict=True)
        score = partial(checkpoint, score, use_reentrant=False, preserve_rng_state=False)  # nothing in it is random
        return torch.cat([score(*chunk) for chunk in chunks])


@torch.no_grad()
def rescored(policy: Policy, chains: Sequence[Chain], at_once: int = 32) -> list[Chain]:
    """``chains`` with the policy's own log-probs of their drafts, where it is not the sampler's distribution."""
    result = []
    for start in range(0, len(chains), at_once):
        part = chains[start : start + at_once]
        logprobs = iter(policy(rows_of(policy.janus.layout, part))[0].tolist())
        for chain in part:
            rounds = [replace(r, logprobs=tuple(next(logprobs) for _ in r.ids)) for r in chain.rounds]
            result.append(replace(chain, rounds=tuple(rounds)))
    return result


def _chosen(logits: torch.Tensor, ids: torch.Tensor, top_k: int) -> torch.Tensor:
    """Log-probs [N] of ``ids`` [N] under ``logits`` [N, V], filtered as the sampler filters.

    A sampled token stays in: rounding may have moved it across the filter's edge since.
    """
    if 0 < top_k < logits.shape[-1]:
        weakest = logits.topk(top_k, dim=-1).values[:, -1:]
        sampled = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, ids.unsqueeze(1), True)
        logits = logits.masked_fill((logits < weakest) & ~sampled, -torch.inf)
    return logits.log_softmax(-1).gather(1, ids.unsqueeze(1)).squeeze(1)
