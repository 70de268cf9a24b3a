"""From the rewards of a chain's rounds to the advantages and weights of its tokens: pure functions.

Notation of the paper (section 3.2): r_i reward of draft i in [0, 1], v_i its verdict (1 Yes, 0 No),
K rounds drawn, T round limit. Chains of one prompt form a group; a group's mean is the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch

from janus_r1.chain import Chain

EPSILON = 1e-4  # added to a group's standard deviation, as in the official code
NO_SPREAD = 1e-6
RIGHT = 0.5  # a right draft's least reward, unless the run says otherwise; of verdicts, what counts as Yes
SUREST = 0.02  # a word's probability is taken for at least this, or one wrong verdict could outweigh all others


@dataclass(frozen=True)
class Scored:
    """What credit knows of a chain; one number a round."""

    rewards: tuple[float, ...]
    verdicts: tuple[float, ...]
    """1 for Yes, 0 for No."""
    p_yes: tuple[float, ...]
    truth: tuple[float, ...]
    """What verdicts are held to: the rewards themselves (paper), or 1 and 0 on either side of a threshold."""
    counts: tuple[float, float] = (1.0, 1.0)
    """What judging a wrong draft counts, and a right one (:func:`balanced`)."""
    reasons: tuple[float | None, ...] = ()
    """1 for the true reason of a No, 0 for another, None for a Yes; empty where nobody asked."""

    @property
    def agreement(self) -> list[float]:
        """c_i = 1 - |r_i - v_i| of every verdict."""
        return [1 - abs(r - v) for r, v in zip(self.truth, self.verdicts, strict=True)]

    @property
    def importance(self) -> list[float]:
        """What each verdict counts; a draft that is half right counts half as each."""
        wrong, right = self.counts
        return [(1 - r) * wrong + r * right for r in self.truth]

    @property
    def earned(self) -> list[float]:
        """c_i by what the verdict counts: the reward for judging."""
        return [w * c for w, c in zip(self.importance, self.agreement, strict=True)]


@dataclass(frozen=True)
class Credit:
    """Advantages of a chain, one a round: of the draft's ids, of the verdict's word, of its reason."""

    draft: tuple[float, ...]
    word: tuple[float, ...]
    reason: tuple[float, ...]
    lists: tuple[tuple[float, ...], ...] = ()
    """Format repair: of every token of each list."""

    @property
    def idle(self) -> bool:
        """Whether the chain teaches nothing."""
        of_lists = (a for one in self.lists for a in one)
        return all(abs(a) < NO_SPREAD for a in (*self.draft, *self.word, *self.reason, *of_lists))


def drawing_return(rewards: Sequence[float], limit: int) -> float:
    """R_gen = sum_{i<K} r_i + (T - K + 1) r_K: rounds that were not needed count as the last."""
    return sum(rewards[:-1]) + (limit - len(rewards) + 1) * rewards[-1]


def judging_return(agreement: Sequence[float], limit: int) -> float:
    """R_comp = T/K sum_i c_i, c_i = 1 - |r_i - v_i|: on one scale however many rounds there were."""
    return limit / len(agreement) * sum(agreement)


def balanced(group: Sequence[Scored]) -> list[Scored]:
    """``group`` with its right and its wrong drafts counting alike for the judge, 1 on average.

    As they come (the paper), a judge is paid for knowing which prompts are mostly drawn well. Drafts of a prompt that
    are all alike could teach nothing else, and count 0.
    """
    truth = [r for chain in group for r in chain.truth]
    right = sum(truth)
    wrong = len(truth) - right
    counts = (0.0, 0.0) if min(wrong, right) == 0 else (len(truth) / (2 * wrong), len(truth) / (2 * right))
    return [replace(chain, counts=counts) for chain in group]


def reasoned(credits: Sequence[Credit], group: Sequence[Scored], weight: float) -> list[Credit]:
    """``credits`` whose reasons are also paid ``weight`` for being true, normalised over those of the group.

    Beyond the paper, by which a reason is paid for the draft it leads to, and need not be true.
    """
    truths = [truth for chain in group for truth in chain.reasons if truth is not None]
    if not truths:
        return list(credits)
    advantage = iter(normalised(truths))

    def paid(credit: Credit, chain: Scored) -> tuple[float, ...]:
        pairs = zip(credit.reason, chain.reasons, strict=True)
        return tuple(a if truth is None else a + weight * next(advantage) for a, truth in pairs)

    return [replace(credit, reason=paid(credit, chain)) for credit, chain in zip(credits, group, strict=True)]


def normalised(values: Sequence[float]) -> list[float]:
    """(x - mean) / (std + epsilon), with the population's standard deviation; zeros without spread."""
    x = np.asarray(values, dtype=np.float64)
    return ((x - x.mean()) / (x.std() + EPSILON)).tolist()


