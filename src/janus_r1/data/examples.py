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


class Examples:
    """Random rows of each task; everything random comes from the generator passed in.

    A task picks a prompt, then an image of it. With ``own_drafts`` the judge sees drafts alone, and any of them
    as likely as another: what is hard to draw is then as often wrong as when the model judges itself.
    """

    def __init__(
        self, candidates: CandidateSet, layout: Layout, word_weight: float | None, own_drafts: bool = False
    ) -> None:
        self.candidates, self.layout, self.word_weight = candidates, layout, word_weight
        self.good = self._by_prompt(lambda c: c.p_yes >= DRAW_THRESHOLD)
        self.yes = self._by_prompt(lambda c: c.p_yes >= YES_THRESHOLD and bool(c.reason))
        self.no = self._by_prompt(lambda c: c.p_yes < NO_THRESHOLD and bool(c.reason))
        self.drafts = {right: self._drafts(pool) for right, pool in ((True, self.yes), (False, self.no))}
        self.own_drafts = own_drafts
        self.redrawable = sorted(set(self.good) & set(self.no))
        if not self.good or not self.redrawable:
            raise UserError("the candidates hold no prompt with both a right and a wrong image: nothing to redraw")
        if not self.yes:
            raise UserError("no right image of the candidates has a reason why it is right: nothing to say Yes to")
        if own_drafts and not all(self.drafts.values()):
            raise UserError("the candidates hold no right or no wrong draft: set own_drafts to false, or build more")

    def _by_prompt(self, wanted: Callable[[Candidate], bool]) -> dict[int, list[int]]:
        chosen: dict[int, list[int]] = {}
        for index, candidate in enumerate(self.candidates):
            if wanted(candidate):
                chosen.setdefault(candidate.prompt_id, []).append(index)
        return chosen

    def _drafts(self, pool: dict[int, list[int]]) -> list[int]:
        return [index for own in pool.values() for index in own if self.candidates[index].is_draft]

    # ------------------------------------------------------------------------------------- tasks

    def draw(self, rng: random.Random, dropout: float) -> Row:
        """Task I: a caption and an image of it."""
        candidate = self.candidates[self._pick(self.good, rng)]
        return self.layout.draw(candidate.prompt, candidate.ids, rng.random() < dropout)

    def judge(self, rng: random.Random, wrong_rounds: int, positive: bool) -> Row:
        """Task II: after ``wrong_rounds`` rejected drafts, the verdict on one more."""
        pool = self.yes if positive else self.no
        target = rng.choice(self.drafts[positive]) if self.own_drafts else self._pick(pool, rng)
        prompt_id = self.candidates[target].prompt_id
        earlier = [self._seen(i) for i in self._wrong(prompt_id, wrong_rounds, rng, but=target)]
        seen, reason = self._seen(target)
        return self.layout.judge(self.candidates[target].prompt, earlier, seen, reason, self.word_weight)

    def redraw(self, rng: random.Random, wrong_rounds: int, dropout: float) -> Row:
        """Task III: from rejected drafts and their reasons to an image that is right."""
        prompt_id = rng.choice(self.redrawable)
        target = self.candidates[rng.choice(self.good[prompt_id])]
        earlier = [self._drawn(i) for i in self._wrong(prompt_id, wrong_rounds, rng)]
        return self.layout.redraw(target.prompt, earlier, target.ids, rng.random() < dropout)

    # ------------------------------------------------------------------------------------ choosing

    def _pick(self, pool: dict[int, list[int]], rng: random.Random) -> int:
        return rng.choice(pool[rng.choice(list(pool))])

    def _wrong(self, prompt_id: int, count: int, rng: random.Random, but: int | None = None) -> list[int]:
        """Up to ``count`` different wrong images of a prompt."""
        pool = [index for index in self.no.get(prompt_id, []) if index != but]
        return rng.sample(pool, min(count, len(pool)))

    def _seen(self, index: int) -> tuple[Seen, str]:
        return Seen(self.candidates.image(index), self.layout.image_tokens), self.candidates[index].reason

    def _drawn(self, index: int) -> tuple[Drawn, str]:
        return Drawn(self.candidates[index].ids), self.candidates[index].reason
