"""A world's own check as a reward, and as the truth of reasons: free, and never wrong about what it can read."""

from __future__ import annotations

from collections.abc import Sequence

from janus_r1.chain import Chain, Round
from janus_r1.rewards.score import EDIT_WEIGHTS, Abstained, Claimed, EditWeights, Item, Score, shown
from janus_r1.worlds.base import DEFAULT, FAIL_CEILING, CannotCheck, Check, world


class WorldReward:
    """1 when every claim of the task holds, else 0.49 x the share of claims that hold; ``binary``: else 0.

    Edits have two such scores, for following the instruction and for preserving the rest; theirs is the mean
    weighted by ``edit_weights`` (paper: 0.5 and 1; official code: 1 and 0.25). It is 1 only when both hold, but by the
    paper's weights a result that merely copies its source earns 0.67 to 0.79. With ``joint`` such a mean is worth
    0.49 of itself unless both hold, as for pictures.

    Abstains on what the world called ``world_name`` cannot check: texts outside its language, images of another size,
    edits that do not fit their source.
    """

    def __init__(
        self,
        binary: bool = False,
        name: str = "world",
        edit_weights: EditWeights = EDIT_WEIGHTS,
        joint: bool = False,
        world_name: str = DEFAULT,
    ) -> None:
        self.binary, self.name, self.edit_weights, self.joint = binary, name, edit_weights, joint
        self.world_name = world_name

    def score(self, items: Sequence[Item]) -> list[Score]:
        return [self._score(item) for item in items]

    def _score(self, item: Item) -> Score:
        found = examine(item, self.world_name)
        if isinstance(found, Abstained):
            return found
        every = (*found.claims, *(found.preserving.claims if found.preserving else ()))
        return Claimed(self._value(found), ((claim.reason, float(claim.holds)) for claim in every))

    def _value(self, found: Check) -> float:
        if found.preserving is None:
            return self._of(found)
        follow, preserve = self.edit_weights
        mean = (follow * self._of(found.following) + preserve * self._of(found.preserving)) / (follow + preserve)
        return mean if found.correct or not self.joint else FAIL_CEILING * mean

    def _of(self, found: Check) -> float:
        return float(found.correct) if self.binary else found.score


def examine(item: Item, world_name: str = DEFAULT) -> Check | Abstained:
    """What a world finds in an image or an edit, or why it cannot say."""
    shown(item)
    try:
        return world(world_name).check(*item)
    except CannotCheck as error:
        return Abstained(str(error))


def true_reasons(chain: Chain, world_name: str = DEFAULT) -> tuple[float | None, ...]:
    """Whether the reason of a No is true. A reason that is paid by the draft it leads to alone (paper) need not be, and
    does not stay so.

    One number a round: 1 for a No whose reason holds, 0 for one whose does not; None for a Yes, which has nothing
    to explain, and where the verifier cannot read the prompt.
    """
    return tuple(None if r.verdict.accepted else _holds(chain, r, world_name) for r in chain.rounds)


def _holds(chain: Chain, rejected: Round, world_name: str) -> float | None:
    """Whether the reason is a fact that fails, in the words that reasons are taught in, or asks for what mends."""
    found = examine((chain.task, rejected.pixels), world_name)
    if isinstance(found, Abstained):
        return None
    said = rejected.verdict
    return float(said.reason in found.failed or world(world_name).mends(chain.task, rejected.pixels, said.instruction))
