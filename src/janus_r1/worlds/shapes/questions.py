"""What can be said of pictures: questions with true answers, checklists, statements on what an edit changed.

The seeing side is pretrained on these. A verdict on an edit is one bit about two pictures, too little to learn
comparing them from; a list of statements says it in many bits, as a checklist does for one picture.
"""

from __future__ import annotations

import random
from collections import Counter

from janus_r1.worlds.shapes.language import OPENINGS, phrase
from janus_r1.worlds.shapes.prompts import Prompt, near_miss
from janus_r1.worlds.shapes.scene import (
    BACKGROUNDS,
    COLOURS,
    RELATIONS,
    SHAPES,
    SIZES,
    Description,
    Scene,
    SceneObject,
    Slot,
    holds,
    in_reading_order,
)

WORDS = ("no", "one", "two", "three", "four")


def describe(scene: Scene) -> str:
    """Every object in reading order and the background."""
    return f"{enumerate_objects(scene)} on a {scene.background} background"


def enumerate_objects(scene: Scene) -> str:
    """Every object in reading order: "a small red ring, a large blue star and a small green cross"."""
    phrases = [phrase(Slot(o.shape, o.colour, o.size)) for o in in_reading_order(scene.objects)]
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def ask(scene: Scene, prompt: Prompt, rng: random.Random, describing: float = 0.4) -> tuple[str, str]:
    """A random question about ``scene``, a rendering of ``prompt``, with its answer.

    ``describing`` is the share of questions that ask for a description.
    """
    kind = rng.random()
    if kind < describing:
        return "Describe the image.", describe(scene)
    kind = (kind - describing) / (1 - describing)
    if kind < 35 / 60:
        return _match(prompt, rng)
    if kind < 45 / 60:
        return _relation(scene, rng)
    if kind < 52 / 60:
        return "How many objects are there?", WORDS[len(scene.objects)]
    return _attribute(scene, rng)


def _match(prompt: Prompt, rng: random.Random) -> tuple[str, str]:
    """Does the picture match its own prompt, or one that was changed in a single fact?"""
    if rng.random() < 0.5:
        return f"Does this image match: {prompt.text}?", "Yes"
    return f"Does this image match: {state(near_miss(prompt, rng), rng)}?", "No"


def state(description: Description, rng: random.Random) -> str:
    """A plain wording of any description."""
    slots = description.slots
    if description.relations:
        parts = [f"{phrase(slots[a])} {relation} {phrase(slots[b])}" for a, relation, b in description.relations]
        return rng.choice(OPENINGS) + ", and ".join(parts)
    return rng.choice(OPENINGS) + " and ".join(phrase(slot) for slot in slots)


def _unique(scene: Scene, attribute: str, rng: random.Random) -> SceneObject | None:
    values = [getattr(o, attribute) for o in scene.objects]
    single = [o for o in scene.objects if values.count(getattr(o, attribute)) == 1]
    return rng.choice(single) if single else None


def _attribute(scene: Scene, rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.5 and (item := _unique(scene, "shape", rng)):
        return f"What colour is the {item.shape}?", item.colour
    if item := _unique(scene, "colour", rng):
        return f"What shape is {item.colour}?", item.shape
    return "How many objects are there?", WORDS[len(scene.objects)]


def _relation(scene: Scene, rng: random.Random) -> tuple[str, str]:
    shapes = [o.shape for o in scene.objects]
    single = [o for o in scene.objects if shapes.count(o.shape) == 1]
    if len(single) < 2:
        return _attribute(scene, rng)
    a, b = rng.sample(single, 2)
    for relation in RELATIONS:
        if holds(relation, a.centre, b.centre):
            return f"Where is the {a.shape} from the {b.shape}?", relation
    return _attribute(scene, rng)


# -------------------------------------------------------------------------------------- checklists

DOMAINS: dict[str, tuple[str, ...]] = {"size": tuple(SIZES), "colour": tuple(COLOURS), "shape": SHAPES}
PAIRS = (("size", "colour"), ("size", "shape"), ("colour", "shape"))


def checklist(scene: Scene, count: int, rng: random.Random) -> list[tuple[str, bool]]:
    """``count`` words or pairs of words ("red", "small circle") and whether an object has them; half do."""
    return [
        _item(scene, (rng.choice(tuple(DOMAINS)),) if rng.random() < 0.6 else rng.choice(PAIRS), rng)
        for _ in range(count)
    ]


def _item(scene: Scene, attributes: tuple[str, ...], rng: random.Random) -> tuple[str, bool]:
    """What is not there differs from what is there in one word."""
    present = sorted({tuple(getattr(o, name) for name in attributes) for o in scene.objects})
    words = list(rng.choice(present))
    if rng.random() < 0.6:  # more than half: with several objects the changed words may be there, too
        at = rng.randrange(len(words))
        words[at] = rng.choice([word for word in DOMAINS[attributes[at]] if word != words[at]])
    return " ".join(words), tuple(words) in present


# ------------------------------------------------------------------------------------------- statements on an edit


FATES = ("kept", "moved", "gone", "new")
WORDS_OF = (tuple(SIZES), tuple(COLOURS), SHAPES, tuple(BACKGROUNDS))


def fates(before: Scene, after: Scene) -> dict[str, str]:
    """What became of everything that one name tells from the rest of its picture: "small red ring": "moved".

    An object in another colour, shape or size is gone, and a new one stands in its place.
    """
    old, new = _places(before), _places(after)
    found = {name: "kept" if new.get(name) == place else "moved" for name, place in old.items()}
    found |= {name: "gone" for name in old if name not in new} | {name: "new" for name in new if name not in old}
    twins = {name for scene in (before, after) for name, count in Counter(_names(scene)).items() if count > 1}
    return {name: fate for name, fate in found.items() if name not in twins}


def statements(before: Scene, after: Scene, count: int, rng: random.Random) -> list[tuple[str, bool]]:
    """``count`` statements ("small red ring moved") and whether they are true; about half are.

    Half are about what changed. Of the false ones some name what stands in neither picture.
    """
    known = fates(before, after)
    changed = [name for name, fate in known.items() if fate != "kept"]
    items = []
    for _ in range(count):
        name = rng.choice(changed if changed and rng.random() < 0.5 else list(known))
        fate = known[name]
        kind = rng.random()
        if kind < 0.35:
            fate = rng.choice([other for other in FATES if other != fate])
        elif kind < 0.5:
            name = _altered(name, rng)
        items.append((f"{name} {fate}", known.get(name) == fate))
    return items


def _names(scene: Scene) -> list[str]:
    return [f"{item.size} {item.colour} {item.shape}" for item in scene.objects]


def _places(scene: Scene) -> dict[str, tuple[float, float]]:
    """Where each thing is; the background, which can be kept, gone or new, is nowhere in particular."""
    places = dict(zip(_names(scene), (item.centre for item in scene.objects), strict=True))
    return places | {f"{scene.background} background": (0.0, 0.0)}


def _altered(name: str, rng: random.Random) -> str:
    """``name`` with one of its words replaced by another of its kind."""
    words = name.split()
    at = rng.choice([i for i, word in enumerate(words) if word != "background"])
    domain = next(domain for domain in WORDS_OF if words[at] in domain)
    words[at] = rng.choice([word for word in domain if word != words[at]])
    return " ".join(words)
