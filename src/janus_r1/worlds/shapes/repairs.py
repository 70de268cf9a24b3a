"""What must be changed in a picture so that it fulfils a prompt: its faults, each as the edits that mend it.

What is seen is assigned to what is asked so that the fewest edits are needed; the picture is right if and only if there
are none. How a model is to say all that: :mod:`janus_r1.worlds.shapes.findings`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from janus_r1.worlds.shapes.edits import MAX_OBJECTS, CannotEdit, Edit, Looks, meant, places
from janus_r1.worlds.shapes.scene import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    IMAGE_SIZE,
    RELATIONS,
    SIZES,
    STEP,
    Description,
    Scene,
    SceneObject,
    Slot,
    holds,
    in_reading_order,
)
from janus_r1.worlds.shapes.verifier import Seen, View

MISSING, SURPLUS = 1.5, 1.0  # costs of an assignment beside 1 a wrong fact: better mend an object than swap it
OPPOSITE = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))
MATCHED = 6  # objects that are tried; a picture with more is wrong whatever they are


@dataclass(frozen=True)
class Repair:
    """Edits that mend one fault together, by the names that single their objects out, or any one of several."""

    edits: tuple[Edit, ...]
    any_one: bool = False
    """Whether the target is one of several that look the same: "make a red circle blue"."""


Objects = Sequence[Seen]


def as_seen(scene: Scene) -> list[Seen]:
    """What the verifier would see in the scene's picture, in reading order."""
    return in_reading_order([Seen(o.shape, o.colour, o.size, o.centre) for o in scene.objects])


def as_scene(objects: Objects, background: str) -> Scene:
    """The scene of the world that is nearest to what is seen, each place on the lattice.

    Raises:
        CannotEdit: if an object has no known shape or there are too many or none.
    """
    if not 1 <= len(objects) <= MAX_OBJECTS + 1 or any(item.shape is None for item in objects):
        raise CannotEdit("the picture is no scene of this world")
    return Scene(background, tuple(_on_lattice(item) for item in objects))


def background_of(view: View) -> str:
    """The name of the background that is nearest to what is seen."""
    return min(BACKGROUNDS, key=lambda known: float(np.linalg.norm(view.background - np.array(BACKGROUNDS[known]))))


def _on_lattice(item: Seen) -> SceneObject:
    side = SIZES[item.size]
    x, y = (min(max(round((c - side / 2) / STEP) * STEP, 0), IMAGE_SIZE - side) for c in item.centre)
    return SceneObject(item.shape or "", item.colour, item.size, x, y)


# -------------------------------------------------------------------------------- assigning, listing


def assign(objects: Objects, description: Description) -> tuple[int | None, ...]:
    """For each slot the index of the object that stands for it, or None, so that the least must be changed."""
    wanted = len(description.slots)
    tried = min(len(objects), MATCHED)
    costs = {(i, s): _slot_cost(slot, objects[i]) for s, slot in enumerate(description.slots) for i in range(tried)}
    best: tuple[float, tuple[int | None, ...]] = (float("inf"), ())
    for chosen in _choices(tried, wanted):
        cost = sum(MISSING if i is None else costs[i, s] for s, i in enumerate(chosen))
        cost += SURPLUS * (len(objects) - sum(i is not None for i in chosen))
        if cost >= best[0]:
            continue
        cost += sum(not related(objects, chosen, relation) for relation in description.relations)
        if cost < best[0]:
            best = cost, chosen
    return best[1]


def _choices(objects: int, wanted: int) -> Iterator[tuple[int | None, ...]]:
    """All ways to give ``wanted`` slots different objects; no slot goes without while an object does, unless one."""
    for missing in range(max(0, wanted - objects), min(wanted, max(0, wanted - objects) + 1) + 1):
        pool: list[int | None] = [*range(objects), *[None] * missing]
        seen = set()
        for chosen in permutations(range(len(pool)), wanted):
            picked = tuple(pool[i] for i in chosen)
            if picked.count(None) == missing and picked not in seen:
                seen.add(picked)
                yield picked


def _slot_cost(slot: Slot, item: Looks) -> float:
    wrong = [getattr(slot, key) not in (None, getattr(item, key)) for key in ("shape", "colour", "size")]
    return wrong[0] + wrong[1] + 1.1 * wrong[2]


