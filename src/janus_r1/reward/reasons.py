"""Whether the reason of a No is true: one of the facts that the world's verifier finds to fail.

Not a score of an image, but of what is said about it. A reason that is paid by the draft it leads to alone (paper) need
not be true, and does not stay so.
"""

from __future__ import annotations

import numpy as np

from janus_r1.chain import Chain
from janus_r1.world.edits import CannotEdit
from janus_r1.world.instructions import parse_instruction
from janus_r1.world.parse import parse
from janus_r1.world.verify import verify
from janus_r1.world.verify_edit import verify_edit


def true_reasons(chain: Chain) -> tuple[float | None, ...]:
    """One number a round: 1 for a No whose reason holds, 0 for one whose does not; None for a Yes, which has nothing
    to explain, and where the verifier cannot read the prompt.
    """
    return tuple(None if r.verdict.accepted else _holds(chain, r.pixels, r.verdict.reason) for r in chain.rounds)


def _holds(chain: Chain, pixels: np.ndarray, reason: str) -> float | None:
    failed = _failed(chain, pixels)
    return None if failed is None else float(reason in failed)


def _failed(chain: Chain, pixels: np.ndarray) -> tuple[str, ...] | None:
    """The facts that fail, in the words that reasons are taught in."""
    if chain.source is None:
        description = parse(chain.prompt)
        return None if description is None else verify(pixels, description).failed
    edits = parse_instruction(chain.prompt)
    if edits is None:
        return None
    try:
        found = verify_edit(chain.source.pixels, pixels, edits)
    except CannotEdit:
        return None
    return (*found.following.failed, *found.preserving.failed)
