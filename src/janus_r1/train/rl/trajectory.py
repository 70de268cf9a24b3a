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
from janus_r1.layout import Layout, Row
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
    opened = [(chain, layout.opening(chain.prompt, chain.source)) for chain in chains]
    drawing = [row for chain, opening in opened for row in _drawing(layout, chain, opening.drawing)]
    seeing = [row for chain, opening in opened for row in _seeing(layout, chain, opening.seeing)]
    unconditional = None
    if guided:
        unconditional = [row for chain, opening in opened for row in _drawing(layout, chain, opening.unconditional)]
    first = [index == 0 for chain in chains for r in chain.rounds for index in range(len(r.verdict.ids))]
    return Rows(drawing, unconditional, seeing, torch.tensor(first))


def _drawing(layout: Layout, chain: Chain, prompt: Row) -> list[Row]:
    """One row for a chain; with ``history last`` one a draft, the draft before it as context."""
    last = chain.settings.history == "last"
    every = range(len(chain.rounds))
    parts = [chain.rounds[max(0, i - 1) : i + 1] for i in every] if last else [chain.rounds]
    return [layout.drawing(prompt, [r.ids for r in p], [r.verdict.ids for r in p[:-1]], only_last=last) for p in parts]


def _seeing(layout: Layout, chain: Chain, prompt: Row) -> list[Row]:
    if chain.settings.history == "full":
        return [layout.seeing(prompt, [r.pixels for r in chain.rounds], [r.verdict.ids for r in chain.rounds])]
    return [layout.seeing(prompt, [r.pixels], [r.verdict.ids]) for r in chain.rounds]


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
