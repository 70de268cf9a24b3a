"""Random edits of random scenes, and the editing splits.

A case is a scene, an instruction and the edited scene. The splits are frozen by seed and proven by tests:

* ``test``      300 cases, 50 a family; no training case makes the same edit, in any wording, in a scene
  of the same objects, wherever they stand
* ``held_out``  100 cases; each changes or makes a shape-colour pair that no training picture contains
* ``validation``  300 cases like ``test``'s to choose between models by, so that ``test`` stays unseen
* ``train``     an endless stream that avoids all of these
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle, islice
from typing import Literal, get_args

from janus_r1.worlds.base import WorldTask
from janus_r1.worlds.shapes.edits import (
    KINDS,
    MAX_OBJECTS,
    SIDES,
    CannotEdit,
    Edit,
    Kind,
    apply_all,
    locate,
    meant,
    stands,
)
from janus_r1.worlds.shapes.language import write
from janus_r1.worlds.shapes.prompts import SPLIT_SEED
from janus_r1.worlds.shapes.questions import enumerate_objects
from janus_r1.worlds.shapes.scene import (
    COLOURS,
    HELD_OUT,
    RELATIONS,
    SHAPES,
    SIZES,
    Description,
    Scene,
    SceneObject,
    Slot,
    random_description,
    sample_scene,
)

Family = Literal[Kind, "two_step"]
FAMILIES: tuple[Family, ...] = get_args(Family)
EDIT_COUNTS = {"test": 300, "held_out": 100, "validation": 300}  # shared evenly by the families, in turn
TRIES = 30  # most proposals for a scene will do; of those with a held-out pair, which are sought longer, one in ten
HELD_OUT_TRIES = 200
UNMOVED = 4.0  # an object that is to move stands at least this far, in pixels, from being there already

# How an object is named, where that singles it out, and how often.
NAMINGS = (
    (("shape", "colour"), 12),
    (("shape",), 3),
    (("colour",), 2),
    (("shape", "size"), 1),
    (("shape", "colour", "size"), 2),
)


@dataclass(frozen=True)
class Instruction:
    text: str
    family: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class EditCase:
    source: Scene
    instruction: Instruction
    target: Scene


@dataclass(frozen=True, eq=False)
class EditTask(WorldTask):
    """An instruction with its scenes."""

    edits: tuple[Edit, ...] = ()
    case: EditCase | None = None


# ------------------------------------------------------------------------------------------ sampling


def sample_edit(scene: Scene, rng: random.Random, held_out: bool = False, family: str | None = None) -> Instruction:
    """A random instruction for ``scene``, of a random family unless one is given.

    Every object meant is the only one with that name, before and between the steps. With ``held_out``
    a pair unseen in training is changed or made, otherwise none is.

    Raises:
        CannotEdit: if the scene takes no such edit: its objects are all alike, it is full, or has too few.
    """
    for one in [family] if family else rng.sample(FAMILIES, len(FAMILIES)):
        for _ in range(HELD_OUT_TRIES if held_out else TRIES):
            edits = _propose(scene, one, rng)
            if edits and held_out == any(pair in HELD_OUT for edit in edits for pair in pairs(scene, edit)):
                return Instruction(write(edits, rng), one, edits)
    raise CannotEdit(f"no {family or 'edit'} found for a scene of {enumerate_objects(scene)}")


def pairs(scene: Scene, edit: Edit) -> set[tuple[str | None, str | None]]:
    """The shape-colour pairs that an edit of ``scene`` changes, makes, moves or takes away."""
    if edit.kind == "add":
        return {(edit.target.shape, edit.target.colour)}
    item = scene.objects[locate(scene.objects, edit.target)]
    after = {"recolour": (item.shape, edit.value), "replace": (edit.value, item.colour)}
    return {(item.shape, item.colour), after.get(edit.kind, (item.shape, item.colour))}


def _propose(scene: Scene, family: str, rng: random.Random) -> tuple[Edit, ...] | None:
    """Edits that can be made, or ``None``."""
    kinds = [family] if family in KINDS else rng.choices(KINDS, k=2)
    edits = tuple(edit for kind in kinds if (edit := _random_edit(scene, kind, rng)))
    if len(edits) < len(kinds) or (len(edits) == 2 and not _independent(scene, *edits)):
        return None
    try:
        apply_all(scene, edits, rng)
    except CannotEdit:
        return None
    return edits


def _independent(scene: Scene, first: Edit, second: Edit) -> bool:
    """Two steps change different objects, and neither is told from where the other's object was."""
    one, other = ({s for s in (e.target, e.anchor) if s} for e in (first, second))
    touched = [i for i, item in enumerate(scene.objects) if any(meant(s, item) for s in one)]
    shared = [scene.objects[i] for i in touched if any(meant(s, scene.objects[i]) for s in other)]
    return not any(meant(edit.target, item) for item in shared for edit in (first, second))


def _random_edit(scene: Scene, kind: str, rng: random.Random) -> Edit | None:
    if kind == "add":
        return _random_add(scene, rng)
    item = rng.choice(scene.objects)
    target = single_out(scene, item, rng)
    if target is None or (kind == "remove" and len(scene.objects) == 1):
        return None
    if kind == "remove":
        return Edit(kind, target)
    if kind == "move":
        return _random_move(scene, item, target, rng)
    known, old = (COLOURS, item.colour) if kind == "recolour" else (SHAPES, item.shape)
    return Edit(kind, target, rng.choice([word for word in known if word != old]))


