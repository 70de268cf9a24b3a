"""The exact verifier: pixels -> objects -> which facts of a description hold, and why not.

It is plain on purpose: the background is the commonest border colour, objects are connected
components that differ from it, a colour is the nearest palette entry, a shape is the best
overlapping template. It reads pixels only and knows nothing of any model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np
from scipy import ndimage

from janus_r1.worlds.base import Check, claims
from janus_r1.worlds.shapes.scene import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    SIZES,
    Description,
    Scene,
    Slot,
    holds,
    in_reading_order,
    name,
    shape_mask,
    with_article,
)

FOREGROUND_DISTANCE = 48.0  # RGB distance from the background at which a pixel belongs to an object
MIN_AREA = 24  # smaller specks are noise: the smallest drawn object covers about 70 pixels
SIZE_BOUNDARY = 20.0  # larger bounding side, pixels: below is small, above is large
MIN_OVERLAP = 0.62  # a blob that overlaps every template less than this has no known shape
SHIFTS = (0, -1, 1)

_PALETTE = np.array(list(COLOURS.values()), dtype=np.float32)
_NAMES = tuple(COLOURS)


@dataclass(frozen=True)
class Seen:
    """An object found in pixels. ``shape`` is ``None`` when nothing fits."""

    shape: str | None
    colour: str
    size: str
    centre: tuple[float, float]

    def __str__(self) -> str:
        return f"{self.colour} {self.shape or 'blob'}"


@dataclass(frozen=True, eq=False)
class View:
    """What is found in a picture: objects in reading order, and the background's colour."""

    objects: tuple[Seen, ...]
    background: np.ndarray


def verify(pixels: np.ndarray, description: Description) -> Check:
    """Judge uint8 [64, 64, 3] pixels against a description."""
    return check(find_objects(pixels), description)


def verify_scene(scene: Scene, description: Description) -> Check:
    """Judge what a scene holds without rendering it: what :func:`verify` says of its picture, for nothing."""
    seen = [Seen(item.shape, item.colour, item.size, item.centre) for item in scene.objects]
    return check(in_reading_order(seen), description)


# ---------------------------------------------------------------------------------------- seeing


def find_objects(pixels: np.ndarray) -> list[Seen]:
    """Objects in reading order (top to bottom, then left to right)."""
    return list(look(pixels).objects)


def look(pixels: np.ndarray) -> View:
    """All that is found in a picture. Looking takes far longer than judging, and the same pictures come again: the
    source with every draft of an edit, a draft for its score and for its reason.
    """
    return _look(pixels.tobytes(), pixels.shape, pixels.dtype.str)


@lru_cache(maxsize=1024)
def _look(picture: bytes, shape: tuple[int, ...], dtype: str) -> View:
    image = np.frombuffer(picture, dtype).reshape(shape).astype(np.float32)
    background = find_background(image)
    background.setflags(write=False)
    return View(tuple(_objects_before(background, image)), background)


def _objects_before(background: np.ndarray, image: np.ndarray) -> list[Seen]:
    distance = np.linalg.norm(image - background, axis=-1)
    blobs = _blobs(distance)
    return in_reading_order([_describe_blob(image, background, distance, *np.nonzero(blob)) for blob in blobs])


def _blobs(distance: np.ndarray) -> Iterator[np.ndarray]:
    """What stands out by its ``distance`` [H, W] from the background, as masks, without specks."""
    labels, count = ndimage.label(distance > FOREGROUND_DISTANCE)  # 4-connected, in reading order
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    return (labels == label for label in range(1, count + 1) if areas[label] >= MIN_AREA)


