"""What kind of fact a reason speaks of: the verifier's, or that of a model which learnt to speak like it."""

from __future__ import annotations

import re

from janus_r1.worlds.shapes.scene import COLOURS, RELATIONS, SIZES

KINDS = ("missing", "surplus", "shape", "colour", "size", "place")
OTHER = "other"

_COUNT = re.compile(r"there (?:is|are) (\d+) objects? instead of (\d+)$")
_ABSENT = re.compile(r"there is no .+$")
_SHAPE = re.compile(r"there is an? .+ instead of an? .+$")
_PLACE = re.compile(rf"the .+ is not (?:{'|'.join(RELATIONS)}) the .+$")
_COLOUR = re.compile(rf"the .+ is (?:{'|'.join(COLOURS)}), not (?:{'|'.join(COLOURS)})$")
_SIZE = re.compile(rf"the .+ is (?:{'|'.join(SIZES)}), not (?:{'|'.join(SIZES)})$")
_PATTERNS = (("missing", _ABSENT), ("shape", _SHAPE), ("place", _PLACE), ("colour", _COLOUR), ("size", _SIZE))


def failure_kind(reason: str) -> str:
    """One of :data:`KINDS`, or ``other``. ``reason`` is without its Yes or No and without the full stop."""
    if count := _COUNT.match(reason):
        return "surplus" if int(count[1]) > int(count[2]) else "missing"
    return next((kind for kind, pattern in _PATTERNS if pattern.match(reason)), OTHER)
