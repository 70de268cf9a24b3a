"""Chains as arrays of judged drafts: what the benchmark on the world computes with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from janus_r1.chain import Chain, Round, Settings
from janus_r1.eval.checks import check_chains
from janus_r1.worlds.base import Check
from janus_r1.worlds.shapes.prompts import Prompt
from janus_r1.worlds.shapes.scene import Description

CONTROL_SEED = 1_000_003  # added to the seed: far from the seeds that people try one after another

Sampler = Callable[[list[str], Settings], list[Chain]]
Verifier = Callable[[np.ndarray, Description], Check]


class Drafts(NamedTuple):
    """Judged drafts in the order drawn: float64 arrays [R, T], one row a chain.

    After a chain's end its last draft is repeated with ``drawn`` and tokens 0. A failed draft has
    ``correct``, ``score`` and ``p_yes`` NaN, which no statistic accepts.
    """

    correct: np.ndarray
    score: np.ndarray
    p_yes: np.ndarray
    accepted: np.ndarray
    image_tokens: np.ndarray
    text_tokens: np.ndarray
    drawn: np.ndarray

    def rows(self, keep: np.ndarray) -> Drafts:
        return Drafts(*(array[keep] for array in self))

    def final(self, limit: int, settings: Settings) -> np.ndarray:
        """Column of the final draft [R] under a round limit."""
        if settings.final == "best":
            return self.p_yes[:, :limit].argmax(1)
        return np.minimum(limit, self.drawn.sum(1).astype(int)) - 1

    def spent(self, reasons: bool) -> np.ndarray:
        """Tokens up to and including each draft [R, T]; without reasons a verdict is its one word."""
        text = self.text_tokens if reasons else np.minimum(self.text_tokens, 1)
        return np.cumsum(self.image_tokens + text, axis=1)


def at(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """values[r, columns[r]] for every row r."""
    return values[np.arange(len(values)), columns]


@dataclass
class Bench:
    """The sampler and the verifier, with a clock, a counter and a record of failures."""

    sample: Sampler
    verifier: Verifier
    seconds: float = 0.0
    images: int = 0
    failures: list[str] = field(default_factory=list)

    def chains(self, prompts: list[Prompt], settings: Settings) -> Drafts:
        """Sample and score one chain a prompt."""
        texts = [p.text for p in prompts]
        start = time.perf_counter()
        chains = self.sample(texts, settings)
        self.seconds += time.perf_counter() - start
        check_chains(chains, texts, settings.rounds, "sampler", "prompt")
        self.images += sum(len(c.rounds) for c in chains)
        cells = np.zeros((len(chains), settings.rounds, len(Drafts._fields)))
        for row, chain, prompt in zip(cells, chains, prompts, strict=True):
            row[: len(chain.rounds)] = [self._score(draft, prompt.description) for draft in chain.rounds]
            row[len(chain.rounds) :, :4] = row[len(chain.rounds) - 1, :4]  # correct to accepted; no tokens
        return Drafts(*np.moveaxis(cells, -1, 0))

    def independent(self, drafts: Drafts, prompts: list[Prompt], settings: Settings) -> Drafts:
        """T judged drafts a row that know nothing of each other; the first is the chain's own."""
        extra = settings.rounds - 1
        if not extra:
            return drafts
        alone = replace(settings, rounds=1, seed=settings.seed + CONTROL_SEED)
        singles = self.chains([p for p in prompts for _ in range(extra)], alone)
        others = [array.reshape(len(prompts), extra) for array in singles]
        return Drafts(*(np.hstack([own[:, :1], new]) for own, new in zip(drafts, others, strict=True)))

    def _score(self, draft: Round, description: Description) -> tuple[float, ...]:
        """The fields of Drafts for one draft."""
        verdict = draft.verdict
        rest = (float(verdict.accepted), len(draft.ids), len(verdict.ids), 1.0)
        try:
            found = self.verifier(draft.pixels, description)
            if not np.isfinite(found.score) or not np.isfinite(verdict.p_yes):
                raise ValueError(f"score {found.score}, p_yes {verdict.p_yes}")
        except Exception as error:  # whatever went wrong, this image has no score, and a 0 would be a lie
            self.failures.append(f"{type(error).__name__}: {error}")
            return (np.nan, np.nan, np.nan, *rest)
        return (float(found.correct), found.score, verdict.p_yes, *rest)

    def cost(self) -> dict[str, float | None]:
        """Of sampling alone, controls included; verification is not counted."""
        rate = self.images / self.seconds if self.seconds else None
        return {"seconds": self.seconds, "images": self.images, "images_per_second": rate}
