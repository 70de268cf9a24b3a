"""The exact verifier: pixels -> objects -> which facts of a description hold, and why not.

It is plain on purpose: the background is the commonest border colour, objects are connected
components that differ from it, a colour is the nearest palette entry, a shape is the best
overlapping template. It reads pixels only and knows nothing of any model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np

from janus_r1.world.render import shape_mask
from janus_r1.world.scene import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    SIZES,
    Description,
    Scene,
    Slot,
    holds,
    in_reading_order,
    with_article,
)

FOREGROUND_DISTANCE = 48.0  # RGB distance from the background at which a pixel belongs to an object
MIN_AREA = 24  # smaller specks are noise: the smallest drawn object covers about 70 pixels
MIN_OVERLAP = 0.62  # a blob that overlaps every template less than this has no known shape
SIZE_BOUNDARY = 20.0  # larger bounding side, pixels: below is small, above is large
FAIL_CEILING = 0.49

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


@dataclass(frozen=True)
class Verification:
    """``score`` is 1.0 when every fact holds, else 0.49 x the share of facts that hold."""

    score: float
    reason: str
    facts: int
    failed: tuple[str, ...]

    @property
    def correct(self) -> bool:
        return not self.failed

    @property
    def verdict(self) -> str:
        """As a model is to say it: "Yes, ..." or "No, ..."."""
        return f"{'Yes' if self.correct else 'No'}, {self.reason}."


def verify(pixels: np.ndarray, description: Description) -> Verification:
    """Judge uint8 [64, 64, 3] pixels against a description."""
    return check(find_objects(pixels), description)


def verify_scene(scene: Scene, description: Description) -> Verification:
    """Judge what a scene holds without rendering it: what :func:`verify` says of its picture, for nothing."""
    seen = [Seen(item.shape, item.colour, item.size, item.centre) for item in scene.objects]
    return check(in_reading_order(seen), description)


# ---------------------------------------------------------------------------------------- seeing


def find_objects(pixels: np.ndarray) -> list[Seen]:
    """Objects in reading order (top to bottom, then left to right)."""
    image = pixels.astype(np.float32)
    background = find_background(image)
    distance = np.linalg.norm(image - background, axis=-1)
    labels, count = _components(distance > FOREGROUND_DISTANCE)
    seen = []
    for label in range(1, count + 1):
        ys, xs = np.nonzero(labels == label)
        if len(ys) >= MIN_AREA:
            seen.append(_describe_blob(image, background, distance, ys, xs))
    return in_reading_order(seen)


def find_background(image: np.ndarray) -> np.ndarray:
    """The palette background nearest to the median of the border pixels."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    options = np.array(list(BACKGROUNDS.values()), dtype=np.float32)
    votes = np.linalg.norm(border[:, None] - options, axis=-1).argmin(1)
    return np.median(border[votes == np.bincount(votes).argmax()], axis=0)


def _components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """4-connected components by flood fill; labels start at 1."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    height, width = mask.shape
    flat_mask, flat_labels = mask.ravel().tolist(), labels.ravel().tolist()
    count = 0
    for start in np.flatnonzero(mask.ravel()).tolist():
        if flat_labels[start]:
            continue
        count += 1
        flat_labels[start] = count
        stack = [start]
        while stack:
            here = stack.pop()
            y, x = divmod(here, width)
            for near, inside in (
                (here - 1, x > 0),
                (here + 1, x < width - 1),
                (here - width, y > 0),
                (here + width, y < height - 1),
            ):
                if inside and flat_mask[near] and not flat_labels[near]:
                    flat_labels[near] = count
                    stack.append(near)
    return np.array(flat_labels, dtype=np.int32).reshape(mask.shape), count


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
        shape=_match_shape(blob),
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
    return _crop(np.where(belongs | (coverage < 0.5), coverage, 0.0))


def _crop(coverage: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(coverage >= 0.4)
    if len(ys) == 0:
        return coverage
    return coverage[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]


@cache
def _templates(side: int) -> tuple[tuple[str, np.ndarray], ...]:
    """Coverage of every shape, cropped as blobs are."""
    return tuple((shape, _crop(shape_mask(shape, side))) for shape in SHAPES)


def _match_shape(blob: np.ndarray) -> str | None:
    """The template with the largest overlap, over nearby sizes and shifts."""
    side = min(max(max(blob.shape), min(SIZES.values()) - 4), max(SIZES.values()) + 4)
    best, best_overlap = None, MIN_OVERLAP
    for scale in (side - 1, side, side + 1):
        for shape, template in _templates(int(scale)):
            overlap = _best_overlap(blob, template)
            if overlap > best_overlap:
                best, best_overlap = shape, overlap
    return best


def _best_overlap(blob: np.ndarray, template: np.ndarray) -> float:
    """Soft intersection over union with the two centred, or one pixel off centre."""
    height = max(blob.shape[0], template.shape[0]) + 2
    width = max(blob.shape[1], template.shape[1]) + 2
    fixed = np.zeros((height, width), dtype=np.float32)
    y, x = (height - blob.shape[0]) // 2, (width - blob.shape[1]) // 2
    fixed[y : y + blob.shape[0], x : x + blob.shape[1]] = blob
    area = float(blob.sum() + template.sum())
    y, x = (height - template.shape[0]) // 2, (width - template.shape[1]) // 2
    best = 0.0
    for dy in (0, -1, 1):
        for dx in (0, -1, 1):
            top, left = y + dy, x + dx
            if top < 0 or left < 0 or top + template.shape[0] > height or left + template.shape[1] > width:
                continue
            window = fixed[top : top + template.shape[0], left : left + template.shape[1]]
            shared = float(np.minimum(window, template).sum())
            best = max(best, shared / (area - shared))
    return best


# --------------------------------------------------------------------------------------- judging


def check(seen: list[Seen], description: Description) -> Verification:
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
    failed = [*_count_failure(seen, description), *best]
    share = max(0, facts - len(failed)) / facts
    if not failed:
        return Verification(1.0, "the image matches the prompt", facts, ())
    return Verification(FAIL_CEILING * share, failed[0], facts, tuple(failed))


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


def name(slot: Slot) -> str:
    """How a slot is spoken of: "small red circle", "object"."""
    return " ".join(word for word in (slot.size, slot.colour, slot.shape or "object") if word)
