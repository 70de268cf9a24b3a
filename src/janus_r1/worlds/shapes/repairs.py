"""What a picture needs to fulfil a prompt: its faults, the edits that mend them, and what a judge should say.

``repairs`` assigns what is seen to what is asked so that the fewest edits are needed, and lists these; the picture is
right if and only if there are none. ``look_and_say`` words the whole finding as a model is to say it: what it sees
beside what is wanted, each with a mark, Yes or No, and after a No the edits that mend it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from janus_r1.chain import AGAIN
from janus_r1.worlds.base import Check
from janus_r1.worlds.shapes.edits import MAX_OBJECTS, CannotEdit, Edit, Looks, apply_all, meant, places
from janus_r1.worlds.shapes.language import parse_instruction, phrase
from janus_r1.worlds.shapes.scene import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    IMAGE_SIZE,
    RELATIONS,
    SIZES,
    STEP,
    Description,
    Placed,
    Scene,
    SceneObject,
    Slot,
    holds,
    in_reading_order,
    name,
    with_article,
)
from janus_r1.worlds.shapes.verifier import Seen, View

MOST_REPAIRS = 5  # a picture with more faults is drawn again
MISSING, SURPLUS = 1.5, 1.0  # costs of an assignment beside 1 a wrong fact: better mend an object than swap it
OPPOSITE = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))
NOTHING = "nothing"
ANY_ONE = ("make a ", "make an ", "remove a ", "remove an ")
PLACING = ("add", "move")  # edits that leave open where exactly
MATCHED = 6  # objects that are tried; a picture with more is wrong whatever they are


@dataclass(frozen=True)
class Repair:
    """Edits that mend one fault together, by the names that single their objects out, or any one of several."""

    edits: tuple[Edit, ...]
    any_one: bool = False
    """Whether the target is one of several that look the same: "make a red circle blue"."""


@dataclass(frozen=True)
class Finding:
    """What is to be said of a picture."""

    listing: str
    """What is seen, and beside it what is wanted and whether that is it (:class:`Entry`)."""
    correct: bool
    instruction: str
    """After a No; empty after a Yes."""
    repairs: tuple[Repair, ...]
    """What the instruction asks for, one after the other; none after a Yes, and where it is to be drawn again."""

    @property
    def verdict(self) -> str:
        """ "Yes." or "No, make the red circle blue."."""
        return "Yes." if self.correct else f"No, {self.instruction}."


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
        cost += sum(not _related(objects, chosen, relation) for relation in description.relations)
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


def _related(objects: Objects, chosen: Sequence[int | None], relation: tuple[int, str, int]) -> bool:
    a, where, b = relation
    first, second = chosen[a], chosen[b]
    return first is not None and second is not None and holds(where, objects[first].centre, objects[second].centre)


@dataclass(frozen=True)
class Entry:
    """One line of a list: what is seen, what is wanted there, and whether the one is the other."""

    seen: str
    """ "small red circle", "circle left of square", or "nothing" where something is missing."""
    wanted: str
    """ "red circle", "right of", or "nothing" for an object that nobody asked for."""
    true: bool
    place: str = ""
    """Of an object, as :func:`place_of` words it: stands behind what is seen there."""

    def __str__(self) -> str:
        what = f"{self.seen} {self.place}" if self.place else self.seen
        return f"{what}: {self.wanted} {'Yes' if self.true else 'No'}"


def entries(objects: Objects, description: Description) -> list[Entry]:
    """What is to be listed of a picture: its objects in reading order, what is missing, and relations.

    What is wanted stands in front of its mark, so that a mark follows from the words just before it; where an object
    is stands behind what it is, since it is found by what it is.
    """
    chosen = assign(objects, description)
    slots = {index: slot for slot, index in zip(description.slots, chosen, strict=True) if index is not None}
    listed = []
    for index, item in enumerate(objects):
        slot = slots.get(index)
        right = bool(slot and meant(slot, item))
        listed.append(Entry(looks_of(item), name(slot) if slot else NOTHING, right, place_of(item)))
    missing = [slot for slot, index in zip(description.slots, chosen, strict=True) if index is None]
    listed += [Entry(NOTHING, name(slot), False) for slot in missing]
    for relation in description.relations:
        listed.append(Entry(_where(objects, chosen, relation), relation[1], _related(objects, chosen, relation)))
    return listed


def looks_of(item: Looks) -> str:
    """ "small red circle", as it is listed."""
    return name(Slot(item.shape, item.colour, item.size))


def place_of(item: Placed) -> str:
    """ "@7C": column and row of the centre in steps of four pixels, in hexadecimal. Relations follow from them."""
    return "@" + "".join(f"{min(round(c / STEP), 15):X}" for c in item.centre)


def _where(objects: Objects, chosen: Sequence[int | None], relation: tuple[int, str, int]) -> str:
    a, _, b = relation
    first, second = chosen[a], chosen[b]
    if first is None or second is None:
        return NOTHING
    one, other = objects[first], objects[second]
    where = next((r for r in RELATIONS if holds(r, one.centre, other.centre)), "beside")
    return f"{one.shape or 'object'} {where} {other.shape or 'object'}"


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
        if first is not None and second is not None and not _related(objects, chosen, (a, where, b)):
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


# -------------------------------------------------------------------------------------------- wording


def look_and_say(objects: Objects, description: Description) -> Finding:
    """All that a model is to say of a picture in which ``objects`` are seen."""
    listed = entries(objects, description)
    listing = ", ".join(map(str, listed))
    if all(entry.true for entry in listed):
        return Finding(listing, True, "", ())
    asked = repairs_at_once(objects, description)
    return Finding(listing, False, write_repairs(asked) if asked else AGAIN, asked)


def repairs_at_once(objects: Objects, description: Description) -> tuple[Repair, ...]:
    """The repairs that one instruction asks for, each of what the one before leaves; none if it is to be drawn again.

    What leaves a place open comes last: what it is beside then is known only when it is seen.
    """
    asked: list[Repair] = []
    most = MOST_REPAIRS
    while most:
        wanted = repairs(objects, description)
        first = next((repair for repair in wanted if repair.edits), None)
        if first is None or len(wanted) > most:
            break
        asked.append(first)
        most = len(wanted) - 1  # else the one before has mended nothing
        if any(edit.kind in PLACING for edit in first.edits):
            break
        try:
            objects = as_seen(mend(as_scene(objects, "black"), [first], random.Random(0)))
        except CannotEdit:
            break
    return tuple(asked)


def look_at_edit(objects: Objects, found: Check) -> Finding:
    """As :func:`look_and_say`, of the result of an edit: two marks, and after a No it is to be made again."""
    rest = found.preserving is None or found.preserving.correct
    marks = [f"{what} {'Yes' if true else 'No'}" for what, true in (("edit", found.following.correct), ("rest", rest))]
    listing = ", ".join([*(f"{looks_of(item)} {place_of(item)}" for item in objects), *marks])
    return Finding(listing, found.correct, "" if found.correct else AGAIN, ())


def write_repairs(asked: Sequence[Repair]) -> str:
    """One wording for each kind of edit, of those that editing is taught with."""
    edits = ((edit, "a" if repair.any_one else "the") for repair in asked for edit in repair.edits)
    return " and then ".join(_write_edit(*edit) for edit in edits)


def _write_edit(edit: Edit, article: str) -> str:
    target = with_article(name(edit.target)) if article == "a" else f"the {name(edit.target)}"
    place = f" {edit.value} the {name(edit.anchor)}" if edit.anchor else ""
    match edit.kind:
        case "recolour":
            return f"make {target} {edit.value}"
        case "replace":
            return f"make {target} {with_article(edit.value or '')}"
        case "remove":
            return f"remove {target}"
        case "move":
            return f"move {target}{place}"
    return f"add {phrase(edit.target)}{place}"


def parse_repairs(text: str) -> tuple[Repair, ...]:
    """The way back from :func:`write_repairs` and other wordings of edits; none for anything else, AGAIN included."""
    found: list[Repair] = []
    for part in " ".join(text.lower().split()).rstrip(" .").split(" and then "):
        any_one = part.startswith(ANY_ONE) and not parse_instruction(part)
        edits = parse_instruction(re.sub(" an? ", " the ", part, count=1) if any_one else part)
        if not edits:
            return ()
        found += [Repair((edit,), any_one) for edit in edits]
    return tuple(found)


# ------------------------------------------------------------------------------------------- applying


def mend(scene: Scene, asked: Sequence[Repair], rng: random.Random) -> Scene:
    """The scene with repairs made, one after the other; of several that are meant the first in reading order changes.

    Raises:
        CannotEdit: as :func:`janus_r1.worlds.shapes.edits.apply`.
    """
    for repair in asked:
        scene = _mended(scene, repair, rng)
    return scene


def _mended(scene: Scene, repair: Repair, rng: random.Random) -> Scene:
    if not repair.any_one:
        return apply_all(scene, repair.edits, rng)
    first, *others = repair.edits
    like = [item for item in in_reading_order(scene.objects) if meant(first.target, item)]
    if not like:
        raise CannotEdit(f'nothing in the picture is meant by "{name(first.target)}"')
    hidden = tuple(item for item in scene.objects if meant(first.target, item) and item is not like[0])
    alone = Scene(scene.background, tuple(item for item in scene.objects if item not in hidden))
    if first.kind == "remove":
        rest = tuple(item for item in scene.objects if item is not like[0])
        if not rest:
            raise CannotEdit("the only object of a picture cannot be removed")
        return apply_all(Scene(scene.background, rest), others, rng) if others else Scene(scene.background, rest)
    changed = apply_all(alone, (first,), rng)
    return Scene(scene.background, (*changed.objects, *hidden))


def nearest(scene: Scene, description: Description, rng: random.Random) -> list[tuple[str, Scene]] | None:
    """Instructions and the scene after each, until ``description`` holds; None if they do not lead there. Empty for a
    scene that is right. What no instruction names stays as it is."""
    steps: list[tuple[str, Scene]] = []
    while len(steps) <= 2 * MOST_REPAIRS:
        found = look_and_say(as_seen(scene), description)
        if found.correct:
            return steps
        if not found.repairs:
            return None
        try:
            scene = mend(scene, found.repairs, rng)
        except CannotEdit:
            return None
        steps.append((found.instruction, scene))
    return None
