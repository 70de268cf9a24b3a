"""Saying several tokens a forward, and getting the text that one by one would give.

As with images (:mod:`janus_r1.engine.window`) a token is a function of its logits and of the one random number of its
place, so one that follows from a right guess is right. What a guess is differs: a model that lists what it sees says
again what it said of the draft before, with a word changed here and there, and all its lists are built alike.

So a guess is how the text went on when some of the tokens before it were said before, whoever said them
(:class:`Phrases`): the last five, the last one, or the third from last alone, whatever stood between. What the last
forward sampled for the place is a guess, too. They often disagree, and then the kind is taken that was right most often
so far.

Shapes: B rows of an unguided stream, W width, D hidden width, V words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from janus_r1.engine import sampling
from janus_r1.engine.cache import FEWEST, Placement, Stream
from janus_r1.engine.network import Network

FARTHEST = 5  # tokens before a place that a guess follows from
MOST = 2**19  # beginnings that are remembered, before all are forgotten
NOTHING = -1  # no token: stands before a text's first
OFTEN = 3  # how often a beginning went on alike, counted so far
SAMPLED, FAR = -1, 2  # the guess that the last forward sampled, told apart so many places behind what stands
MOVED = 0.05  # how far one guess moves the share of its kind that is right
Kind = tuple[int, int]  # which of the keys, and how often it went on so; or SAMPLED, and how far from what stands


@dataclass
class Phrases:
    """How texts went on that were said so far, and how often each kind of guess was right."""

    known: dict[tuple[int, ...], tuple[int, int]] = field(default_factory=dict)
    """What was said last behind tokens (:func:`_keys`), and how often in a row."""
    right: dict[Kind, float] = field(default_factory=dict)
    """The share of guesses that were, of late."""

    def learn(self, ids: Sequence[int], token: int) -> None:
        """``token`` was said behind ``ids``."""
        if len(self.known) > MOST:
            self.known.clear()
        for key in _keys(ids):
            said, often = self.known.get(key, (None, 0))
            if said is not None:
                self.score((key[0], often), said == token)
            self.known[key] = (token, min(often + 1, OFTEN) if said == token else 0)

    def score(self, kind: Kind, right: bool) -> None:
        share = self.share(kind)
        self.right[kind] = share + MOVED * (right - share)

    def share(self, kind: Kind) -> float:
        """Of guesses of this kind that are right; until there were any, the more tokens they follow from the more."""
        return self.right.get(kind, 0.5 if kind[0] == SAMPLED else 0.9 - 0.08 * kind[0])

    def guess(self, ids: Sequence[int], sampled: int | None = None, ahead: int = 0) -> int | None:
        """What comes behind ``ids``, the last ``ahead`` of which are guesses; ``sampled`` is the last forward's."""
        token, best = sampled, 0.0 if sampled is None else self.share((SAMPLED, min(ahead, FAR)))
        for key in _keys(ids):
            if (entry := self.known.get(key)) is not None:
                share = self.share((key[0], entry[1]))
                if share > best:
                    token, best = entry[0], share
        return token


def _keys(ids: Sequence[int]) -> list[tuple[int, ...]]:
    """What is remembered of the end of ``ids``, each behind a number of its own.

    Those with gaps see how a list is built, whatever its words.
    """
    fifth, fourth, third, second, first = (NOTHING,) * (FARTHEST - len(ids)) + tuple(ids[-FARTHEST:])
    return [
        (0, fifth, fourth, third, second, first),
        (1, fourth, third, second, first),
        (2, third, second, first),
        (3, fourth, third, first),
        (4, fifth, fourth, first),
        (5, third, first),
        (6, second, first),
        (7, fourth, third),
        (8, third),
        (9, first),
    ]


@dataclass
class Speaker:
    """A row that is being said."""

    ids: list[int]
    """That are what one by one would give."""
    logprobs: list[float]
    limit: int
    stop: int
    sampled: dict[int, int] = field(default_factory=dict)
    """Tokens of later places, as the last forward had them."""

    @property
    def speaking(self) -> bool:
        return self.ids[-1] != self.stop and len(self.ids) < self.limit

    def guesses(self, phrases: Phrases, count: int) -> list[int]:
        """At most so many, of the places behind ``ids``."""
        ids, stands = list(self.ids), len(self.ids)
        while self.speaking and len(ids) < min(stands + count, self.limit - 1) and ids[-1] != self.stop:
            token = phrases.guess(ids, self.sampled.get(len(ids)), len(ids) - stands)
            if token is None:
                break
            ids.append(token)
        return ids[stands:]

    def take(self, phrases: Phrases, guesses: list[int], tokens: list[int], logprobs: list[float]) -> None:
        """What was sampled behind the last of ``ids`` and behind each guess; what follows from right ones stands."""
        first = len(self.ids)
        for ahead, (token, logprob, guess) in enumerate(zip(tokens, logprobs, [*guesses, None], strict=False)):
            if first + ahead in self.sampled:
                phrases.score((SAMPLED, min(ahead, FAR)), self.sampled[first + ahead] == token)
            phrases.learn(self.ids, token)
            self.ids.append(token)
            self.logprobs.append(logprob)
            if token != guess or not self.speaking:
                break
        self.sampled = {first + place: token for place, token in enumerate(tokens)}


@dataclass(frozen=True)
class Words:
    """How a token is sampled, and where a text ends."""

    temperature: float
    top_k: int
    stop: int


def say(
    network: Network,
    stream: Stream,
    begun: list[tuple[int, float]],
    uniform: torch.Tensor,
    how: Words,
    width: int,
    phrases: Phrases,
) -> tuple[list[Speaker], int]:
    """Go on from each row's first token and its log-prob, ``begun``, to the end; and how many forwards it took."""
    cache, limit, forwards = stream.cache, uniform.shape[1], 0
    starts = list(cache.lengths)
    rows = [Speaker([token], [logprob], limit, how.stop) for token, logprob in begun]
    for row in rows:
        phrases.learn((), row.ids[0])
    least = -(-FEWEST // len(rows))
    while any(row.speaking for row in rows):
        guessed = [row.guesses(phrases, width - 1) for row in rows]
        count = max(least, 1 + max(map(len, guessed)))
        fed = [([row.ids[-1], *guess] + [0] * count)[:count] for row, guess in zip(rows, guessed, strict=True)]
        cache.lengths = [start + len(row.ids) - 1 for start, row in zip(starts, rows, strict=True)]
        network.make_room(cache, count)
        x_BWD = network.model.embed_text(torch.tensor(fed, device=uniform.device))
        hidden = network.forward(cache, x_BWD, Placement.steady(cache, count, x_BWD))
        logits = network.model.text_logits(hidden).flatten(0, 1)
        places = torch.tensor([len(row.ids) for row in rows], device=uniform.device).unsqueeze(1)
        places = (places + torch.arange(count, device=uniform.device)).clamp_max(limit - 1)
        drawn = sampling.sample(
            sampling.restrict(logits, how.temperature, how.top_k, 1.0), uniform.gather(1, places).flatten()
        )
        tokens, logprobs = (part.view(len(rows), count).tolist() for part in drawn)
        for row, guess, *found in zip(rows, guessed, tokens, logprobs, strict=True):
            if row.speaking:
                row.take(phrases, guess, *found)
        forwards += 1
    cache.lengths = [start + len(row.ids) - 1 for start, row in zip(starts, rows, strict=True)]
    return rows, forwards
