"""Which shape a blob has: the template with the largest overlap, all of them compared at once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from janus_r1.worlds.shapes.render import shape_mask
from janus_r1.worlds.shapes.scene import SHAPES, SIZES

MIN_OVERLAP = 0.62  # a blob that overlaps every template less than this has no known shape
SHIFTS = (0, -1, 1)


def match_shape(blob: np.ndarray) -> str | None:
    """The shape whose template fits ``blob`` [H, W] best, over nearby sizes and shifts.

    Overlap is soft intersection over union, with the two centred or one pixel off centre.
    """
    placed, areas = _placed_templates(*blob.shape)
    shared = np.minimum(placed, blob.ravel()).sum(1)
    overlap = shared / (blob.sum() + areas - shared)
    best = int(overlap.argmax())
    each = len(SHIFTS) ** 2
    return SHAPES[best // each % len(SHAPES)] if overlap[best] > MIN_OVERLAP else None


@lru_cache(maxsize=128)
def _placed_templates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """What of every template lies over a blob, [N, height * width], and the templates' whole areas [N].

    N runs over sizes, then shapes, then shifts.
    """
    side = min(max(height, width, min(SIZES.values()) - 4), max(SIZES.values()) + 4)
    templates = [crop(shape_mask(shape, scale)) for scale in (side - 1, side, side + 1) for shape in SHAPES]
    placed = [_over(height, width, t, y, x).ravel() for t in templates for y in SHIFTS for x in SHIFTS]
    return np.stack(placed), np.array([t.sum() for t in templates for _ in range(len(SHIFTS) ** 2)], dtype=np.float32)


def _over(height: int, width: int, template: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """``template``, centred on [height, width] and then shifted; what stands out is cut off."""
    room = max(template.shape) + 1
    canvas = np.zeros((height + 2 * room, width + 2 * room), dtype=np.float32)
    top, left = (
        room + int((size - own) / 2) + shift
        for size, own, shift in zip((height, width), template.shape, (dy, dx), strict=True)
    )
    canvas[top : top + template.shape[0], left : left + template.shape[1]] = template
    return canvas[room : room + height, room : room + width]


def crop(coverage: np.ndarray) -> np.ndarray:
    """``coverage`` of pixels, [H, W], as far as it reaches 0.4."""
    ys, xs = np.nonzero(coverage >= 0.4)
    if len(ys) == 0:
        return coverage
    return coverage[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
