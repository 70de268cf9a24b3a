"""Scenes of the world ``shapes``, their pictures, and the descriptions they may satisfy.

A :class:`Scene` is a fully determined picture: objects with a shape, a colour, a size and a place.
A :class:`Description` is what a prompt says: some attributes are stated, others are left open.
:func:`sample_scene` draws a scene that fulfils a description, varying everything left open;
:func:`render` makes pixels of it. Masks are drawn once, large, and scaled down, so that edges are smooth.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image, ImageDraw

IMAGE_SIZE = 64
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "heart", "ring")
COLOURS = {
    "red": (225, 30, 40),
    "orange": (255, 140, 0),
    "yellow": (250, 235, 50),
    "green": (30, 170, 50),
    "cyan": (60, 220, 235),
    "blue": (40, 80, 245),
    "purple": (140, 40, 180),
    "pink": (255, 140, 195),
    "brown": (140, 80, 30),
    "white": (250, 250, 250),
}
BACKGROUNDS = {"black": (10, 10, 12), "grey": (100, 104, 108), "navy": (16, 20, 72)}
SIZES = {"small": 16, "large": 24}  # side of the bounding square, pixels
RELATIONS = ("left of", "right of", "above", "below")

STEP = 4  # objects are placed on a lattice of 4 pixels: jitter that a small codebook can still carry
GAP = 4  # smallest empty distance between two bounding squares
MAX_TRIES = 20_000  # three objects in a row need some hundred; a contradiction costs a second
SUPERSAMPLE = 16
RENDER_MARGIN = 8  # related objects are drawn at least this much clearer than the verifier demands

# One colour a shape that never meets it in training: the "counterfactual" split is made of these.
HELD_OUT = frozenset(zip(SHAPES, ("purple", "orange", "cyan", "brown", "blue", "pink", "green", "yellow"), strict=True))


@dataclass(frozen=True)
class SceneObject:
    """One object. ``x`` and ``y`` are the upper left corner of its bounding square, in pixels."""

    shape: str
    colour: str
    size: str
    x: int
    y: int

    @property
    def side(self) -> int:
        return SIZES[self.size]

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.side / 2, self.y + self.side / 2


@dataclass(frozen=True)
class Scene:
    background: str
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True)
class Slot:
    """One described object; ``None`` means that the prompt leaves the attribute open."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None


@dataclass(frozen=True)
class Description:
    """What a prompt states: its objects, and relations ``(subject, relation, other)`` between them.

    ``alike`` marks counted groups ("three circles"), which are drawn in one colour and size.
    """

    slots: tuple[Slot, ...]
    relations: tuple[tuple[int, str, int], ...] = field(default=())
    alike: bool = False


