"""Log-probs of sampled chains under the current weights, with gradients, and the loss of GRPO over them.

They are what the engine reported when it sampled, recomputed. Nothing but ids and pixels is kept of a rollout, never
embeddings: those follow from the current weights. All arrays run chain by chain, round by round, token by token.

Only positions whose token was sampled reach a head, a chunk at a time and recomputed backwards, so
that [tokens, vocabulary] logits (576 x 16,384 a draft of the real models) never stand in memory at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from janus_r1.chain import Chain, Round, Settings
from janus_r1.engine.sampling import guided
from janus_r1.layout import Layout
from janus_r1.model.janus import Janus
from janus_r1.segments import Drawn, Lead, Row, Seen, Source, Text
from janus_r1.train.credit import Flat
from janus_r1.train.objective import targets

PolicyName = Literal["guided", "tempered", "conditional"]


@dataclass(frozen=True)
class Rows:
    """What the policy reads: the streams of some chains, in the order of their tokens."""

    drawing: list[Row]
    unconditional: list[Row] | None
    seeing: list[Row]
    first: torch.Tensor
    """bool [text tokens]: the words of the verdicts, which were sampled from {Yes, No}."""
    temperatures: torch.Tensor | None = None
    """float [image tokens]; None where all were sampled at the settings' temperature."""


def rows_of(layout: Layout, chains: Sequence[Chain]) -> Rows:
    """The rows of ``chains``, of one format; unconditional ones where they were drawn under guidance."""
    if chains[0].rounds[0].verdict.list_ids:
        return _rows_of_repairs(layout, chains)
    guided = chains[0].settings.guidance > 1
    leads = [(chain, *_leads(layout, chain)) for chain in chains]
    drawing = [row for chain, *both in leads for row in _drawing(layout, chain, *(lead.drawing for lead in both))]
    seeing = [row for chain, *both in leads for row in _seeing(layout, chain, *(lead.seeing for lead in both))]
    unconditional = None
    if guided:
        halves = [(chain, [lead.unconditional for lead in both]) for chain, *both in leads]
        unconditional = [row for chain, both in halves for row in _drawing(layout, chain, *both)]
    first = [index == 0 for chain in chains for r in chain.rounds for index in range(len(r.verdict.ids))]
    return Rows(drawing, unconditional, seeing, torch.tensor(first))


def _rows_of_repairs(layout: Layout, chains: Sequence[Chain]) -> Rows:
    """Format repair: a row for every draft that was drawn, and one for every look."""
    rows: list[tuple[Row, Row]] = []
    temperatures: list[float] = []
    seeing: list[Row] = []
    first: list[bool] = []
    for chain in chains:
        for item in chain.rounds:
            if item.logprobs:  # a draft that the chain began with was not drawn
                lead, drawn = _lead_of(layout, chain, item), Drawn(item.ids, learn=True)
                rows.append(((*lead.drawing, drawn), (*lead.unconditional, drawn)))
                how = chain.settings.temperature if item.repairs is None else chain.settings.repair_temperature
                temperatures += [how] * len(item.ids)
            said = item.verdict
            ended = () if said.list_ids[-1] == layout.list_end.ids[-1] else (layout.list_end,)
            shown = (*layout.opening(chain.prompt, chain.source).seeing, Seen(item.pixels, layout.image_tokens))
            listed = Text(said.list_ids, learn=True)
            seeing.append((*shown, layout.self_check, listed, *ended, Text(said.ids, learn=True)))
            first += [False] * len(said.list_ids) + [index == 0 for index in range(len(said.ids))]
    drawing, unconditional = ([pair[i] for pair in rows] for i in (0, 1))
    guided = chains[0].settings.guidance > 1
    other = unconditional if guided else None
    return Rows(drawing, other, seeing, torch.tensor(first), torch.tensor(temperatures))


def _lead_of(layout: Layout, chain: Chain, item: Round) -> Lead:
    """What stood before the draft: the task, or the draft that it mends and the instruction on it."""
    if item.repairs is None:
        return layout.opening(chain.prompt, chain.source)
    parent = chain.rounds[item.repairs]
    return layout.opening(parent.verdict.instruction, Source(parent.ids, parent.pixels))


