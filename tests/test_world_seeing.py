"""The fast ways in which the verifier and the edits look at a picture, against slow and obviously right ones."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy import ndimage

from janus_r1.worlds.shapes.edits import places
from janus_r1.worlds.shapes.scene import (
    IMAGE_SIZE,
    SHAPES,
    STEP,
    SceneObject,
    clear,
    random_description,
    sample_scene,
    shape_mask,
)
from janus_r1.worlds.shapes.verifier import MIN_OVERLAP, crop, match_shape


def flooded(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Components by flood fill, one pixel after another."""
    labels, count = np.zeros(mask.shape, dtype=np.int32), 0
    for start in zip(*np.nonzero(mask), strict=True):
        if labels[start]:
            continue
        count += 1
        stack = [start]
        while stack:
            y, x = stack.pop()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x] and not labels[y, x]:
                labels[y, x] = count
                stack += [(y, x - 1), (y, x + 1), (y - 1, x), (y + 1, x)]
    return labels, count


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.5, 0.6, 0.8, 1.0])
def test_components_come_in_reading_order_as_a_flood_fill_finds_them(share):
    for seed in range(6):
        mask = np.random.default_rng(seed).random((24, 31)) < share
        labels, count = ndimage.label(mask)
        expected, number = flooded(mask)
        assert count == number and (labels == expected).all()


def best_by_hand(blob: np.ndarray) -> str | None:
    """One template, one shift after another, on a canvas of its own."""
    best, best_overlap, side = None, MIN_OVERLAP, min(max(*blob.shape, 12), 28)
    for scale in (side - 1, side, side + 1):
        for shape in SHAPES:
            template = crop(shape_mask(shape, scale))
            size = [max(a, b) + 2 for a, b in zip(blob.shape, template.shape, strict=True)]
            canvases = []
            for part in (blob, template):
                canvas = np.zeros(size, dtype=np.float64)
                y, x = ((whole - own) // 2 for whole, own in zip(size, part.shape, strict=True))
                canvas[y : y + part.shape[0], x : x + part.shape[1]] = part
                canvases.append(canvas)
            for shift in ((dy, dx) for dy in (0, -1, 1) for dx in (0, -1, 1)):
                shared = np.minimum(canvases[0], np.roll(canvases[1], shift, (0, 1))).sum()
                overlap = shared / (blob.sum() + template.sum() - shared)
                if overlap > best_overlap:
                    best, best_overlap = shape, overlap
    return best


def test_shapes_are_matched_as_by_hand():
    rng, found = np.random.default_rng(0), []
    for index in range(120):
        blob = shape_mask(SHAPES[index % 8], int(rng.integers(11, 30)))
        blob = blob[int(rng.integers(0, 4)) :, : blob.shape[1] - int(rng.integers(0, 4))]
        blob = crop(np.clip(blob + rng.normal(0, 0.2, blob.shape), 0, 1).astype(np.float32))
        found.append(match_shape(blob))
        assert found[-1] == best_by_hand(blob)
    assert set(found) == {*SHAPES, None}


def test_places_are_all_of_the_lattice_that_are_clear():
    for seed in range(20):
        others = sample_scene(random_description(random.Random(seed)), random.Random(seed)).objects
        for size in ("small", "large"):
            item = SceneObject("ring", "red", size, 0, 0)
            lattice = range(0, IMAGE_SIZE - item.side + 1, STEP)
            every = [SceneObject("ring", "red", size, x, y) for y in lattice for x in lattice]
            assert places(item, others) == [place for place in every if all(clear(place, o) for o in others)]
