"""How edits are worded, and the way back: text -> edits.

Writing and parsing share one table, so what can be written can be parsed, and nothing else can.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from functools import cache

from janus_r1.worlds.shapes.edits import SIDES, Edit
from janus_r1.worlds.shapes.prompts import RELATION_WORDS, phrase
from janus_r1.worlds.shapes.scene import COLOURS, SHAPES, SIZES, Slot, with_article
from janus_r1.worlds.shapes.verify import name

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
JOINERS = (", then ", " and then ", " and ", ", and ")


# ------------------------------------------------------------------------------------------- writing


def write(edits: Sequence[Edit], rng: random.Random) -> str:
    """An instruction for the edits, in one of many wordings."""
    return rng.choice(COURTESIES) + rng.choice(JOINERS).join(_write_one(edit, rng) for edit in edits)


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


# ------------------------------------------------------------------------------------------- parsing


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
