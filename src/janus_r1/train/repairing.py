"""What reinforcement learning knows of the format ``repair``: several repairs of one draft, true marks, variety.

Repairs are compared with repairs of the same draft (R3, arXiv 2602.15772): one wrong draft of every prompt is looked
at and mended several times, each time with other words, and the group's mean improvement is the baseline.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from janus_r1.chain import Chain, Round, Settings, Task
from janus_r1.layout import Layout
from janus_r1.model.janus import Janus
from janus_r1.rewards.score import Claims, Reward, claims_of
from janus_r1.train.credit import Credit, Marks, Scored
from janus_r1.train.rollout import Group, Rollout, roll_out
from janus_r1.worlds.base import World

FAR = 50.0  # mean difference a pixel, of 255, from which two pictures count as wholly different


@dataclass(frozen=True)
class Begun:
    """A draft that several repairs go on from."""

    task: Task
    draft: Round


def wrong_drafts(groups: Sequence[Group], right: float, rng: random.Random) -> list[Begun]:
    """One first draft of every group that has a wrong one. Edits have none: what failed is made again."""
    chosen = []
    for group in groups:
        wrong = [
            chain
            for chain, rewards in zip(group.chains, group.rewards, strict=True)
            if rewards[0] < right and chain.source is None
        ]
        if wrong:
            chain = rng.choice(wrong)
            chosen.append(Begun(chain.task, chain.rounds[0]))
    return chosen


def branch_out(
    model: Janus,
    begun: Sequence[Begun],
    branches: int,
    settings: Settings,
    reward: Reward,
    *,
    max_batch: int = 128,
    first_row: int = 0,
) -> Rollout:
    """``branches`` chains from each draft: a look at it and, after a No, one repair and a look at that."""
    if not begun:
        return Rollout([])
    return roll_out(
        model,
        [one.task for one in begun],
        branches,
        replace(settings, rounds=2, redraw="auto"),
        reward,
        max_batch=max_batch,
        first_row=first_row,
        begun=[one.draft for one in begun],
    )


def branch_figures(rollout: Rollout, right: float) -> dict[str, float]:
    """Of the drafts that were gone on from, all of them wrong: the share rejected, and what became of those."""
    chains = [(chain, r) for g in rollout.groups for chain, r in zip(g.chains, g.rewards, strict=True)]
    mended = [r for chain, r in chains if len(r) > 1 and chain.rounds[1].repairs is not None]
    figures = {"branch_rejected": float(np.mean([len(r) > 1 for _, r in chains]))} if chains else {}
    if mended:
        figures["repair_fixed"] = float(np.mean([r[1] >= right for r in mended]))
        figures["repair_gain"] = float(np.mean([r[1] - r[0] for r in mended]))
    return figures


def varied(scored: Sequence[Scored], chains: Sequence[Chain], weight: float) -> list[Scored]:
    """``scored`` in which a first draft earns up to ``weight`` of its reward more for looking unlike the others.

    A wrong one gains nothing by it: it is a share of what was earned.
    """
    images = np.stack([chain.rounds[0].pixels for chain in chains]).astype(np.float32)
    apart = np.stack([np.abs(images - image).mean((1, 2, 3)) for image in images])
    unlike = np.minimum(apart / FAR, 1.0).sum(1) / max(1, len(images) - 1)
    return [
        replace(one, rewards=(one.rewards[0] * (1 + weight * float(d)), *one.rewards[1:]))
        for one, d in zip(scored, unlike, strict=True)
    ]


def alike(credits: Sequence[Credit], chains: Sequence[Chain]) -> list[Credit]:
    """``credits`` whose lists are credited as the words are, token for token: for ways that know nothing of lists."""
    return [
        replace(
            credit,
            lists=tuple((word,) * len(r.verdict.list_ids) for word, r in zip(credit.word, chain.rounds, strict=True)),
        )
        for credit, chain in zip(credits, chains, strict=True)
    ]


def token_marks(layout: Layout, chain: Chain, its: World, rewards: Sequence[float] = ()) -> Marks:
    """For every round, for every token of its list: of a mark whether it says Yes, and how far it should; else None.

    A mark whose words are those of a claim that the round's reward tells is held to that claim's score, another to what
    the world knows.
    """
    told = [claims_of(reward) for reward in rewards] or [()] * len(chain.rounds)
    return [
        _of_list(layout, item, _by_claims(item, claims), its.marks(chain.task, item.pixels, item.verdict.listing))
        for item, claims in zip(chain.rounds, told, strict=True)
    ]


def _by_claims(item: Round, claims: Claims) -> list[float | None]:
    """For every mark of a list the score of the claim that it stands behind; None where no reward tells of it."""
    scores = {_words(text): score for text, score in claims}
    return [scores.get(_words(text)) for text, mark in item.verdict.marks if mark is not None]


def _words(text: str) -> str:
    return " ".join(text.casefold().strip(" ,;:.?!").split())


def _of_list(
    layout: Layout, item: Round, of_claims: Sequence[float | None], of_world: Sequence[bool | None]
) -> Sequence[tuple[bool, float] | None]:
    """A list that was read as having more or fewer marks than it has says nothing."""
    at = [i for i, token in enumerate(item.verdict.list_ids) if token in layout.marks]
    found: list[tuple[bool, float] | None] = [None] * len(item.verdict.list_ids)
    for truths in (of_world, of_claims):
        if len(at) == len(truths):
            for i, truth in zip(at, truths, strict=True):
                if truth is not None:
                    found[i] = (layout.marks[item.verdict.list_ids[i]], float(truth))
    return found
