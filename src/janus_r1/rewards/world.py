"""The exact verifier of the world ``shapes`` as a reward: free, never wrong about what it can read."""

from __future__ import annotations

from collections.abc import Sequence

from janus_r1.rewards.score import EDIT_WEIGHTS, Abstained, EditWeights, Scorable, Score
from janus_r1.worlds.base import FAIL_CEILING, Check
from janus_r1.worlds.shapes.edits import CannotEdit
from janus_r1.worlds.shapes.language import parse, parse_instruction
from janus_r1.worlds.shapes.scene import IMAGE_SIZE
from janus_r1.worlds.shapes.verifier import verify
from janus_r1.worlds.shapes.verify_edit import verify_edit


class WorldReward:
    """1 when every fact of the prompt holds, else 0.49 x the share of facts that hold; ``binary``: else 0.

    Edits have two such scores, for following the instruction and for preserving the rest; theirs is the mean
    weighted by ``edit_weights`` (paper: 0.5 and 1; official code: 1 and 0.25). It is 1 only when both hold, but by the
    paper's weights a result that merely copies its source earns 0.67 to 0.79. With ``joint`` such a mean is worth
    0.49 of itself unless both hold, as for pictures.

    Abstains on text outside the world's language, on images of another size, and on edits that do not fit
    their source.
    """

    def __init__(
        self,
        binary: bool = False,
        name: str = "world",
        edit_weights: EditWeights = EDIT_WEIGHTS,
        joint: bool = False,
    ) -> None:
        self.binary, self.name, self.edit_weights, self.joint = binary, name, edit_weights, joint

    def score(self, items: Sequence[Scorable]) -> list[Score]:
        return [self._score(item) for item in items]

    def _score(self, item: Scorable) -> Score:
        found = examine(item)
        if isinstance(found, Abstained):
            return found
        if found.preserving is None:
            return self._of(found)
        follow, preserve = self.edit_weights
        mean = (follow * self._of(found.following) + preserve * self._of(found.preserving)) / (follow + preserve)
        return mean if found.correct or not self.joint else FAIL_CEILING * mean

    def _of(self, found: Check) -> float:
        return float(found.correct) if self.binary else found.score


def examine(item: Scorable) -> Check | Abstained:
    """What the verifier finds in a picture or an edit, or why it cannot say."""
    for pixels in item.images:
        if pixels.shape[:2] != (IMAGE_SIZE, IMAGE_SIZE):
            return Abstained(f"the world's images are {IMAGE_SIZE}x{IMAGE_SIZE}: not {pixels.shape[:2]}")
    if item.source is None:
        description = parse(item.prompt)
        return _foreign(item) if description is None else verify(item.image, description)
    edits = parse_instruction(item.prompt)
    try:
        return _foreign(item) if edits is None else verify_edit(item.source, item.image, edits)
    except CannotEdit as error:
        return Abstained(f"the edit does not fit its source: {error}")


def _foreign(item: Scorable) -> Abstained:
    return Abstained(f"not in the world's language: {item.prompt[:80]!r}")
