"""Prompts of the world: GenEval's six families, dense prompts, their wordings and the splits.

The splits are frozen by seed and proven by tests:

* ``test``      553 prompts in GenEval's proportions; no text of them is ever trained on
* ``dense``     100 prompts of three or four attributed objects with relations (DPG-Bench's part)
* ``held_out``  100 prompts that each name a shape-colour pair that no training picture contains
* ``train``     an endless stream that avoids all of the above, by text and, in the two families
  whose combinations are many (``color_attr``, ``dense``), by description
* ``validation``  553 prompts like ``test``'s to choose between models by, so that ``test`` stays unseen;
  none is in ``test``, but the training stream may come upon them
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from janus_r1.worlds.shapes.language import JOINERS, NUMBERS, OPENINGS, RELATION_WORDS, phrase, plural
from janus_r1.worlds.shapes.scene import COLOURS, HELD_OUT, RELATIONS, SHAPES, SIZES, Description, Slot

# GenEval's tags and its number of prompts for each.
GENEVAL_COUNTS = {
    "single_object": 80,
    "two_object": 99,
    "counting": 80,
    "colors": 94,
    "position": 100,
    "color_attr": 100,
}
HELD_OUT_COUNTS = {"colors": 20, "counting": 20, "color_attr": 40, "dense": 20}
DENSE_COUNT = 100
TRAIN_WEIGHTS = {
    "single_object": 0.05,
    "two_object": 0.13,
    "counting": 0.16,
    "colors": 0.08,
    "position": 0.20,
    "color_attr": 0.20,
    "dense": 0.18,
}
HARD = ("binding", "repeated shape", "repeated colour")  # every word of the picture is in the prompt
HARD_WEIGHT = 3.0
SPLIT_SEED = 20260  # changing it makes other splits, and every committed result void


@dataclass(frozen=True)
class Prompt:
    text: str
    family: str
    description: Description


# -------------------------------------------------------------------------------------- families


def _colour_for(shape: str, rng: random.Random, taken: tuple[str | None, ...] = ()) -> str:
    """A colour for ``shape`` that makes no held-out pair and is not taken."""
    allowed = [c for c in COLOURS if (shape, c) not in HELD_OUT and c not in taken]
    return rng.choice(allowed)


def _slots(count: int, rng: random.Random, coloured: bool, sized: float) -> list[Slot]:
    """Slots of distinct shapes and, where stated, distinct colours."""
    slots: list[Slot] = []
    for shape in rng.sample(SHAPES, count):
        colour = _colour_for(shape, rng, tuple(s.colour for s in slots)) if coloured else None
        size = rng.choice(tuple(SIZES)) if rng.random() < sized else None
        slots.append(Slot(shape, colour, size))
    return slots


def _with_held_out(slots: list[Slot], rng: random.Random) -> list[Slot]:
    """The first slot takes its shape's held-out colour; a later one that had it takes another."""
    first = slots[0]
    assert first.shape is not None
    colour = dict(HELD_OUT)[first.shape]
    later = [
        Slot(s.shape, _colour_for(s.shape, rng, (colour, *(t.colour for t in slots))), s.size)
        if s.shape and s.colour == colour
        else s
        for s in slots[1:]
    ]
    return [Slot(first.shape, colour, first.size), *later]


def _single(slots: list[Slot], rng: random.Random) -> tuple[str, Description]:
    return phrase(slots[0]), Description((slots[0],))


def _pair(slots: list[Slot], rng: random.Random) -> tuple[str, Description]:
    return phrase(slots[0]) + rng.choice(JOINERS) + phrase(slots[1]), Description(tuple(slots))


def _counted(slots: list[Slot], rng: random.Random) -> tuple[str, Description]:
    count = rng.choice(tuple(NUMBERS))
    slot = slots[0] if count < 4 else Slot(slots[0].shape, slots[0].colour)  # four large ones rarely fit
    return f"{NUMBERS[count]} {plural(slot)}", Description((slot,) * count, alike=True)