def _random_add(scene: Scene, rng: random.Random) -> Edit | None:
    """Something new, anywhere or beside an object; ``None`` if the scene is full or has its like."""
    size = rng.choice(tuple(SIZES)) if rng.random() < 0.3 else None
    thing = Slot(rng.choice(SHAPES), rng.choice(tuple(COLOURS)), size)
    alike = Slot(thing.shape, thing.colour)
    if len(scene.objects) == MAX_OBJECTS or any(meant(alike, item) for item in scene.objects):
        return None
    if rng.random() < 0.5:
        return Edit("add", thing)
    anchor = single_out(scene, rng.choice(scene.objects), rng)
    return Edit("add", thing, rng.choice(RELATIONS), anchor) if anchor else None


def _random_move(scene: Scene, item: SceneObject, target: Slot, rng: random.Random) -> Edit | None:
    """To a side or to a relation in which the object clearly does not stand yet."""
    others = [other for other in scene.objects if other is not item]
    to_side = not others or rng.random() < 0.5
    other = None if to_side else rng.choice(others)
    anchor = single_out(scene, other, rng) if other else None
    where = rng.choice(SIDES if to_side else RELATIONS)
    if (other and not anchor) or stands(where, item.centre, other.centre if other else None, slack=UNMOVED):
        return None
    return Edit("move", target, where, anchor)


def single_out(scene: Scene, item: SceneObject, rng: random.Random) -> Slot | None:
    """A random name that means ``item`` alone; ``None`` if the scene has its twin."""
    slots = [(Slot(**{key: getattr(item, key) for key in keys}), weight) for keys, weight in NAMINGS]
    single = [(s, weight) for s, weight in slots if sum(meant(s, other) for other in scene.objects) == 1]
    return rng.choices([s for s, _ in single], [weight for _, weight in single])[0] if single else None


# -------------------------------------------------------------------------------------------- splits


def sample_case(rng: random.Random, family: str, held_out: bool = False) -> EditCase:
    """A random scene with an edit of the family, made."""
    while True:
        scene = _held_out_scene(family, rng) if held_out else sample_scene(random_description(rng), rng)
        try:
            instruction = sample_edit(scene, rng, held_out, family)
            return EditCase(scene, instruction, apply_all(scene, instruction.edits, rng))
        except CannotEdit:
            continue


def _held_out_scene(family: str, rng: random.Random) -> Scene:
    """Half of the scenes hold an unseen pair; where an edit makes none, all of them do."""
    slots = random_description(rng).slots
    if family in ("remove", "move") or rng.random() < 0.5:
        shape, colour = rng.choice(sorted(HELD_OUT))
        slots = (Slot(shape, colour), *slots[1:])
    return sample_scene(Description(slots), rng)


@cache
def edit_split(name: str) -> tuple[EditCase, ...]:
    """The frozen cases of ``test``, ``held_out`` or ``validation``, no two with the same edit of the same objects.

    ``validation`` is like ``test`` and has none of its cases: to choose by, so that ``test`` stays unseen.

    Raises:
        ValueError: for another name; ``train`` is a stream, see :func:`train_edits`.
    """
    if name not in EDIT_COUNTS:
        raise ValueError(f"unknown editing split {name!r}; choose {', '.join(EDIT_COUNTS)}")
    held_out = name == "held_out"
    rng = random.Random(SPLIT_SEED + {"test": 3, "held_out": 4, "validation": 5}[name])
    seen = {meaning(case) for case in edit_split("test")} if name == "validation" else set()
    cases: dict[Meaning, EditCase] = {}
    for count, family in enumerate(islice(cycle(FAMILIES), EDIT_COUNTS[name]), start=1):
        while len(cases) < count:
            case = sample_case(rng, family, held_out)
            if meaning(case) not in seen:
                cases.setdefault(meaning(case), case)
    return tuple(cases.values())


def train_edits(rng: random.Random, families: Sequence[str] = FAMILIES) -> Iterator[EditCase]:
    """Endless training cases, the ``families`` equally often; one that is named twice comes twice as often."""
    while True:
        case = sample_case(rng, rng.choice(families))
        if meaning(case) not in _reserved():
            yield case


@cache
def _reserved() -> frozenset[Meaning]:
    """What no training case may ask for."""
    return frozenset(meaning(case) for name in EDIT_COUNTS for case in edit_split(name))


Meaning = tuple[tuple[tuple[str, str, str], ...], frozenset[Edit]]


def meaning(case: EditCase) -> Meaning:
    """What a case asks for, however it is worded, its objects are named or placed."""
    objects = case.source.objects

    def full(slot: Slot) -> Slot:
        item = objects[locate(objects, slot)]
        return Slot(item.shape, item.colour, item.size)

    edits = frozenset(
        replace(
            edit,
            target=edit.target if edit.kind == "add" else full(edit.target),
            anchor=full(edit.anchor) if edit.anchor else None,
        )
        for edit in case.instruction.edits
    )
    return tuple(sorted((o.shape, o.colour, o.size) for o in objects)), edits