def related(objects: Objects, chosen: Sequence[int | None], relation: tuple[int, str, int]) -> bool:
    a, where, b = relation
    first, second = chosen[a], chosen[b]
    return first is not None and second is not None and holds(where, objects[first].centre, objects[second].centre)


# ------------------------------------------------------------------------------------------ repairing


def repairs(objects: Objects, description: Description) -> list[Repair]:
    """The faults of a picture as what mends them: of its objects in reading order, of what is missing, of places.

    An edit names its objects as they are before any is made. A fault that no edit mends has none, so a wrong picture
    has at least one entry, whose ``edits`` may be empty.
    """
    chosen = assign(objects, description)
    wanted = {index: slot for slot, index in zip(description.slots, chosen, strict=True) if index is not None}
    found: list[Repair] = []
    for index in range(len(objects)):
        found += _mend(objects, index, wanted[index]) if index in wanted else [_named(objects, index, "remove")]
    found += [_addition(objects, description, chosen, at) for at, index in enumerate(chosen) if index is None]
    for a, where, b in description.relations:
        first, second = chosen[a], chosen[b]
        if first is not None and second is not None and not related(objects, chosen, (a, where, b)):
            found.append(_move(objects, first, where, second))
    return found


def _mend(objects: Objects, index: int, slot: Slot) -> list[Repair]:
    item, mended = objects[index], []
    if slot.shape not in (None, item.shape):
        mended.append(_named(objects, index, "replace", slot.shape))
    if slot.colour not in (None, item.colour):
        mended.append(_named(objects, index, "recolour", slot.colour))
    if slot.size not in (None, item.size) and not mended:
        new = Edit("add", Slot(item.shape, item.colour, slot.size))
        old = _named(objects, index, "remove")
        lone = len(objects) == 1 or not old.edits or item.shape is None
        mended.append(Repair(()) if lone else Repair((*old.edits, new), old.any_one))
    elif slot.size not in (None, item.size):
        mended.append(Repair(()))  # seen to when the other facts of the object are right
    return mended


def _named(objects: Objects, index: int, kind: str, value: str | None = None) -> Repair:
    """An edit of one object by the shortest usual name that means it alone, else any that looks like it."""
    item = objects[index]
    if kind == "remove" and len(objects) == 1:
        return Repair(())
    slot = _name_of(objects, index)
    if slot is not None:
        return Repair((Edit(kind, slot, value),))
    return Repair((Edit(kind, Slot(item.shape, item.colour), value),), any_one=True)


def _name_of(objects: Objects, index: int) -> Slot | None:
    item = objects[index]
    for slot in (Slot(item.shape, item.colour), Slot(item.shape, item.colour, item.size)):
        if sum(meant(slot, other) for other in objects) == 1:
            return slot
    return None


def _addition(objects: Objects, description: Description, chosen: Sequence[int | None], at: int) -> Repair:
    """Beside the object that it is related to, if that is there and can be named."""
    slot = description.slots[at]
    if len(objects) >= MAX_OBJECTS or slot.shape is None:
        return Repair(())
    thing = replace(slot, colour=slot.colour or _usual_colour(objects, slot))
    for a, where, b in description.relations:
        other, towards = (chosen[b], where) if a == at else (chosen[a], OPPOSITE[where])
        if at in (a, b) and other is not None and (anchor := _name_of(objects, other)):
            return Repair((Edit("add", thing, towards, anchor),))
    return Repair((Edit("add", thing),))


def _usual_colour(objects: Objects, slot: Slot) -> str:
    """That of objects of the same shape, else the first colour that no training picture lacks."""
    alike = [item.colour for item in objects if item.shape == slot.shape]
    return alike[0] if alike else next(c for c in COLOURS if (slot.shape, c) not in HELD_OUT)


def _move(objects: Objects, first: int, where: str, second: int) -> Repair:
    """The subject goes where it should be; where there is no place for it, the other one makes room."""
    one, other = _name_of(objects, first), _name_of(objects, second)
    if one is None or other is None:
        return Repair(())
    if _has_place(objects, first, where, second):
        return Repair((Edit("move", one, where, other),))
    if _has_place(objects, second, OPPOSITE[where], first):
        return Repair((Edit("move", other, OPPOSITE[where], one),))
    return Repair(())


def _has_place(objects: Objects, index: int, where: str, anchor: int) -> bool:
    others = tuple(_on_lattice(item) for i, item in enumerate(objects) if i != index)
    return bool(places(_on_lattice(objects[index]), others, where, objects[anchor].centre))
