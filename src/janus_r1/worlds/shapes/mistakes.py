"""What goes wrong in one known way: edits, to test the check and as No examples for a judge; drafts, to be repaired.

``wrong_edits`` make another edit than the one asked for; ``side_effects`` also change something else; ``spoil`` changes
one to three facts of a scene, so that it no longer is what a prompt asks for. What none of them touches stays as it is,
and none makes a shape-colour pair that no training picture may contain.
"""

from __future__ import annotations

import random
from dataclasses import replace

from janus_r1.worlds.shapes.edit_cases import EditCase, pairs, single_out
from janus_r1.worlds.shapes.edits import MAX_OBJECTS, SIDES, CannotEdit, Edit, apply_all, locate, meant, places
from janus_r1.worlds.shapes.scene import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    RELATIONS,
    SHAPES,
    SIZES,
    Description,
    Scene,
    SceneObject,
    Slot,
)
from janus_r1.worlds.shapes.verifier import verify_scene


def wrong_edits(case: EditCase, rng: random.Random) -> dict[str, Scene]:
    """Scenes in which one fact of the instruction was misunderstood, by the name of the fact.

    ``colour``, ``shape``, ``place`` or ``object`` of one step is another; ``undone``, nothing is.
    """
    edits = case.instruction.edits
    at = rng.randrange(len(edits))
    scenes = {"undone": case.source}
    for fact, wrong in _alterations(case.source, edits[at], rng).items():
        if any(pair in HELD_OUT for pair in pairs(case.source, wrong)):
            continue
        try:
            scenes[fact] = apply_all(case.source, (*edits[:at], wrong, *edits[at + 1 :]), rng)
        except CannotEdit:
            continue
    return scenes


def _alterations(scene: Scene, edit: Edit, rng: random.Random) -> dict[str, Edit]:
    changed = {}
    if edit.kind == "recolour":
        changed["colour"] = replace(edit, value=_other(COLOURS, rng, edit.value, _target(scene, edit).colour))
    elif edit.kind == "replace":
        changed["shape"] = replace(edit, value=_other(SHAPES, rng, edit.value, _target(scene, edit).shape))
    elif edit.kind == "add":
        thing = edit.target
        changed["colour"] = replace(edit, target=replace(thing, colour=_other(COLOURS, rng, thing.colour)))
        changed["shape"] = replace(edit, target=replace(thing, shape=_other(SHAPES, rng, thing.shape)))
    if edit.value in (*SIDES, *RELATIONS):
        changed["place"] = replace(edit, value=_elsewhere(scene, edit, rng))
    if edit.kind != "add" and (other := _another(scene, edit, rng)):
        changed["object"] = replace(edit, target=other)
    return changed


def _target(scene: Scene, edit: Edit) -> SceneObject:
    return scene.objects[locate(scene.objects, edit.target)]


def _other(known, rng: random.Random, *taken: str | None) -> str:
    return rng.choice([word for word in known if word not in taken])


def _elsewhere(scene: Scene, edit: Edit, rng: random.Random) -> str:
    """The opposite for a side, since a corner is on two sides; any other relation, since these exclude each other."""
    if edit.anchor:
        return _other(RELATIONS, rng, edit.value)
    return dict(zip(SIDES, ("right", "left", "bottom", "top"), strict=True))[edit.value or ""]


def _another(scene: Scene, edit: Edit, rng: random.Random) -> Slot | None:
    """A different object that the edit would change; not the one that the place is told from."""
    known = [slot for slot in (edit.target, edit.anchor) if slot]
    changed = {"recolour": "colour", "replace": "shape"}.get(edit.kind, "")
    others = [
        item
        for item in scene.objects
        if not any(meant(slot, item) for slot in known) and getattr(item, changed, None) != edit.value
    ]
    return single_out(scene, rng.choice(others), rng) if others else None


# ------------------------------------------------------------------------------------- side effects


def side_effects(case: EditCase, rng: random.Random) -> dict[str, Scene]:
    """The edited scene with one more change that nobody asked for, by its name.

    ``recoloured``, ``reshaped``, ``resized``, ``moved``, ``vanished`` are of an object that should have stayed;
    ``appeared`` and ``background`` need none.
    """
    scenes: dict[str, Scene] = {}
    untouched = [item for item in case.target.objects if item in case.source.objects]
    if untouched:
        scenes = _changes(case.target, rng.choice(untouched), rng)
    if new := _newcomer(case.target, rng):
        scenes["appeared"] = Scene(case.target.background, (*case.target.objects, new))
    other = _other(BACKGROUNDS, rng, case.target.background)
    return scenes | {"background": Scene(other, case.target.objects)}