def _leads(layout: Layout, chain: Chain) -> tuple[Lead, Lead]:
    """Before its first draft, and before a later one."""
    return layout.opening(chain.prompt, chain.source), layout.again(chain.prompt, chain.source)


def _drawing(layout: Layout, chain: Chain, opening: Row, again: Row) -> list[Row]:
    """One row for a chain; with ``history last`` one a draft, the draft before it as context."""
    last = chain.settings.history == "last"
    every = range(len(chain.rounds))
    parts = [chain.rounds[max(0, i - 1) : i + 1] for i in every] if last else [chain.rounds]
    return [
        layout.drawing(opening, again, [r.ids for r in part], [r.verdict.ids for r in part[:-1]], only_last=last)
        for part in parts
    ]


def _seeing(layout: Layout, chain: Chain, opening: Row, again: Row) -> list[Row]:
    parts = [chain.rounds] if chain.settings.history == "full" else [(r,) for r in chain.rounds]
    return [layout.seeing(opening, again, [r.pixels for r in p], [r.verdict.ids for r in p]) for p in parts]


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
        """(log-probs of image tokens, of text tokens), float32, flat over the sampled tokens."""
        return self._image(rows), self._text(rows)

    def _image(self, rows: Rows) -> torch.Tensor:
        if not rows.drawing:  # every draft was given; the heads stay in the graph, as DDP wants
            return self.janus.image_logits(self._hidden(rows.seeing[:1])[0, :1])[0, :0].float()
        wanted = targets(rows.drawing)
        unconditional = None if self.name == "conditional" else rows.unconditional
        hidden = self._hidden([*rows.drawing, *(unconditional or [])])
        flat, device = hidden.flatten(0, 1), hidden.device
        at = wanted.image_at.to(device)
        inputs = [flat.index_select(0, at)]
        if unconditional is not None:  # the second half of the batch, token for token below the first
            inputs.append(flat.index_select(0, at + flat.shape[0] // 2))
        ids = wanted.image_ids.to(device)
        temperatures = rows.temperatures
        if temperatures is None:
            temperatures = torch.full(ids.shape, self.settings.temperature)
        return self._in_chunks(self._image_score, *inputs, temperatures.to(device), ids)

    def _image_score(self, conditional: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        *unconditional, temperatures, ids = rest
        logits = self.janus.image_logits(conditional).float()
        if unconditional:
            logits = guided(logits, self.janus.image_logits(unconditional[0]).float(), self.settings.guidance)
            if self.name == "tempered":
                logits = logits / self.settings.guidance
        return _chosen(logits / temperatures.unsqueeze(1), ids, self.settings.top_k)

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


# ------------------------------------------------------------------------------------------- loss
# Shao et al., 2024 (GRPO), and the paper's appendix A. All arguments are flat over tokens [N].


def token_loss(
    now: torch.Tensor, flat: Flat, fixed: torch.Tensor | None, clip: float, kl: float
) -> tuple[torch.Tensor, dict[str, float]]:
    """Weighted sum over tokens of -objective + kl k3, and what to watch (means over tokens; 0 where there are none)."""
    if not len(now):
        return now.sum(), dict.fromkeys(("clipped", "gap", *(["kl"] if fixed is not None else [])), 0.0)
    objective, acted = clipped_objective(now, flat.old, flat.advantages, clip)
    loss = -(flat.weights * objective).sum()
    gap = (now.detach() - flat.old).abs()
    watched = {"clipped": float(acted.float().mean()), "gap": float(gap.mean())}
    if fixed is not None:
        divergence = k3(now, fixed)
        loss = loss + kl * (flat.weights * divergence).sum()
        watched["kl"] = float(divergence.detach().mean())
    return loss, watched


def clipped_objective(
    logprobs: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, clip: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """min(rho A, clip(rho, 1 - eps, 1 + eps) A) with rho = exp(logprobs - old), and where the clip acts.

    ``old`` are the sampler's own log-probs: of the rollout's weights, not of the current ones.
    """
    ratio = (logprobs - old).exp()
    free = ratio * advantages
    bound = ratio.clamp(1 - clip, 1 + clip) * advantages
    return torch.minimum(free, bound), bound < free


def k3(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """pi_ref/pi - log(pi_ref/pi) - 1: an estimate of KL(pi || pi_ref) that is never negative."""
    difference = reference - logprobs
    return difference.exp() - difference - 1
