"""What a model is to say of a picture, and what is meant by what it says: the list, the word, the instruction.

``look_and_say`` words the whole finding: what is seen beside what is wanted, each with a mark, Yes or No, and after a
No the edits that mend it, all that can be made at once. ``mend`` makes them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from janus_r1.chain import AGAIN
from janus_r1.worlds.base import Check
from janus_r1.worlds.shapes.edits import CannotEdit, Edit, Looks, apply_all, meant
from janus_r1.worlds.shapes.language import parse_instruction, phrase
from janus_r1.worlds.shapes.repairs import Objects, Repair, as_scene, as_seen, assign, related, repairs
from janus_r1.worlds.shapes.scene import (
    RELATIONS,
    STEP,
    Description,
    Placed,
    Scene,
    Slot,
    holds,
    in_reading_order,
    name,
    with_article,
)

MOST_REPAIRS = 5  # a picture with more faults is drawn again
NOTHING = "nothing"
ANY_ONE = ("make a ", "make an ", "remove a ", "remove an ")
PLACING = ("add", "move")  # edits that leave open where exactly


# --------------------------------------------------------------------------------------------- saying


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
        listed.append(Entry(_where(objects, chosen, relation), relation[1], related(objects, chosen, relation)))
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
