"""The exact check of an edit: two pictures and the edits asked for -> what holds, and why not.

Like ``verifier`` it is plain and reads pixels only. The source's objects, with the edits made on paper, say
what the result must hold. Objects found in the result are assigned to these so that most facts hold.
Facts about the objects that the edits name count as *following*, all other facts as *preserving*.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import hypot

import numpy as np

from janus_r1.worlds.base import Check, claims
from janus_r1.worlds.shapes.edits import CannotEdit, Edit, locate, stands
from janus_r1.worlds.shapes.scene import Slot, name, with_article
from janus_r1.worlds.shapes.verifier import Seen, View, look

PLACE_TOLERANCE = 3.0  # pixels that a centre may be off; the lattice of places has 4
BACKGROUND_TOLERANCE = 30.0  # RGB distance; the closest two backgrounds are 63 apart
MAX_SEEN = 6  # a source with more objects is no scene of this world
MAX_OPTIONS = 3  # likeliest objects that are tried for each one wanted


def verify_edit(source: np.ndarray, result: np.ndarray, edits: Sequence[Edit]) -> Check:
    """Judge uint8 [64, 64, 3] ``result`` as the edited ``source``.

    Raises:
        CannotEdit: if the edits do not fit the source, so that no result could be right: an object meant is
            not there or is one of several. This says nothing about the result.
    """
    return check_edit(look(source), look(result), edits)


def check_edit(source: View, result: View, edits: Sequence[Edit]) -> Check:
    """As :func:`verify_edit`, of pictures already looked at.

    Raises:
        CannotEdit: as :func:`verify_edit`.
    """
    plan = make_plan(source.objects, edits)
    findings = min((_compare(plan, result.objects, chosen) for chosen in _assignments(plan, result.objects)), key=len)
    if float(np.linalg.norm(source.background - result.background)) > BACKGROUND_TOLERANCE:
        findings.preserving.append("the background has changed")
    edited = sum(w.facts for w in plan.wanted if w.edited) + len(plan.removed)
    kept = sum(w.facts for w in plan.wanted if not w.edited) + 2  # nothing new, the same background
    preserving = Check(claims(kept, findings.preserving), "everything else is unchanged")
    praise = "the edit is made and everything else is unchanged"
    return Check(claims(edited, findings.following), praise, preserving)


# ------------------------------------------------------------------------------- what is to be there


@dataclass(eq=False)
class Wanted:
    """An object of the result. An attribute that is ``None`` is open; ``was`` names it in the source.

    ``centre`` is the place it keeps; a moved or added object has ``where`` and perhaps ``anchor`` instead.
    """

    shape: str | None
    colour: str
    size: str | None
    centre: tuple[float, float] | None
    was: str = ""
    where: str | None = None
    anchor: Wanted | None = None
    edited: bool = False

    @property
    def facts(self) -> int:
        return sum(value is not None for value in (self.shape, self.colour, self.size, self.centre or self.where))

    def __str__(self) -> str:
        return f"{self.colour} {self.shape or 'blob'}"


@dataclass(frozen=True)
class Plan:
    wanted: list[Wanted]
    removed: list[Wanted]


def make_plan(objects: Sequence[Seen], edits: Sequence[Edit]) -> Plan:
    """The source's objects with the edits made in turn.

    Raises:
        CannotEdit: if a step means no object or several, or if the source has more than ``MAX_SEEN``.
    """
    if len(objects) > MAX_SEEN:
        raise CannotEdit(f"the picture has {len(objects)} objects; edits of {MAX_SEEN} at most can be checked")
    plan = Plan([Wanted(o.shape, o.colour, o.size, o.centre, was=str(o)) for o in objects], [])
    for edit in edits:
        _plan_one(plan, edit)
    return plan


def _plan_one(plan: Plan, edit: Edit) -> None:
    anchor = _meant(plan, edit.anchor) if edit.anchor else None
    if edit.kind == "add":
        thing = edit.target
        new = Wanted(thing.shape, thing.colour or "", thing.size, None, name(thing), edit.value, anchor, edited=True)
        plan.wanted.append(new)
        return
    item = _meant(plan, edit.target)
    item.edited = True
    if edit.kind == "recolour":
        item.colour = edit.value or ""
    elif edit.kind == "replace":
        item.shape = edit.value
    elif edit.kind == "move":
        item.centre, item.where, item.anchor = None, edit.value, anchor
    else:
        plan.wanted.remove(item)
        if item.centre:  # not one that an earlier step added or moved
            plan.removed.append(item)


def _meant(plan: Plan, slot: Slot) -> Wanted:
    return plan.wanted[locate(plan.wanted, slot)]


# ----------------------------------------------------------------------------------- what is there


@dataclass
class Findings:
    """Failed facts, in words."""

    following: list[str] = field(default_factory=list)
    preserving: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.following) + len(self.preserving)


Chosen = tuple[Seen | None, ...]  # for each one wanted


def _assignments(plan: Plan, found: Sequence[Seen]) -> Iterator[Chosen]:
    """Every way to take a different object, or none, for each one wanted; the likeliest first.

    Where as many facts fail either way, what stands in the place is likelier than what looks right elsewhere.
    """
    options = []
    for wanted in plan.wanted:
        fitting = [i for i, item in enumerate(found) if _may_be(wanted, item)]
        fitting.sort(key=lambda i: (len(_failures(wanted, found[i])), _distance(wanted.centre, found[i].centre)))
        options.append([*fitting[:MAX_OPTIONS], None])
    for chosen in product(*options):
        taken = [i for i in chosen if i is not None]
        if len(set(taken)) == len(taken):
            yield tuple(None if i is None else found[i] for i in chosen)


def _may_be(wanted: Wanted, item: Seen) -> bool:
    """An object is known again by its place or by its look; a moved or new one by half of its look."""
    same = (item.shape == wanted.shape, item.colour == wanted.colour)
    if wanted.centre is None:
        return any(same)
    return all(same) or _distance(wanted.centre, item.centre) <= PLACE_TOLERANCE


def _distance(kept: tuple[float, float] | None, centre: tuple[float, float]) -> float:
    """Pixels from the place to keep; 0 where none is."""
    return hypot(kept[0] - centre[0], kept[1] - centre[1]) if kept else 0.0


def _compare(plan: Plan, found: Sequence[Seen], chosen: Chosen) -> Findings:
    findings = Findings()
    for wanted, item in zip(plan.wanted, chosen, strict=True):
        failures = (
            _missing(wanted) if item is None else _failures(wanted, item) + _misplaced(wanted, item, plan, chosen)
        )
        (findings.following if wanted.edited else findings.preserving).extend(failures)
    taken = {id(item) for item in chosen}
    for item in found:
        if id(item) not in taken:
            _unwanted(item, plan.removed, findings)
    return findings


def _missing(wanted: Wanted) -> list[str]:
    reason = f"there is no {wanted}" if wanted.edited else f"the {wanted.was} has vanished"
    return [reason] * wanted.facts


def _failures(wanted: Wanted, item: Seen) -> list[str]:
    """Facts about one object by itself."""
    failures = []
    if wanted.shape is not None and item.shape != wanted.shape:
        failures.append(f"there is {with_article(str(item))} instead of {with_article(str(wanted))}")
    if item.colour != wanted.colour:
        failures.append(f"the {item.shape or wanted.shape or 'object'} is {item.colour}, not {wanted.colour}")
    if wanted.size is not None and item.size != wanted.size:
        failures.append(f"the {item} is {item.size}, not {wanted.size}")
    if wanted.centre is not None and _distance(wanted.centre, item.centre) > PLACE_TOLERANCE:
        failures.append(f"the {item} has left its place")
    return failures


def _misplaced(wanted: Wanted, item: Seen, plan: Plan, chosen: Chosen) -> list[str]:
    """Whether an object that was moved or added stands where it was asked for."""
    if wanted.where is None:
        return []
    if wanted.anchor is None:
        side = f"{'at' if wanted.where in ('top', 'bottom') else 'on'} the {wanted.where}"
        return [] if stands(wanted.where, item.centre, None) else [f"the {item} is not {side}"]
    other = _found_for(wanted.anchor, plan, chosen)
    if other and stands(wanted.where, item.centre, other):
        return []
    return [f"the {item} is not {wanted.where} the {wanted.anchor}"]


def _found_for(anchor: Wanted, plan: Plan, chosen: Chosen) -> tuple[float, float] | None:
    """Where the object is that another is told from: as found, else the place it should have kept."""
    pairs = zip(plan.wanted, chosen, strict=True)
    item = next((item for wanted, item in pairs if wanted is anchor), None)
    return item.centre if item else anchor.centre


def _unwanted(item: Seen, removed: list[Wanted], findings: Findings) -> None:
    """An object too many: one that should be gone, something else in its place, or anything new."""
    thing = with_article(str(item))
    for gone in removed:
        alike = (item.shape, item.colour) == (gone.shape, gone.colour)
        there = gone.centre is not None and _distance(gone.centre, item.centre) <= PLACE_TOLERANCE
        if alike or there:
            findings.following.append(
                f"the {gone} is still there" if alike else f"there is {thing} where the {gone} was"
            )
        if alike and there:
            return
    findings.preserving.append(f"{thing} has appeared")
