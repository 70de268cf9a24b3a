"""A sampled chain as training recomputes it: rows of segments, and flat arrays over their tokens.

Nothing but ids and pixels is kept of a rollout, never embeddings: those follow from the current
weights. Flat arrays run chain by chain, round by round, token by token, as ``objective.targets``
collects them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from janus_r1.chain import Chain
from janus_r1.layout import Layout, Lead, Row
from janus_r1.train.rl.credit import Credit, Scored, token_weights


@dataclass(frozen=True)
class Trajectory:
    """A chain, its rewards, and the credit of its rounds."""

    chain: Chain
    scored: Scored
    credit: Credit


@dataclass(frozen=True)
class Rows:
    """What the policy reads: the streams of some chains, in the order of their tokens."""

    drawing: list[Row]
    unconditional: list[Row] | None
    seeing: list[Row]
    first: torch.Tensor
    """bool [text tokens]: the words of the verdicts, which were sampled from {Yes, No}."""


@dataclass(frozen=True)
class Flat:
    """Of image tokens or of text tokens: old log-probs, advantages and weights, each [N]."""

    old: torch.Tensor
    advantages: torch.Tensor
    weights: torch.Tensor

    def to(self, device: torch.device) -> Flat:
        return Flat(self.old.to(device), self.advantages.to(device), self.weights.to(device))


def rows(layout: Layout, chains: Sequence[Chain]) -> Rows:
    """The rows of ``chains``; unconditional ones where they were drawn under guidance."""
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


# ------------------------------------------------------------------------------------ flat arrays


def image_tokens(trajectories: Sequence[Trajectory], credit: str) -> Flat:
    """Of all drafts' ids; the tokens of a draft share its weight alike."""
    columns = _Columns()
    for t in trajectories:
        for round_, advantage in zip(t.chain.rounds, t.credit.draft, strict=True):
            weight, _, _ = token_weights(credit, len(round_.ids), len(round_.verdict.ids), t.chain.tokens)
            columns.add(round_.logprobs, advantage, weight)
    return columns.flat()


def text_tokens(trajectories: Sequence[Trajectory], credit: str) -> Flat:
    """Of all verdicts: the word, then the tokens of its reason, which share their weight alike."""
    columns = _Columns()
    for t in trajectories:
        for round_, word, reason in zip(t.chain.rounds, t.credit.word, t.credit.reason, strict=True):
            said = round_.verdict.logprobs
            _, of_word, of_reason = token_weights(credit, len(round_.ids), len(said), t.chain.tokens)
            columns.add(said[:1], word, of_word)
            columns.add(said[1:], reason, of_reason)
    return columns.flat()


class _Columns:
    def __init__(self) -> None:
        self.old: list[float] = []
        self.advantages: list[float] = []
        self.weights: list[float] = []

    def add(self, old: Sequence[float], advantage: float, weight: float) -> None:
        self.old += old
        self.advantages += [advantage] * len(old)
        self.weights += [weight / max(1, len(old))] * len(old)

    def flat(self) -> Flat:
        return Flat(torch.tensor(self.old), torch.tensor(self.advantages), torch.tensor(self.weights))
