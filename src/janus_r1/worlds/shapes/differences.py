"""What became of the things of one picture in another, as short statements that are true or false.

A verdict on an edit is one bit about two pictures, too little to learn comparing them from. A list of these says it in
many bits, as ``world.questions.checklist`` does for one picture.
"""

from __future__ import annotations

import random
from collections import Counter

from janus_r1.worlds.shapes.scene import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scene

FATES = ("kept", "moved", "gone", "new")
DOMAINS = (tuple(SIZES), tuple(COLOURS), SHAPES, tuple(BACKGROUNDS))


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
    domain = next(domain for domain in DOMAINS if words[at] in domain)
    words[at] = rng.choice([word for word in domain if word != words[at]])
    return " ".join(words)