def _related(slots: list[Slot], rng: random.Random) -> tuple[str, Description]:
    relation = rng.choice(RELATIONS)
    text = f"{phrase(slots[0])} {rng.choice(RELATION_WORDS[relation])} {phrase(slots[1])}"
    return text, Description(tuple(slots), ((0, relation, 1),))


def _dense(slots: list[Slot], rng: random.Random) -> tuple[str, Description]:
    """ "A left of B, and C below D", or with three objects "..., and C below the B"."""
    first, second = rng.choice(RELATIONS), rng.choice(RELATIONS)
    text = f"{phrase(slots[0])} {rng.choice(RELATION_WORDS[first])} {phrase(slots[1])}, and "
    text += f"{phrase(slots[2])} {rng.choice(RELATION_WORDS[second])} "
    if len(slots) == 4:
        return text + phrase(slots[3]), Description(tuple(slots), ((0, first, 1), (2, second, 3)))
    return text + f"the {slots[1].shape}", Description(tuple(slots), ((0, first, 1), (2, second, 1)))


def sample_prompt(family: str, rng: random.Random, held_out: bool = False) -> Prompt:
    """A random prompt of a family. With ``held_out`` it names a pair unseen in training."""
    coloured = family in ("colors", "color_attr", "dense") or held_out
    if family in ("counting", "position"):
        coloured = coloured or rng.random() < 0.5
    count, sized, write = {
        "single_object": (1, 0.67, _single),
        "two_object": (2, 0.25, _pair),
        "counting": (1, 0.25, _counted),
        "colors": (1, 0.5, _single),
        "position": (2, 0.15, _related),
        "color_attr": (2, 0.15, _pair),
        "dense": (rng.choice((3, 4)), 0.0, _dense),
    }[family]
    slots = _slots(count, rng, coloured, sized)
    if held_out:
        slots = _with_held_out(slots, rng)
    body, description = write(slots, rng)
    return Prompt(rng.choice(OPENINGS) + body, family, description)


# ---------------------------------------------------------------------------------------- splits


def _distinct(
    counts: dict[str, int], seed: int, held_out: bool = False, but: frozenset[str] = frozenset()
) -> tuple[Prompt, ...]:
    rng = random.Random(seed)
    prompts: dict[str, Prompt] = {}
    for family, count in counts.items():
        target = len(prompts) + count
        while len(prompts) < target:
            prompt = sample_prompt(family, rng, held_out)
            if prompt.text not in but:
                prompts.setdefault(prompt.text, prompt)
    return tuple(prompts.values())


@cache
def split(name: str) -> tuple[Prompt, ...]:
    """The frozen prompts of ``test``, ``dense``, ``held_out`` or ``validation``.

    Raises:
        ValueError: for another name; ``train`` is a stream, see :func:`train_prompts`.
    """
    if name == "test":
        return _distinct(GENEVAL_COUNTS, SPLIT_SEED)
    if name == "dense":
        return _distinct({"dense": DENSE_COUNT}, SPLIT_SEED + 1)
    if name == "held_out":
        return _distinct(HELD_OUT_COUNTS, SPLIT_SEED + 2, held_out=True)
    if name == "validation":
        return _distinct(GENEVAL_COUNTS, SPLIT_SEED + 3, but=_reserved()[0])
    raise ValueError(f"unknown split {name!r}; choose test, dense, held_out or validation")


@cache
def _reserved() -> tuple[frozenset[str], frozenset[Description]]:
    prompts = [prompt for name in ("test", "dense", "held_out") for prompt in split(name)]
    texts = frozenset(prompt.text for prompt in prompts)
    descriptions = frozenset(p.description for p in prompts if p.family in ("color_attr", "dense"))
    return texts, descriptions