def _changes(scene: Scene, item: SceneObject, rng: random.Random) -> dict[str, Scene]:
    others = tuple(other for other in scene.objects if other is not item)
    colours = [c for c in COLOURS if c != item.colour and (item.shape, c) not in HELD_OUT]
    shapes = [s for s in SHAPES if s != item.shape and (s, item.colour) not in HELD_OUT]
    changed = {
        "recoloured": [replace(item, colour=rng.choice(colours))],
        "reshaped": [replace(item, shape=rng.choice(shapes))],
        "resized": places(replace(item, size=_other(SIZES, rng, item.size)), others),
        "moved": [place for place in places(item, others) if place != item],
    }
    scenes = {
        what: Scene(scene.background, (*others, rng.choice(choices))) for what, choices in changed.items() if choices
    }
    return scenes | ({"vanished": Scene(scene.background, others)} if others else {})


def _newcomer(scene: Scene, rng: random.Random) -> SceneObject | None:
    shape, colour = rng.choice([(s, c) for s in SHAPES for c in COLOURS if (s, c) not in HELD_OUT])
    free = places(SceneObject(shape, colour, "small", 0, 0), scene.objects)
    return rng.choice(free) if free and len(scene.objects) < MAX_OBJECTS else None


# -------------------------------------------------------------------------------------------------------- drafts


def spoil(scene: Scene, description: Description, rng: random.Random, most: int = 3) -> Scene:
    """The scene with one to ``most`` faults: what it holds no longer is what ``description`` asks for.

    No pair of shape and colour that training must not show is made. Objects that no fault touches stay as they are.
    """
    for _ in range(100):
        spoilt = scene
        for _ in range(rng.randint(1, most)):
            spoilt = _spoil_once(spoilt, description, rng)
        if not verify_scene(spoilt, description).correct:
            return spoilt
    raise ValueError(f"no fault found for {description}")


def _spoil_once(scene: Scene, description: Description, rng: random.Random) -> Scene:
    objects, index = scene.objects, rng.randrange(len(scene.objects))
    item, others = objects[index], (*objects[:index], *objects[index + 1 :])
    asked = list(description.slots)
    kinds = ["colour", "colour", "shape", "shape", "swap", "move", "remove", "add"]
    if description.relations:
        kinds += ["move", "move", "swap places"]
    if any(slot.size for slot in asked):
        kinds.append("size")
    match rng.choice(kinds):
        case "colour":  # half of them a colour that another object of the prompt has: bindings
            choices = [s.colour for s in asked if s.colour and s.colour != item.colour] if rng.random() < 0.5 else []
            new = [replace(item, colour=rng.choice(choices or [c for c in COLOURS if c != item.colour]))]
        case "shape":
            choices = [s.shape for s in asked if s.shape and s.shape != item.shape] if rng.random() < 0.5 else []
            new = [replace(item, shape=rng.choice(choices or [s for s in SHAPES if s != item.shape]))]
        case "swap":
            return _swapped(scene, ("colour",), rng)
        case "swap places":
            return _swapped(scene, ("x", "y"), rng)
        case "move":
            new = [place for place in places(item, others) if place != item]
        case "remove":
            return Scene(scene.background, others) if others else scene
        case "size":
            new = places(replace(item, size=next(s for s in SIZES if s != item.size)), others)
        case _:
            if len(objects) == MAX_OBJECTS:
                return scene
            new = places(SceneObject(rng.choice(SHAPES), rng.choice(tuple(COLOURS)), "small", 0, 0), objects)
            others = objects
    new = [place for place in new if (place.shape, place.colour) not in HELD_OUT]
    return Scene(scene.background, (*others, rng.choice(new))) if new else scene


def _swapped(scene: Scene, keys: tuple[str, ...], rng: random.Random) -> Scene:
    """Two objects of one size exchange what ``keys`` name."""
    if len(scene.objects) < 2:
        return scene
    one, other = rng.sample(scene.objects, 2)
    if one.size != other.size:
        return scene
    ours, theirs = ({key: getattr(o, key) for key in keys} for o in (one, other))
    changed = (replace(one, **theirs), replace(other, **ours))
    if any((o.shape, o.colour) in HELD_OUT for o in changed):
        return scene
    return Scene(scene.background, (*(o for o in scene.objects if o not in (one, other)), *changed))