def has_spread(group: Sequence[Scored]) -> bool:
    """Whether the drafts of a group earned different rewards."""
    rewards = [r for chain in group for r in chain.rewards]
    return max(rewards) - min(rewards) > NO_SPREAD


def token_weights(name: str, drawn: int, said: int, chain_tokens: int) -> tuple[float, float, float]:
    """What a draft of ``drawn`` ids, the word and the reason of a verdict of ``said`` ids count in the loss.

    ``chain``: every token 1/|o_i|, o_i being the whole chain. ``segment``: a draft 1, a verdict 1.
    ``direct``, ``calibrated``: a draft, a word and a reason 1 each, so that the word is not drowned by its reason.
    """
    if name == "chain":
        return drawn / chain_tokens, 1 / chain_tokens, (said - 1) / chain_tokens
    if name == "segment":
        return 1.0, 1 / said, (said - 1) / said
    return 1.0, 1.0, 1.0


# ----------------------------------------------------------------------------------- ways to credit

Marks = Sequence[Sequence[tuple[bool, float] | None]]  # of a chain: for every round, for every token of its list
Word = Callable[[float, float, float], float]  # of truth, verdict and p_yes: the advantage of a verdict's word


def chain_credit(group: Sequence[Scored], limit: int, draw: float, judge: float) -> list[Credit]:
    """The paper: one advantage, of ``draw`` R_gen + ``judge`` R_comp, for every token of a chain."""
    returns = [draw * drawing_return(c.rewards, limit) + judge * judging_return(c.earned, limit) for c in group]
    credits = []
    for chain, advantage in zip(group, normalised(returns), strict=True):
        alike = (advantage,) * len(chain.rewards)
        credits.append(Credit(alike, alike, alike))
    return credits


def segment_credit(group: Sequence[Scored], limit: int, draw: float, judge: float) -> list[Credit]:
    """The official code: every draft by its own reward, every verdict by 1 - |r - v|.

    Each is normalised over the chains of the group that reached its round.
    """
    drafts = _by_round(group, lambda chain: chain.rewards)
    verdicts = _by_round(group, lambda chain: chain.earned)
    credits = []
    for draft, verdict in zip(drafts, verdicts, strict=True):
        judged = _scaled(verdict, judge)
        credits.append(Credit(_scaled(draft, draw), judged, judged))
    return credits


def direct_credit(group: Sequence[Scored], limit: int, draw: float, judge: float) -> list[Credit]:
    """Ours: every decision by what follows from it alone.

    A draft by its reward, normalised over all drafts of the group, whatever their round: redrafts are
    compared with first drafts, and a lone one still has a baseline. The verdict's word by its
    agreement with the reward, minus its mean over both words: c(v) - [p c(Yes) + (1 - p) c(No)], an
    exact baseline that needs no group. A reason by the draft it leads to.
    """
    return _direct(group, draw, judge, _by_agreement)


def calibrated_credit(group: Sequence[Scored], limit: int, draw: float, judge: float) -> list[Credit]:
    """As ``direct``, but the word by its log score r log p + (1 - r) log(1 - p), of which p = r is the best.

    Agreement pays a judge for being sure, and hardly moves one that is surely wrong: its gradient carries
    p (1 - p). That of the log score is r - p, whichever word was said.
    """
    return _direct(group, draw, judge, _by_log_score)


def _direct(group: Sequence[Scored], draw: float, judge: float, word: Word) -> list[Credit]:
    advantage = iter(normalised([r for chain in group for r in chain.rewards]))
    credits = []
    for chain in group:
        drafts = tuple(draw * next(advantage) for _ in chain.rewards)
        said = zip(chain.importance, chain.truth, chain.verdicts, chain.p_yes, strict=True)
        words = tuple(judge * w * word(r, v, p) for w, r, v, p in said)
        credits.append(Credit(drafts, words, (*drafts[1:], 0.0)))
    return credits


def decisions_credit(group: Sequence[Scored], limit: int, draw: float, judge: float) -> list[Credit]:
    """Format repair: every decision where it is made.

    First drafts by their reward within the group. Later ones by what they improve, r_k - r_{k-1}, normalised over the
    group: where all its chains go on from one draft, these are the repairs of that draft, and the baseline is right.
    An instruction by what the draft that follows it improves. The word by its log score.
    """
    first = [draw * a for a in normalised([chain.rewards[0] for chain in group])]
    gains = [after - before for chain in group for before, after in pairwise(chain.rewards)]
    gained = iter(normalised(gains) if gains else [])
    credits = []
    for chain, advantage in zip(group, first, strict=True):
        later = tuple(draw * next(gained) for _ in chain.rewards[1:])
        said = zip(chain.truth, chain.verdicts, chain.p_yes, strict=True)
        words = tuple(judge * _by_log_score(r, v, p) for r, v, p in said)
        credits.append(Credit((advantage, *later), words, (*later, 0.0)))
    return credits