def train_prompts(rng: random.Random) -> Iterator[Prompt]:
    """Endless training prompts, in the proportions of ``TRAIN_WEIGHTS``."""
    texts, descriptions = _reserved()
    families, weights = tuple(TRAIN_WEIGHTS), tuple(TRAIN_WEIGHTS.values())
    while True:
        prompt = sample_prompt(rng.choices(families, weights)[0], rng)
        if prompt.text not in texts and prompt.description not in descriptions:
            yield prompt


# ------------------------------------------------------------------------- from scene to language


def alterations(prompt: Prompt, rng: random.Random | None = None) -> dict[str, Description]:
    """Descriptions that differ from a prompt's in one fact, by the name of the fact.

    A picture of the prompt is wrong under each of them, and the other way round. Which object, which
    relation and which new value is random; without ``rng`` it follows from the prompt's text.
    """
    description, slots = prompt.description, prompt.description.slots
    rng = rng or random.Random(prompt.text)
    at = rng.randrange(len(slots))
    changed = {}
    free_shapes = [s for s in SHAPES if s not in {slot.shape for slot in slots}]
    free_colours = [c for c in COLOURS if c not in {slot.colour for slot in slots}]
    changed["shape"] = _replace(description, at, shape=rng.choice(free_shapes))
    if slots[at].colour:
        changed["colour"] = _replace(description, at, colour=rng.choice(free_colours))
    if slots[at].size:
        other = next(size for size in SIZES if size != slots[at].size)
        changed["size"] = _replace(description, at, size=other)
    changed["count"] = Description((*slots, slots[at]))
    if len(slots) > 1 and not description.alike:
        changed |= _repeated(description, rng)
    if len(slots) > 1:
        changed["missing"] = Description((*slots[:at], *slots[at + 1 :]))
    if description.relations:
        which = rng.randrange(len(description.relations))
        relations = list(description.relations)
        a, relation, b = relations[which]
        relations[which] = (a, rng.choice([r for r in RELATIONS if r != relation]), b)
        changed["relation"] = Description(slots, tuple(relations))
    if not description.alike and len(slots) > 1 and all(slot.colour for slot in slots):
        i, j = rng.sample(range(len(slots)), 2)
        swapped = _replace(description, i, colour=slots[j].colour)
        changed["binding"] = _replace(swapped, j, colour=slots[i].colour)
    return changed


def _repeated(description: Description, rng: random.Random) -> dict[str, Description]:
    """One object takes another one's shape or colour: every word of the picture is in the prompt, not the reverse.

    A model's own drafts fail so most often: the red star beside a white heart becomes a red heart.
    """
    slots = description.slots
    at, other = rng.sample(range(len(slots)), 2)
    changed = {}
    if slots[other].shape != slots[at].shape:
        changed["repeated shape"] = _replace(description, at, shape=slots[other].shape)
    if slots[at].colour and slots[other].colour and slots[other].colour != slots[at].colour:
        changed["repeated colour"] = _replace(description, at, colour=slots[other].colour)
    return changed


def near_miss(prompt: Prompt, rng: random.Random) -> Description:
    """A random alteration that may be trained on: it names no held-out pair. Hard ones come more often."""
    allowed = {fact: d for fact, d in alterations(prompt, rng).items() if not is_held_out(d)}
    weights = [HARD_WEIGHT if fact in HARD else 1.0 for fact in allowed]
    return rng.choices(list(allowed.values()), weights)[0]


def is_held_out(description: Description) -> bool:
    """Whether it names a shape-colour pair that no training picture may contain."""
    return any((slot.shape, slot.colour) in HELD_OUT for slot in description.slots)


def _replace(description: Description, index: int, **values: str | None) -> Description:
    slots = list(description.slots)
    old = slots[index]
    slots[index] = Slot(**{"shape": old.shape, "colour": old.colour, "size": old.size, **values})
    return Description(tuple(slots), description.relations)
