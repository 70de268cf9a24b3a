"""Edits of a scene: what they are, which object they mean, and the scene that they make.

An :class:`Edit` names objects as an instruction does, by attributes that single them out. ``apply``
changes the object meant and nothing else: every other object keeps its look and place. Objects never
touch, and a picture keeps one to ``MAX_OBJECTS`` of them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

import numpy as np

from janus_r1.worlds.shapes.scene import (
    GAP,
    IMAGE_SIZE,
    RELATIONS,
    RENDER_MARGIN,
    SIZES,
    STEP,
    Scene,
    SceneObject,
    Slot,
    holds,
    name,
)

Kind = Literal["recolour", "replace", "remove", "add", "move"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SIDES = ("left", "right", "top", "bottom")
MAX_OBJECTS = 4
SIDE_MARGIN = 8.0  # a centre this far from the middle, in pixels, is on that side of the picture
TRIES = 50  # of several edits in a row, whose first may have taken the only place of the second

# Where each place lies, as a step (x, y) towards it; y grows downwards.
_WAYS = ((-1, 0), (1, 0), (0, -1), (0, 1))
DIRECTIONS = dict(zip((*SIDES, *RELATIONS), (*_WAYS, *_WAYS), strict=True))


class CannotEdit(ValueError):
    """The edit means no object of this picture, or more than one, or has no place in it."""


@dataclass(frozen=True)
class Edit:
    """One change.

    ``target`` is the object meant, or the one to add. ``value`` is the new colour (recolour), the new
    shape (replace), or where it goes (move; add, unless open): a side of the picture, or a relation to
    ``anchor``. An added object takes no side.
    """

    kind: str
    target: Slot
    value: str | None = None
    anchor: Slot | None = None


class Looks(Protocol):
    """What drawn objects and objects found in pixels have in common."""

    @property
    def shape(self) -> str | None: ...
    @property
    def colour(self) -> str | None: ...
    @property
    def size(self) -> str | None: ...


# ----------------------------------------------------------------------------- which object is meant


def meant(slot: Slot, item: Looks) -> bool:
    """Whether every attribute that ``slot`` states is the object's."""
    return slot.shape in (None, item.shape) and slot.colour in (None, item.colour) and slot.size in (None, item.size)


def locate(objects: Sequence[Looks], slot: Slot) -> int:
    """The index of the one object that ``slot`` means.

    Raises:
        CannotEdit: if there is none, or more than one.
    """
    found = [index for index, item in enumerate(objects) if meant(slot, item)]
    if len(found) != 1:
        raise CannotEdit(f'the picture has {len(found) or "no"} objects that "{name(slot)}" may mean; it needs one')
    return found[0]


def stands(where: str, centre: tuple[float, float], anchor: tuple[float, float] | None, slack: float = 0.0) -> bool:
    """Whether ``centre`` is on a side of the picture or, with ``anchor``, in a relation to it.

    ``slack`` pixels are forgiven; a negative one asks for more.
    """
    dx, dy = DIRECTIONS[where]
    x, y = centre[0] + slack * dx, centre[1] + slack * dy
    if anchor is not None:
        return holds(where, (x, y), anchor)
    middle = IMAGE_SIZE / 2
    return (x - middle) * dx + (y - middle) * dy >= SIDE_MARGIN


# ----------------------------------------------------------------------------------------- applying


def apply(scene: Scene, edit: Edit, rng: random.Random) -> Scene:
    """The edited scene. ``rng`` chooses what the edit leaves open: a size, a place.

    Raises:
        CannotEdit: if the object meant is not one, or the result has no place or too many or no objects.
    """
    change = {"recolour": _recoloured, "replace": _replaced, "remove": _removed, "add": _added, "move": _moved}
    return Scene(scene.background, change[edit.kind](scene.objects, edit, rng))