def with_article(words: str) -> str:
    """ "a red circle", "an orange ring"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def name(slot: Slot) -> str:
    """How a slot is spoken of: "small red circle", "object"."""
    return " ".join(word for word in (slot.size, slot.colour, slot.shape or "object") if word)


class Placed(Protocol):
    @property
    def centre(self) -> tuple[float, float]: ...


Thing = TypeVar("Thing", bound=Placed)


def in_reading_order(things: Iterable[Thing]) -> list[Thing]:
    """Top to bottom in lines of eight pixels, then left to right."""
    return sorted(things, key=lambda thing: (round(thing.centre[1] / 8), thing.centre[0]))


def holds(relation: str, a: tuple[float, float], b: tuple[float, float], margin: float = 4.0) -> bool:
    """Whether centre ``a`` stands in ``relation`` to centre ``b``; y grows downwards.

    The four relations exclude each other: the named direction must dominate the other axis.
    """
    dx, dy = b[0] - a[0], b[1] - a[1]
    along, across = {
        "left of": (dx, dy),
        "right of": (-dx, dy),
        "above": (dy, dx),
        "below": (-dy, dx),
    }[relation]
    return along >= margin and along > abs(across)


def clear(a: SceneObject, b: SceneObject) -> bool:
    """Whether two objects keep the distance ``GAP`` along at least one axis."""
    return (
        a.x + a.side + GAP <= b.x or b.x + b.side + GAP <= a.x or a.y + a.side + GAP <= b.y or b.y + b.side + GAP <= a.y
    )


def _related(relation: str, a: SceneObject, b: SceneObject) -> bool:
    """As :func:`holds`, with the margin the renderer keeps so that no picture is a borderline case."""
    (ax, ay), (bx, by) = a.centre, b.centre
    across = abs(by - ay) if relation in ("left of", "right of") else abs(bx - ax)
    along = abs(bx - ax) if relation in ("left of", "right of") else abs(by - ay)
    return holds(relation, a.centre, b.centre) and along >= across + RENDER_MARGIN


Look = tuple[str, str, str]  # shape, colour, size


def _fill(slot: Slot, rng: random.Random, size_weights: tuple[float, float], allow_held_out: bool) -> Look:
    """Choose every attribute that the slot leaves open."""
    while True:
        shape = slot.shape or rng.choice(SHAPES)
        colour = slot.colour or rng.choice(tuple(COLOURS))
        stated = slot.shape is not None and slot.colour is not None
        if stated or allow_held_out or (shape, colour) not in HELD_OUT:
            size = slot.size or rng.choices(tuple(SIZES), size_weights)[0]
            return shape, colour, size


def _place(looks: list[Look], relations, rng: random.Random) -> list[SceneObject] | None:
    """Put the objects down one by one; ``None`` when a placement runs into a corner."""
    placed: list[SceneObject] = []
    for index, (shape, colour, size) in enumerate(looks):
        for _ in range(40):
            last = IMAGE_SIZE - SIZES[size]
            x, y = (rng.randrange(0, last + 1, STEP) for _ in range(2))
            candidate = SceneObject(shape, colour, size, x, y)
            everyone = [*placed, candidate]
            if all(clear(candidate, other) for other in placed) and all(
                _related(name, everyone[a], everyone[b])
                for a, name, b in relations
                if index in (a, b) and max(a, b) == index
            ):
                placed.append(candidate)
                break
        else:
            return None
    return placed


def sample_scene(description: Description, rng: random.Random, allow_held_out: bool = False) -> Scene:
    """A random scene that fulfils ``description``.

    Raises:
        ValueError: when no placement exists, which means that the description contradicts itself.
    """
    large_share = 0.5 if len(description.slots) <= 2 else 0.25
    for _ in range(MAX_TRIES):
        if description.alike:
            first = _fill(description.slots[0], rng, (1 - large_share, large_share), allow_held_out)
            filled = [first] * len(description.slots)
        else:
            weights = (1 - large_share, large_share)
            filled = [_fill(slot, rng, weights, allow_held_out) for slot in description.slots]
        placed = _place(filled, description.relations, rng)
        if placed is not None:
            return Scene(rng.choice(tuple(BACKGROUNDS)), tuple(placed))
        large_share /= 2
    raise ValueError(f"no scene satisfies {description}: are its relations contradictory?")


def random_description(rng: random.Random) -> Description:
    """Nothing but a number of objects: used where any scene will do (the image tokenizer)."""
    return Description(tuple(Slot() for _ in range(rng.choice((1, 2, 2, 3, 4)))))


# ---------------------------------------------------------------------------------------------------------- pixels


def _polygon(shape: str) -> list[tuple[float, float]]:
    """Corner points in the unit square, y downwards."""
    if shape == "square":
        return [(0.06, 0.06), (0.94, 0.06), (0.94, 0.94), (0.06, 0.94)]
    if shape == "triangle":
        return [(0.5, 0.02), (1.0, 0.96), (0.0, 0.96)]
    if shape == "diamond":
        return [(0.5, 0.0), (0.92, 0.5), (0.5, 1.0), (0.08, 0.5)]
    if shape == "cross":
        a, b = 0.33, 0.67
        return [(a, 0), (b, 0), (b, a), (1, a), (1, b), (b, b), (b, 1), (a, 1), (a, b), (0, b), (0, a), (a, a)]
    if shape == "star":
        points = []
        for k in range(10):
            radius = 0.53 if k % 2 == 0 else 0.22
            angle = math.pi * k / 5 - math.pi / 2
            points.append((0.5 + radius * math.cos(angle), 0.53 + radius * math.sin(angle)))
        return points
    if shape == "heart":
        points = []
        for k in range(120):
            t = 2 * math.pi * k / 120
            x = 16 * math.sin(t) ** 3
            y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
            points.append((0.5 + x / 33, 0.46 - y / 31))
        return points
    raise ValueError(f"unknown shape {shape!r}")


@cache
def shape_mask(shape: str, side: int) -> np.ndarray:
    """Coverage of ``shape`` in a square of ``side`` pixels: float32 [side, side] in [0, 1]."""
    large = side * SUPERSAMPLE
    canvas = Image.new("L", (large, large), 0)
    draw = ImageDraw.Draw(canvas)
    if shape in ("circle", "ring"):
        draw.ellipse((0.02 * large, 0.02 * large, 0.98 * large, 0.98 * large), fill=255)
        if shape == "ring":
            draw.ellipse((0.24 * large, 0.24 * large, 0.76 * large, 0.76 * large), fill=0)
    else:
        draw.polygon([(x * large, y * large) for x, y in _polygon(shape)], fill=255)
    small = canvas.resize((side, side), Image.Resampling.BOX)
    mask = np.asarray(small, dtype=np.float32) / 255
    mask.setflags(write=False)
    return mask


def render(scene: Scene) -> np.ndarray:
    """Pixels of a scene: uint8 [64, 64, 3]."""
    pixels = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.float32)
    pixels[:] = BACKGROUNDS[scene.background]
    for item in scene.objects:
        alpha = shape_mask(item.shape, SIZES[item.size])[..., None]
        region = pixels[item.y : item.y + item.side, item.x : item.x + item.side]
        region += alpha * (np.asarray(COLOURS[item.colour], dtype=np.float32) - region)
    return np.round(pixels).astype(np.uint8)
