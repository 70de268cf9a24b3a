"""Scenes that should fulfil a prompt and do not: one to three facts are changed, the rest stays as it is."""

from __future__ import annotations

import random
from dataclasses import replace

from janus_r1.worlds.shapes.edits import MAX_OBJECTS, places
from janus_r1.worlds.shapes.scene import COLOURS, HELD_OUT, SHAPES, SIZES, Description, Scene, SceneObject
from janus_r1.worlds.shapes.verifier import verify_scene


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
