"""Several rewards as one: their weighted mean, with every abstention counted by who and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from janus_r1.errors import UserError
from janus_r1.rewards.score import Abstained, Claimed, Item, Reward, Score, checked, claims_of

OnAbstain = Literal["drop", "renormalise"]


class Ensemble:
    """``on_abstain``: ``drop`` abstains on an item when any member does, ``renormalise`` takes the
    weighted mean of the others. Renormalising mixes scales within a group: choose it knowingly.

    ``abstentions`` counts (member, cause) since the beginning.

    Raises:
        UserError: without members, for weights that are not positive, or for two members of one name.
    """

    name = "ensemble"

    def __init__(self, members: Sequence[tuple[Reward, float]], on_abstain: OnAbstain = "drop") -> None:
        self.members, self.on_abstain = list(members), on_abstain
        self.abstentions: Counter[tuple[str, str]] = Counter()
        names = [reward.name for reward, _ in members]
        if not names:
            raise UserError("there is no reward: list at least one under rewards")
        for name, (_, weight) in zip(names, members, strict=True):
            if not (math.isfinite(weight) and weight > 0):
                raise UserError(
                    f"the weight of the reward {name} is {weight}: it must be positive; leave it out instead"
                )
        if len(set(names)) < len(names):
            raise UserError(f"two rewards have one name ({', '.join(names)}): give each a name of its own")
        if on_abstain not in ("drop", "renormalise"):
            raise UserError(f"on_abstain must be drop or renormalise, not {on_abstain!r}")

    def score(self, items: Sequence[Item]) -> list[Score]:
        return self.merge(self.by_member(items))

    def by_member(self, items: Sequence[Item]) -> dict[str, list[Score]]:
        """Every member's scores, checked, with their abstentions counted; for logs, and for :meth:`merge`."""
        columns: dict[str, list[Score]] = {}
        for reward, _ in self.members:
            answers = reward.score(items)
            if len(answers) != len(items):
                raise ValueError(f"{reward.name} gave {len(answers)} scores for {len(items)} items")
            scores = [a if isinstance(a, Abstained) else checked(a) for a in answers]
            self.abstentions.update((reward.name, s.cause) for s in scores if isinstance(s, Abstained))
            columns[reward.name] = scores
        return columns

    def merge(self, columns: dict[str, list[Score]]) -> list[Score]:
        """One score an item out of the columns of :meth:`by_member`."""
        rows = zip(*(columns[reward.name] for reward, _ in self.members), strict=True)
        return [self._merge_row(row) for row in rows]

    def _merge_row(self, row: tuple[Score, ...]) -> Score:
        given = [(s, weight) for s, (_, weight) in zip(row, self.members, strict=True) if not isinstance(s, Abstained)]
        if not given or (self.on_abstain == "drop" and len(given) < len(row)):
            return self._first_abstention(row)
        if len(given) == 1:
            return checked(given[0][0])
        mean = sum(score * weight for score, weight in given) / sum(weight for _, weight in given)
        told = [claim for score, _ in given for claim in claims_of(score)]
        return checked(Claimed(mean, told) if told else mean)

    def _first_abstention(self, row: tuple[Score, ...]) -> Abstained:
        """Says which member it was, unless there is only one."""
        named = zip(row, self.members, strict=True)
        found, reward = next((s, reward) for s, (reward, _) in named if isinstance(s, Abstained))
        return found if len(row) == 1 else Abstained(f"{reward.name}, {found.why}")
