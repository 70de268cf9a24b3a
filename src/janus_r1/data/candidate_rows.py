"""Rows of candidates: draw, judge and redraw (paper section 3.1)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from janus_r1.data.candidates import Candidate, CandidateSet
from janus_r1.data.rows import Begun, RowMaker, Rows, Wanted
from janus_r1.errors import UserError
from janus_r1.layout import Layout
from janus_r1.segments import Drawn, Row, Seen

DRAW_THRESHOLD = 0.8  # Tasks I and III: images worth drawing
YES_THRESHOLD = 0.7  # Task II: images to say Yes to
NO_THRESHOLD = 0.5  # Tasks II and III: below, images that are wrong


class Pools:
    """Where the images of a set lie, by the prompt's text: ``good`` to draw, ``yes`` to accept, ``no`` to reject."""

    def __init__(self, candidates: CandidateSet) -> None:
        self.candidates = candidates
        self.good = self._by_prompt(lambda c: c.p_yes >= DRAW_THRESHOLD)
        self.yes = self._by_prompt(lambda c: c.p_yes >= YES_THRESHOLD and bool(c.reason))
        self.no = self._by_prompt(lambda c: c.p_yes < NO_THRESHOLD and bool(c.reason))

    def _by_prompt(self, wanted: Callable[[Candidate], bool]) -> dict[str, list[int]]:
        chosen: dict[str, list[int]] = {}
        for index, candidate in enumerate(self.candidates):
            if wanted(candidate):
                chosen.setdefault(candidate.prompt, []).append(index)
        return chosen

    def drafts(self, positive: bool) -> list[int]:
        """What a model drew of the images to accept, or to reject."""
        pool = self.yes if positive else self.no
        return [index for own in pool.values() for index in own if self.candidates[index].is_draft]

    def wrong(self, prompt: str, count: int, rng: random.Random, but: int | None = None) -> list[int]:
        """Up to ``count`` different wrong images of a prompt."""
        pool = [index for index in self.no.get(prompt, []) if index != but]
        return rng.sample(pool, min(count, len(pool)))


class CandidateRows(RowMaker):
    """Makes the shares ``draw``, ``judge`` and ``redraw``; everything random comes from the generator passed in.

    A task picks a prompt, then an image of it. With ``own_drafts`` the judge sees those sets' drafts alone, every set
    as often, and of a set any draft as likely as another: what is hard to draw is then as often wrong as when the model
    judges itself. ``wanted`` are the shares that must be possible.

    Raises:
        UserError: for candidates of which a wanted share cannot be made.
    """

    def __init__(
        self,
        candidates: CandidateSet,
        layout: Layout,
        word_weight: float | None,
        own_drafts: Sequence[CandidateSet] = (),
        wanted: Sequence[str] = ("draw", "judge", "redraw"),
    ) -> None:
        self.layout, self.word_weight = layout, word_weight
        self.drawn = Pools(candidates)
        self.judged = [Pools(own) for own in own_drafts]
        self.drafts = [{True: pools.drafts(True), False: pools.drafts(False)} for pools in self.judged]
        self.redrawable = sorted(set(self.drawn.good) & set(self.drawn.no))
        if "draw" in wanted and not self.drawn.good:
            raise UserError("the candidates hold no right image: nothing to draw")
        if "redraw" in wanted and not self.redrawable:
            raise UserError("the candidates hold no prompt with both a right and a wrong image: nothing to redraw")
        if "judge" not in wanted:
            return
        if not all(all(drafts.values()) for drafts in self.drafts):
            raise UserError("own_drafts holds no right or no wrong draft: build more, or leave own_drafts empty")
        if not all(pools.yes for pools in self.judged or [self.drawn]):
            raise UserError("no right image of the candidates has a reason why it is right: nothing to say Yes to")
        if not all(pools.no for pools in self.judged or [self.drawn]):
            raise UserError("no wrong image of the candidates has a reason why it is wrong: nothing to say No to")

    def begin(self, wanted: Wanted) -> Begun:
        rng, dropout = wanted.rng, wanted.dropout
        images = [self.draw(rng, dropout) for _ in range(wanted.count("draw"))]
        images += [self.redraw(rng, wanted.redraw_rounds, dropout) for _ in range(wanted.count("redraw"))]
        verdicts = [self.judge(rng, wanted.judge_rounds, i % 2 == 0) for i in range(wanted.count("judge"))]
        return Begun(Rows(images, verdicts, []))

    # ------------------------------------------------------------------------------------- tasks

    def draw(self, rng: random.Random, dropout: float) -> Row:
        """Task I: a caption and an image of it."""
        candidate = self.drawn.candidates[_pick(self.drawn.good, rng)]
        return self.layout.draw(candidate.prompt, candidate.ids, rng.random() < dropout)

    def judge(self, rng: random.Random, wrong_rounds: int, positive: bool) -> Row:
        """Task II: after ``wrong_rounds`` rejected drafts, the verdict on one more."""
        if self.judged:
            chosen = rng.randrange(len(self.judged))
            pools, target = self.judged[chosen], rng.choice(self.drafts[chosen][positive])
        else:
            pools = self.drawn
            target = _pick(pools.yes if positive else pools.no, rng)
        judged = pools.candidates[target]
        wrong = pools.wrong(judged.prompt, wrong_rounds, rng, but=target)
        earlier = [self._seen(pools.candidates, index) for index in wrong]
        seen, reason = self._seen(pools.candidates, target)
        return self.layout.judge(judged.prompt, earlier, seen, reason, self.word_weight)

    def redraw(self, rng: random.Random, wrong_rounds: int, dropout: float) -> Row:
        """Task III: from rejected drafts and their reasons to an image that is right."""
        pools = self.drawn
        prompt = rng.choice(self.redrawable)
        target = pools.candidates[rng.choice(pools.good[prompt])]
        rejected = [pools.candidates[i] for i in pools.wrong(prompt, wrong_rounds, rng)]
        earlier = [(Drawn(candidate.ids), candidate.reason) for candidate in rejected]
        return self.layout.redraw(prompt, earlier, target.ids, rng.random() < dropout)

    def _seen(self, candidates: CandidateSet, index: int) -> tuple[Seen, str]:
        return Seen(candidates.image(index), self.layout.image_tokens), candidates[index].reason


def _pick(pool: dict[str, list[int]], rng: random.Random) -> int:
    return rng.choice(pool[rng.choice(list(pool))])
