"""From candidates to the rows of the three SFT tasks (paper section 3.1, design section 6)."""

from __future__ import annotations

import random
from collections.abc import Callable

from janus_r1.data.candidates import Candidate, CandidateSet
from janus_r1.errors import UserError
from janus_r1.layout import Drawn, Layout, Row, Seen

DRAW_THRESHOLD = 0.8  # Tasks I and III: images worth drawing
YES_THRESHOLD = 0.7  # Task II: images to say Yes to
NO_THRESHOLD = 0.5  # Tasks II and III: below, images that are wrong


class Pools:
    """Where the images of a set lie, by prompt: ``good`` to draw, ``yes`` to accept, ``no`` to reject."""

    def __init__(self, candidates: CandidateSet) -> None:
        self.candidates = candidates
        self.good = self._by_prompt(lambda c: c.p_yes >= DRAW_THRESHOLD)
        self.yes = self._by_prompt(lambda c: c.p_yes >= YES_THRESHOLD and bool(c.reason))
        self.no = self._by_prompt(lambda c: c.p_yes < NO_THRESHOLD and bool(c.reason))

    def _by_prompt(self, wanted: Callable[[Candidate], bool]) -> dict[int, list[int]]:
        chosen: dict[int, list[int]] = {}
        for index, candidate in enumerate(self.candidates):
            if wanted(candidate):
                chosen.setdefault(candidate.prompt_id, []).append(index)
        return chosen

    def drafts(self, pool: dict[int, list[int]]) -> list[int]:
        """Those of a pool that the model drew."""
        return [index for own in pool.values() for index in own if self.candidates[index].is_draft]

    def wrong(self, prompt_id: int, count: int, rng: random.Random, but: int | None = None) -> list[int]:
        """Up to ``count`` different wrong images of a prompt."""
        pool = [index for index in self.no.get(prompt_id, []) if index != but]
        return rng.sample(pool, min(count, len(pool)))


class Examples:
    """Random rows of each task; everything random comes from the generator passed in.

    A task picks a prompt, then an image of it. With ``own_drafts`` the judge sees that set's drafts alone, and
    any of them as likely as another: what is hard to draw is then as often wrong as when the model judges itself.
    """

    def __init__(
        self,
        candidates: CandidateSet,
        layout: Layout,
        word_weight: float | None,
        own_drafts: CandidateSet | None = None,
    ) -> None:
        self.layout, self.word_weight = layout, word_weight
        self.drawn = Pools(candidates)
        self.judged, self.drafts = self.drawn, None
        if own_drafts is not None:
            own = Pools(own_drafts)
            self.judged, self.drafts = own, {True: own.drafts(own.yes), False: own.drafts(own.no)}
        self.redrawable = sorted(set(self.drawn.good) & set(self.drawn.no))
        if not self.redrawable:
            raise UserError("the candidates hold no prompt with both a right and a wrong image: nothing to redraw")
        if self.drafts and not all(self.drafts.values()):
            raise UserError("own_drafts holds no right or no wrong draft: build more, or leave own_drafts empty")
        if not self.judged.yes:
            raise UserError("no right image of the candidates has a reason why it is right: nothing to say Yes to")

    # ------------------------------------------------------------------------------------- tasks

    def draw(self, rng: random.Random, dropout: float) -> Row:
        """Task I: a caption and an image of it."""
        candidate = self.drawn.candidates[_pick(self.drawn.good, rng)]
        return self.layout.draw(candidate.prompt, candidate.ids, rng.random() < dropout)

    def judge(self, rng: random.Random, wrong_rounds: int, positive: bool) -> Row:
        """Task II: after ``wrong_rounds`` rejected drafts, the verdict on one more."""
        pools = self.judged
        pool = pools.yes if positive else pools.no
        target = rng.choice(self.drafts[positive]) if self.drafts else _pick(pool, rng)
        judged = pools.candidates[target]
        earlier = [self._seen(i) for i in pools.wrong(judged.prompt_id, wrong_rounds, rng, but=target)]
        seen, reason = self._seen(target)
        return self.layout.judge(judged.prompt, earlier, seen, reason, self.word_weight)

    def redraw(self, rng: random.Random, wrong_rounds: int, dropout: float) -> Row:
        """Task III: from rejected drafts and their reasons to an image that is right."""
        pools = self.drawn
        prompt_id = rng.choice(self.redrawable)
        target = pools.candidates[rng.choice(pools.good[prompt_id])]
        rejected = [pools.candidates[i] for i in pools.wrong(prompt_id, wrong_rounds, rng)]
        earlier = [(Drawn(candidate.ids), candidate.reason) for candidate in rejected]
        return self.layout.redraw(target.prompt, earlier, target.ids, rng.random() < dropout)

    def _seen(self, index: int) -> tuple[Seen, str]:
        candidates = self.judged.candidates
        return Seen(candidates.image(index), self.layout.image_tokens), candidates[index].reason


def _pick(pool: dict[int, list[int]], rng: random.Random) -> int:
    return rng.choice(pool[rng.choice(list(pool))])