def listed(credits: Sequence[Credit], chains: Sequence[Chain], truths: Sequence[Marks], weight: float) -> list[Credit]:
    """``credits`` whose lists are paid as well: each mark by the log score of its truth, the other words not at all.

    ``truths`` are of every round of every chain, one for each token of its list; None where nobody knows.
    """
    paid = []
    for credit, chain, known in zip(credits, chains, truths, strict=True):
        lists = [
            tuple(weight * _of_mark(truth, p) for truth, p in zip(marks, r.verdict.list_logprobs, strict=True))
            for r, marks in zip(chain.rounds, known, strict=True)
        ]
        paid.append(replace(credit, lists=tuple(lists)))
    return paid


def _of_mark(truth: tuple[bool, float] | None, logprob: float) -> float:
    """``truth``: whether Yes was said, and how far it should have been, in [0, 1]."""
    if truth is None:
        return 0.0
    said, wanted = truth
    p = math.exp(logprob)
    return _by_log_score(wanted, float(said), p if said else 1 - p)


def _by_agreement(r: float, v: float, p: float) -> float:
    return (1 - abs(r - v)) - (p * r + (1 - p) * (1 - r))


def _by_log_score(r: float, v: float, p: float) -> float:
    """What makes the said word's score function, 1 - p of Yes and -p of No, the log score's gradient r - p."""
    p = min(max(p, SUREST), 1 - SUREST)
    return (r - p) / (1 - p) if v else (p - r) / p


CREDITS: dict[str, Callable[[Sequence[Scored], int, float, float], list[Credit]]] = {
    "chain": chain_credit,
    "segment": segment_credit,
    "direct": direct_credit,
    "calibrated": calibrated_credit,
    "decisions": decisions_credit,
}


def _by_round(group: Sequence[Scored], values: Callable[[Scored], Sequence[float]]) -> list[list[float]]:
    """``values`` of every chain, normalised over the chains that have the round."""
    own = [list(values(chain)) for chain in group]
    result: list[list[float]] = [[] for _ in own]
    for index in range(max(len(row) for row in own)):
        reached = [i for i, row in enumerate(own) if index < len(row)]
        for i, value in zip(reached, normalised([own[i][index] for i in reached]), strict=True):
            result[i].append(value)
    return result


def _scaled(values: Iterable[float], by: float) -> tuple[float, ...]:
    return tuple(by * value for value in values)


# ------------------------------------------------------------------------------------- over tokens


@dataclass(frozen=True)
class Trajectory:
    """A chain, its rewards, and the credit of its rounds."""

    chain: Chain
    scored: Scored
    credit: Credit


@dataclass(frozen=True)
class Flat:
    """Old log-probs, advantages and weights of image or of text tokens, each [N]: chain by chain, round by round."""

    old: torch.Tensor
    advantages: torch.Tensor
    weights: torch.Tensor

    def to(self, device: torch.device) -> Flat:
        return Flat(self.old.to(device), self.advantages.to(device), self.weights.to(device))


def image_tokens(trajectories: Sequence[Trajectory], credit: str) -> Flat:
    """Of all drafts' ids; the tokens of a draft share its weight alike."""
    columns = _Columns()
    for t in trajectories:
        for round_, advantage in zip(t.chain.rounds, t.credit.draft, strict=True):
            if not round_.logprobs:  # it was given, not drawn
                continue
            weight, _, _ = token_weights(credit, len(round_.ids), len(round_.verdict.ids), t.chain.tokens)
            columns.add(round_.logprobs, advantage, weight)
    return columns.flat()


def text_tokens(trajectories: Sequence[Trajectory], credit: str) -> Flat:
    """Of all verdicts: the word, then the tokens of its reason, which share their weight alike."""
    columns = _Columns()
    for t in trajectories:
        lists = t.credit.lists or [()] * len(t.chain.rounds)
        for round_, word, reason, marks in zip(t.chain.rounds, t.credit.word, t.credit.reason, lists, strict=True):
            said = round_.verdict.logprobs
            columns.each(round_.verdict.list_logprobs, marks)
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

    def each(self, old: Sequence[float], advantages: Sequence[float]) -> None:
        """Tokens of a list, of which those without credit weigh nothing; the others together as much as a word."""
        own = list(advantages) or [0.0] * len(old)
        paid = max(1, sum(a != 0.0 for a in own))
        self.old += old
        self.advantages += own
        self.weights += [float(a != 0.0) / paid for a in own]

    def flat(self) -> Flat:
        return Flat(torch.tensor(self.old), torch.tensor(self.advantages), torch.tensor(self.weights))
