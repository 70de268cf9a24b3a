"""The exact verifier of the world ``shapes`` as a reward: free, never wrong about what it can read."""

from __future__ import annotations

from collections.abc import Sequence

from janus_r1.reward.score import Abstained, Scorable, Score
from janus_r1.world.parse import parse
from janus_r1.world.scene import IMAGE_SIZE
from janus_r1.world.verify import verify


class WorldReward:
    """1 when every fact of the prompt holds, else 0.49 x the share of facts that hold; ``binary``: else 0.

    Abstains on text outside the world's language, images of another size, and edits.
    """

    def __init__(self, binary: bool = False, name: str = "world") -> None:
        self.binary, self.name = binary, name

    def score(self, items: Sequence[Scorable]) -> list[Score]:
        return [self._score(item) for item in items]

    def _score(self, item: Scorable) -> Score:
        if item.source is not None:
            return Abstained("the world's verifier does not judge edits")
        if item.image.shape[:2] != (IMAGE_SIZE, IMAGE_SIZE):
            return Abstained(f"the world's images are {IMAGE_SIZE}x{IMAGE_SIZE}: not {item.image.shape[:2]}")
        description = parse(item.prompt)
        if description is None:
            return Abstained(f"not in the world's language: {item.prompt[:80]!r}")
        found = verify(item.image, description)
        return float(found.correct) if self.binary else found.score
