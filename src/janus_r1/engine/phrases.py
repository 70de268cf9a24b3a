"""Saying several tokens a forward, and getting the text that one by one would give.

As with images (:mod:`janus_r1.engine.window`) a token is a function of its logits and of the one random number of its
place, so one that follows from a right guess is right. What a guess is differs: a model that lists what it sees says
again what it said of the draft before, with a word changed here and there, and what stands behind that word moves. So
a guess is how the last few tokens went on when they were said before, whoever said them (:class:`Phrases`); behind
what nobody has said, what the last forward sampled for the place.

Shapes: B rows of an unguided stream, W width, D hidden width, V words.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from janus_r1.engine import sampling
from janus_r1.engine.cache import FEWEST, Placement, Stream
from janus_r1.engine.network import Network

ORDERS = (4, 3, 2)  # tokens that a guess follows from: as many of them as have been said in this order
MOST = 2**18  # beginnings that are remembered, before all are forgotten
BEFORE = -1  # no token: stands before a text's first


@dataclass
class Phrases:
    """How texts went on that were said so far."""

    known: dict[tuple[int, ...], int] = field(default_factory=dict)

    def hear(self, text: tuple[int, ...]) -> None:
        if len(self.known) > MOST:
            self.known.clear()
        ids = (BEFORE,) * max(ORDERS) + text
        for order in ORDERS:
            for end in range(max(ORDERS), len(ids)):
                self.known[ids[end - order : end]] = ids[end]

    def follow(self, ids: list[int], orders: tuple[int, ...]) -> int | None:
        """What came behind the last of ``ids`` when they were said last: behind the last 4, or 3, as ``orders`` say."""
        ids = [BEFORE] * (max(ORDERS) - len(ids)) + ids[-max(ORDERS) :]
        return next((self.known[key] for order in orders if (key := tuple(ids[-order:])) in self.known), None)


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
        """At most so many, of the places behind ``ids``.

        How as many tokens as can be went on before comes first. What the last forward sampled follows from a wrong
        guess, which shows most in the place right behind it.
        """
        ids = list(self.ids)
        while self.speaking and len(ids) < min(len(self.ids) + count, self.limit - 1) and ids[-1] != self.stop:
            sampled = self.sampled.get(len(ids))
            token = phrases.follow(ids, ORDERS[:1])
            if token is None and len(ids) > len(self.ids):
                token = sampled
            if token is None:
                token = phrases.follow(ids, ORDERS[1:])
            token = sampled if token is None else token
            if token is None:
                break
            ids.append(token)
        return ids[len(self.ids) :]

    def take(self, guesses: list[int], tokens: list[int], logprobs: list[float]) -> None:
        """What was sampled behind the last of ``ids`` and behind each guess; what follows from right ones stands."""
        first = len(self.ids)
        self.sampled = {first + place: token for place, token in enumerate(tokens)}
        for token, logprob, guess in zip(tokens, logprobs, [*guesses, None], strict=False):
            self.ids.append(token)
            self.logprobs.append(logprob)
            if token != guess or not self.speaking:
                break


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
                row.take(guess, *found)
        forwards += 1
    cache.lengths = [start + len(row.ids) - 1 for start, row in zip(starts, rows, strict=True)]
    for row in rows:
        phrases.hear(tuple(row.ids))
    return rows, forwards
