"""From a prompt's text back to its description: the inverse of the wordings in ``prompts``.

Nothing is guessed: every phrase is looked up among all that ``prompts`` can write, and a text that is
not wholly made of them has no description. A scorer can thus trust what it gets.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product

from janus_r1.worlds.shapes.prompts import JOINERS, NUMBERS, OPENINGS, RELATION_WORDS, phrase, plural
from janus_r1.worlds.shapes.scene import COLOURS, SHAPES, SIZES, Description, Slot

FIRST_THEN_SECOND = ", and "  # between the two relations of a dense prompt


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
def _slots() -> tuple[Slot, ...]:
    return tuple(Slot(*look) for look in product(SHAPES, (None, *COLOURS), (None, *SIZES)))


@cache
def _phrases() -> dict[str, Slot]:
    return {phrase(slot): slot for slot in _slots()}


@cache
def _plurals() -> dict[str, Slot]:
    return {plural(slot): slot for slot in _slots()}
