"""Whether the reason of a No is true: one of the claims that a world finds to fail.

Not a score of an image, but of what is said about it. A reason that is paid by the draft it leads to alone (paper) need
not be true, and does not stay so.
"""

from __future__ import annotations

from janus_r1.chain import Chain, Round
from janus_r1.rewards.score import Abstained
from janus_r1.rewards.world import examine
from janus_r1.worlds.base import DEFAULT, world


def true_reasons(chain: Chain, world_name: str = DEFAULT) -> tuple[float | None, ...]:
    """One number a round: 1 for a No whose reason holds, 0 for one whose does not; None for a Yes, which has nothing
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
