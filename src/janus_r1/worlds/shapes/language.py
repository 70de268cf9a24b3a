"""The language of the world: the words of prompts and of instructions, and the way back from text to meaning.

Writing and reading share the tables below, so what can be written can be read, and nothing else can: a text that is
not wholly made of known phrases means nothing, and a scorer can trust what it gets.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product

from janus_r1.worlds.shapes.edits import SIDES, Edit
from janus_r1.worlds.shapes.scene import COLOURS, SHAPES, SIZES, Description, Slot, name, with_article

OPENINGS = (
    "",
    "a photo of ",
    "a picture of ",
    "an image of ",
    "a drawing of ",
    "an icon of ",
    "a painting of ",
    "draw ",
    "please draw ",
    "show me ",
    "paint ",
    "make a picture of ",
)
RELATION_WORDS = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
}
JOINERS = (" and ", " with ", " together with ", " beside ")
NUMBERS = {2: "two", 3: "three", 4: "four"}
FIRST_THEN_SECOND = ", and "  # between the two relations of a dense prompt


# Of each kind; {target} and {anchor} are "the red circle", {thing} "a red circle", {shape} "a circle".
WORDINGS = {
    "recolour": (
        "make {target} {colour}",
        "turn {target} {colour}",
        "paint {target} {colour}",
        "change {target} to {colour}",
        "recolour {target} in {colour}",
        "change the colour of {target} to {colour}",
    ),
    "replace": (
        "replace {target} with {shape}",
        "turn {target} into {shape}",
        "change {target} into {shape}",
        "swap {target} for {shape}",
        "make {target} {shape}",
    ),
    "remove": ("remove {target}", "delete {target}", "erase {target}", "take away {target}", "get rid of {target}"),
    "add": ("add {thing}", "insert {thing}", "also draw {thing}", "put in {thing}"),
    "move": ("move {target} {side}", "shift {target} {side}", "put {target} {side}", "bring {target} {side}"),
}
BESIDE = " {relation} {anchor}"
WORDINGS["add"] += tuple(wording + BESIDE for wording in WORDINGS["add"])
WORDINGS["move"] += tuple(wording.replace(" {side}", BESIDE) for wording in WORDINGS["move"])

SIDE_WORDS = {
    side: (f"to the {side}", f"to the {side} of the picture", f"to the {side} edge", f"to the {side} side")
    for side in SIDES
}
COURTESIES = ("", "please ", "now ")
STEPS = (", then ", " and then ", " and ", ", and ")


# --------------------------------------------------------------------------------------------------------- phrases


def phrase(slot: Slot) -> str:
    """ "a small red circle", "an orange ring"."""
    return with_article(" ".join(word for word in (slot.size, slot.colour, slot.shape) if word))


def plural(slot: Slot) -> str:
    shape = f"{slot.shape}es" if slot.shape == "cross" else f"{slot.shape}s"
    return " ".join(word for word in (slot.size, slot.colour, shape) if word)


# --------------------------------------------------------------------------------------------------- prompts, read


def parse(text: str) -> Description | None:
    """The description that ``text`` words; ``None`` when it is not in the world's language.

    Case, blanks and one closing full stop do not matter.
    """
    words = " ".join(text.lower().split()).removesuffix(".").rstrip().replace(" ,", ",")
    for opening in OPENINGS:
        if words.startswith(opening):
            description = _body(words.removeprefix(opening))
            if description is not None:
                return description
    return None


def _body(text: str) -> Description | None:
    """A prompt without its opening. The families share no wording, so their order does not matter."""
    slot = _phrases().get(text)
    if slot is not None:
        return Description((slot,))
    return _counted(text) or _pair(text) or _position(text) or _dense(text)


def _counted(text: str) -> Description | None:
    """ "three small red circles"."""
    number, _, group = text.partition(" ")
    slot = _plurals().get(group)
    for count, word in NUMBERS.items():
        if slot is not None and word == number:
            return Description((slot,) * count, alike=True)
    return None


def _pair(text: str) -> Description | None:
    """ "a red circle and a square"."""
    for joiner in JOINERS:
        first, _, second = text.partition(joiner)
        if first in _phrases() and second in _phrases():
            return Description((_phrases()[first], _phrases()[second]))
    return None


def _position(text: str) -> Description | None:
    """ "a circle left of a square"."""
    for first, relation, second in _related(text):
        if second in _phrases():
            return Description((first, _phrases()[second]), ((0, relation, 1),))
    return None


def _dense(text: str) -> Description | None:
    """ "A left of B, and C below D", or "..., and C below the circle" where B is a circle."""
    left, _, right = text.partition(FIRST_THEN_SECOND)
    start = _position(left)
    if start is None:
        return None
    one, other = start.slots
    for third, relation, last in _related(right):
        if last in _phrases():
            slots = (one, other, third, _phrases()[last])
            return Description(slots, (*start.relations, (2, relation, 3)))
        if last == f"the {other.shape}" and other.shape not in (one.shape, third.shape):  # else: which one?
            return Description((one, other, third), (*start.relations, (2, relation, 1)))
    return None


def _related(text: str) -> Iterator[tuple[Slot, str, str]]:
    """Ways to read ``text`` as a phrase, a relation and something else."""
    for relation, wordings in RELATION_WORDS.items():
        for wording in wordings:
            first, found, rest = text.partition(f" {wording} ")
            if found and first in _phrases():
                yield _phrases()[first], relation, rest


@cache
def _all_slots() -> tuple[Slot, ...]:
    return tuple(Slot(*look) for look in product(SHAPES, (None, *COLOURS), (None, *SIZES)))


@cache
def _phrases() -> dict[str, Slot]:
    return {phrase(slot): slot for slot in _all_slots()}


@cache
def _plurals() -> dict[str, Slot]:
    return {plural(slot): slot for slot in _all_slots()}


# ------------------------------------------------------------------------------------------- instructions, written


def write(edits: Sequence[Edit], rng: random.Random) -> str:
    """An instruction for the edits, in one of many wordings."""
    return rng.choice(COURTESIES) + rng.choice(STEPS).join(_write_one(edit, rng) for edit in edits)


def _write_one(edit: Edit, rng: random.Random) -> str:
    fields = {"target": the(edit.target)}
    if edit.kind == "add":
        fields = {"thing": phrase(edit.target)}
    if edit.kind == "recolour":
        fields["colour"] = edit.value or ""
    elif edit.kind == "replace":
        fields["shape"] = with_article(edit.value or "")
    elif edit.anchor:
        fields |= {"relation": rng.choice(RELATION_WORDS[edit.value or ""]), "anchor": the(edit.anchor)}
    elif edit.value:
        fields["side"] = rng.choice(SIDE_WORDS[edit.value])
    fitting = [w for w in WORDINGS[edit.kind] if set(re.findall(r"{(\w+)}", w)) == set(fields)]
    return rng.choice(fitting).format(**fields)


def the(slot: Slot) -> str:
    """ "the small red circle", "the red object"."""
    return f"the {name(slot)}"


# ---------------------------------------------------------------------------------------------- instructions, read


def parse_instruction(text: str) -> tuple[Edit, ...] | None:
    """The edits of an instruction in the world's words, else ``None``.

    Case, spaces, a full stop and American spelling do not matter.
    """
    plain = " ".join(text.lower().replace("color", "colour").split()).rstrip(" .!")
    for courtesy in COURTESIES[1:]:
        plain = plain.removeprefix(courtesy)
    edits = [_parse_one(part) for part in re.split(r",? and then |, then |,? and ", plain)]
    return tuple(edit for edit in edits if edit) if all(edits) else None


def _parse_one(text: str) -> Edit | None:
    return next(_readings(text), None)


def _readings(text: str) -> Iterator[Edit]:
    for kind, pattern in _patterns():
        if found := pattern.fullmatch(text):
            edit = _read(kind, found.groupdict())
            if edit:
                yield edit


def _read(kind: str, said: dict[str, str]) -> Edit | None:
    """One edit from the words that a pattern found; ``None`` if an object is not named at all."""
    target = _slot(said.get("target") or said["thing"])
    anchor = _slot(said["anchor"]) if "anchor" in said else None
    if target == Slot() or anchor == Slot():
        return None
    value = said.get("colour") or said.get("shape", "").split(" ")[-1] or None
    for word, table in (("relation", RELATION_WORDS), ("side", SIDE_WORDS)):
        if word in said:
            value = next(key for key, words in table.items() if said[word] in words)
    return Edit(kind, target, value, anchor)


def _slot(words: str) -> Slot:
    said = words.split(" ")
    shape, colour, size = (next((w for w in said if w in known), None) for known in (SHAPES, COLOURS, SIZES))
    return Slot(shape, colour, size)


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((kind, _pattern(wording)) for kind, wordings in WORDINGS.items() for wording in wordings)


def _pattern(wording: str) -> re.Pattern[str]:
    named = rf"the (?:{_any(SIZES)} )?(?:{_any(COLOURS)} )?{_any((*SHAPES, 'object'))}"
    grammar = {
        "target": named,
        "anchor": named,
        "thing": rf"an? (?:{_any(SIZES)} )?{_any(COLOURS)} {_any(SHAPES)}",
        "shape": rf"an? {_any(SHAPES)}",
        "colour": _any(COLOURS),
        "relation": _any(word for words in RELATION_WORDS.values() for word in words),
        "side": _any(word for words in SIDE_WORDS.values() for word in words),
    }
    return re.compile(wording.format(**{key: f"(?P<{key}>{form})" for key, form in grammar.items()}))


def _any(words) -> str:
    return f"(?:{'|'.join(words)})"