def purity(pixels: np.ndarray) -> float:
    """Of the object that is least of one colour, the share of its inner pixels that are; 1 without objects.

    :func:`verify` asks for the median colour alone, so that a cross half pink and half purple passes for pink.
    """
    image = pixels.astype(np.float32)
    distance = np.linalg.norm(image - find_background(image), axis=-1)
    shares = [1.0]
    for inside in _blobs(distance):
        inner = ndimage.binary_erosion(inside)  # without soft edges, which mix with the background
        core = image[inner if inner.sum() >= MIN_AREA // 4 else inside]
        nearest = np.linalg.norm(core[:, None] - _PALETTE, axis=-1).argmin(1)
        shares.append(float(np.bincount(nearest).max() / len(nearest)))
    return min(shares)


def find_background(image: np.ndarray) -> np.ndarray:
    """The palette background nearest to the median of the border pixels."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    options = np.array(list(BACKGROUNDS.values()), dtype=np.float32)
    votes = np.linalg.norm(border[:, None] - options, axis=-1).argmin(1)
    return np.median(border[votes == np.bincount(votes).argmax()], axis=0)


def _describe_blob(
    image: np.ndarray, background: np.ndarray, distance: np.ndarray, ys: np.ndarray, xs: np.ndarray
) -> Seen:
    # Colour from the half of the blob that differs most from the background: away from soft edges.
    depth = distance[ys, xs]
    core = depth >= np.median(depth)
    colour = np.median(image[ys[core], xs[core]], axis=0)
    blob = _coverage(image, background, colour, ys, xs)
    height, width = blob.shape
    side = max(height, width)
    return Seen(
        shape=match_shape(blob),
        colour=_NAMES[int(np.linalg.norm(_PALETTE - colour, axis=1).argmin())],
        size="small" if side < SIZE_BOUNDARY else "large",
        centre=(float(xs.min() + xs.max() + 1) / 2, float(ys.min() + ys.max() + 1) / 2),
    )


def _coverage(
    image: np.ndarray, background: np.ndarray, colour: np.ndarray, ys: np.ndarray, xs: np.ndarray
) -> np.ndarray:
    """How much of each pixel the object covers, in [0, 1], cropped to where it covers half.

    Soft coverage keeps what blur would hide from a hard mask: the hole of a small ring.
    """
    top, bottom, left, right = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
    window = image[top:bottom, left:right] - background
    direction = colour - background
    coverage = np.clip(window @ direction / max(float(direction @ direction), 1.0), 0.0, 1.0)
    belongs = np.zeros(coverage.shape, dtype=bool)
    belongs[ys - top, xs - left] = True
    return crop(np.where(belongs | (coverage < 0.5), coverage, 0.0))


# ---------------------------------------------------------------------------------------------------------- shapes


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


# --------------------------------------------------------------------------------------- judging


def check(seen: list[Seen], description: Description) -> Check:
    """Assign objects to slots so that most facts hold, then report the facts that do not."""
    wanted = len(description.slots)
    facts = 1 + sum(_slot_facts(slot) for slot in description.slots) + len(description.relations)
    pool: list[Seen | None] = [*seen[:6], *[None] * max(0, wanted - len(seen))]
    best: list[str] | None = None
    for chosen in set(permutations(range(len(pool)), wanted)):
        failed = _failed_facts([pool[i] for i in chosen], description)
        if best is None or len(failed) < len(best):
            best = failed
            if not failed:
                break
    assert best is not None
    return Check(claims(facts, [*_count_failure(seen, description), *best]))


def _slot_facts(slot: Slot) -> int:
    return sum(value is not None for value in (slot.shape, slot.colour, slot.size))


def _count_failure(seen: list[Seen], description: Description) -> list[str]:
    wanted, found = len(description.slots), len(seen)
    if wanted == found:
        return []
    return [f"there {_are(found)} instead of {wanted}"]


def _are(count: int) -> str:
    return "is 1 object" if count == 1 else f"are {count} objects"


def _failed_facts(chosen: list[Seen | None], description: Description) -> list[str]:
    failed = []
    for slot, item in zip(description.slots, chosen, strict=True):
        failed += _slot_failures(slot, item)
    for a, relation, b in description.relations:
        first, second = chosen[a], chosen[b]
        if first is None or second is None or not holds(relation, first.centre, second.centre):
            one, other = name(description.slots[a]), name(description.slots[b])
            failed.append(f"the {one} is not {relation} the {other}")
    return failed


def _slot_failures(slot: Slot, item: Seen | None) -> list[str]:
    if item is None:
        return [f"there is no {name(slot)}"] * _slot_facts(slot)
    failures = []
    if slot.shape is not None and item.shape != slot.shape:
        failures.append(f"there is {with_article(str(item))} instead of {with_article(name(slot))}")
    if slot.colour is not None and item.colour != slot.colour:
        failures.append(f"the {item.shape or slot.shape or 'object'} is {item.colour}, not {slot.colour}")
    if slot.size is not None and item.size != slot.size:
        failures.append(f"the {item.shape or slot.shape or 'object'} is {item.size}, not {slot.size}")
    return failures