def apply_all(scene: Scene, edits: Sequence[Edit], rng: random.Random) -> Scene:
    """Several edits in a row, tried again when an early one took the place that a later one needs.

    Raises:
        CannotEdit: as :func:`apply`.
    """
    for attempt in range(TRIES):
        try:
            edited = scene
            for edit in edits:
                edited = apply(edited, edit, rng)
            return edited
        except CannotEdit:
            if attempt == TRIES - 1 or len(edits) == 1:
                raise
    raise AssertionError("the loop returns or raises")


Objects = tuple[SceneObject, ...]


def _with(objects: Objects, index: int, item: SceneObject) -> Objects:
    return (*objects[:index], item, *objects[index + 1 :])


def _recoloured(objects: Objects, edit: Edit, rng: random.Random) -> Objects:
    index = locate(objects, edit.target)
    return _with(objects, index, replace(objects[index], colour=edit.value or ""))


def _replaced(objects: Objects, edit: Edit, rng: random.Random) -> Objects:
    index = locate(objects, edit.target)
    return _with(objects, index, replace(objects[index], shape=edit.value or ""))


def _removed(objects: Objects, edit: Edit, rng: random.Random) -> Objects:
    index = locate(objects, edit.target)
    if len(objects) == 1:
        raise CannotEdit("the only object of a picture cannot be removed")
    return (*objects[:index], *objects[index + 1 :])


def _added(objects: Objects, edit: Edit, rng: random.Random) -> Objects:
    if len(objects) == MAX_OBJECTS:
        raise CannotEdit(f"the picture has {MAX_OBJECTS} objects already, which is the most")
    size = edit.target.size or rng.choice(tuple(SIZES))
    item = SceneObject(edit.target.shape or "", edit.target.colour or "", size, 0, 0)
    try:
        return (*objects, rng.choice(_asked_places(item, objects, edit)))
    except CannotEdit:
        if edit.target.size or size == "small":
            raise
        return (*objects, rng.choice(_asked_places(replace(item, size="small"), objects, edit)))


def _moved(objects: Objects, edit: Edit, rng: random.Random) -> Objects:
    """To a free place there, with the least shift sideways: "to the left" keeps the height if it can."""
    index = locate(objects, edit.target)
    item, others = objects[index], (*objects[:index], *objects[index + 1 :])
    choices = _asked_places(item, others, edit)
    sideways = DIRECTIONS[edit.value or ""][0] == 0  # a move up or down shifts x, one left or right shifts y
    shifts = [abs(place.x - item.x) if sideways else abs(place.y - item.y) for place in choices]
    return _with(objects, index, rng.choice([p for p, s in zip(choices, shifts, strict=True) if s == min(shifts)]))


def places(
    item: SceneObject, others: Objects, where: str | None = None, anchor: tuple[float, float] | None = None
) -> list[SceneObject]:
    """``item`` at every place of the lattice where it touches nothing and clearly stands ``where`` it should."""
    half = item.side / 2
    return [
        SceneObject(item.shape, item.colour, item.size, x, y)
        for y, x in (np.argwhere(_free(item.side, others)) * STEP).tolist()
        if where is None or stands(where, (x + half, y + half), anchor, slack=-RENDER_MARGIN)
    ]


def _free(side: int, others: Objects) -> np.ndarray:
    """Which places of the lattice keep ``scene.clear`` of all others: bool [y, x]."""
    count = (IMAGE_SIZE - side) // STEP + 1
    free = np.ones((count, count), dtype=bool)
    for other in others:
        y, x = (_near(at, side, other.side) for at in (other.y, other.x))
        free[y, x] = False
    return free


def _near(at: int, side: int, other_side: int) -> slice:
    """Places of the lattice at which a square of ``side`` is less than ``GAP`` from one at ``at``, along one axis."""
    return slice(max(0, (at - side - GAP) // STEP + 1), -(-(at + other_side + GAP) // STEP))


def _asked_places(item: SceneObject, others: Objects, edit: Edit) -> list[SceneObject]:
    anchor = others[locate(others, edit.anchor)].centre if edit.anchor else None
    choices = places(item, others, edit.value, anchor)
    if not choices:
        raise CannotEdit(f"no place is free for the {name(edit.target)}")
    return choices
