"""What a model's looking and mending is worth: true reasons, right marks, repairs that mend and keep.

Only chains and pixels are read, so all of it is the same for every format: a reason in the paper's words is true if the
verifier says the same.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import hypot

from janus_r1.chain import Chain, Round
from janus_r1.worlds.base import Check, Observations
from janus_r1.worlds.shapes.edits import CannotEdit, meant
from janus_r1.worlds.shapes.findings import NOTHING, Entry, entries, mend, parse_repairs
from janus_r1.worlds.shapes.repairs import Objects, as_scene, as_seen, assign, repairs
from janus_r1.worlds.shapes.scene import Description
from janus_r1.worlds.shapes.verifier import Seen, check, find_objects, purity

STAYED = 4.0  # pixels that the centre of an object may have moved and still be where it was
LISTED = re.compile(r"([a-z ]+)(@\w+)?: ([a-z ]+) (Yes|No)(?=,|$)")


@dataclass(frozen=True)
class Look:
    """A draft, what the verifier sees in it and what the model said of it."""

    round: Round
    objects: list[Seen]
    found: Check

    @staticmethod
    def of(item: Round, description: Description) -> Look:
        objects = find_objects(item.pixels)
        return Look(item, objects, check(objects, description))


NAMES = {
    "reasons": ("true", "instruction"),
    "claims": ("accuracy",),
    "repair": ("fixed", "improved", "worse", "kept"),
    "final": ("pure",),
}
PURE = 0.9  # of an object's inner pixels, to be of one colour


def observations(chains: Sequence[Chain], descriptions: Sequence[Description]) -> Observations:
    """``reasons`` and ``claims`` of first drafts, ``repair`` of all that followed a No; the chain's number with each.

    reasons: ``true`` names a fact that fails, ``instruction`` does so by what it asks for. claims: ``accuracy`` of the
    marks. repair: of wrong drafts ``fixed``, ``improved`` and made ``worse``, and ``kept`` of what had been right.
    final: of right final drafts those that are ``pure``, each of their objects of one colour.
    """
    seen: dict[str, dict[str, list[tuple[int, float]]]]
    seen = {group: {name: [] for name in names} for group, names in NAMES.items()}
    for number, (chain, description) in enumerate(zip(chains, descriptions, strict=True)):
        looks = [Look.of(item, description) for item in chain.rounds]
        first = looks[0]
        if not first.round.verdict.accepted:
            seen["reasons"]["true"].append((number, reason_is_true(first, description)))
            seen["reasons"]["instruction"].append(
                (number, instruction_mends(first.objects, description, first.round.verdict.instruction))
            )
        seen["claims"]["accuracy"] += [(number, right) for right in marks_right(first, description)]
        if looks[chain.final].found.correct:
            seen["final"]["pure"].append((number, purity(chain.rounds[chain.final].pixels) >= PURE))
        for before, after in pairwise(looks):
            if before.round.verdict.accepted:
                continue
            parent = before if after.round.repairs is None else looks[after.round.repairs]
            if not parent.found.correct:
                change = len(after.found.failed) - len(parent.found.failed)
                seen["repair"]["fixed"].append((number, after.found.correct))
                seen["repair"]["improved"].append((number, change < 0))
                seen["repair"]["worse"].append((number, change > 0))
            seen["repair"]["kept"] += [(number, kept) for kept in objects_kept(parent, after, description)]
    return seen


def reason_is_true(look: Look, description: Description) -> bool:
    """Whether a No names a fact that fails: its reason, its instruction by what it mends, or a mark in its list."""
    said = look.round.verdict
    if said.reason in look.found.failed or instruction_mends(look.objects, description, said.instruction):
        return True
    facts = [fact(entry) for entry in listed(said.listing)]
    return any(fact(entry) in facts for entry in entries(look.objects, description) if not entry.true)


def instruction_mends(objects: Objects, description: Description, instruction: str) -> bool:
    """Whether the picture would need fewer repairs, or fail fewer facts, if the instruction were followed exactly."""
    wanted = parse_repairs(instruction)
    if not wanted:
        return False
    known = [item if item.shape else Seen("", item.colour, item.size, item.centre) for item in objects]
    try:
        after = as_seen(mend(as_scene(known, "black"), wanted, random.Random(0)))
    except CannotEdit:
        return False
    fewer_facts = len(check(after, description).failed) < len(check(list(objects), description).failed)
    return fewer_facts or len(repairs(after, description)) < len(repairs(objects, description))


def listed(listing: str) -> list[Entry]:
    """What a list says: "small red ring @4C: red ring Yes"; lists of older models give no places."""
    found = LISTED.findall(listing)
    return [Entry(seen.strip(), wanted.strip(), word == "Yes", place) for seen, place, wanted, word in found]


def fact(entry: Entry) -> tuple[str, bool]:
    """What an entry claims of the picture: that this is seen and right or wrong, or that something is missing."""
    return (f"no {entry.wanted}" if entry.seen == NOTHING else entry.seen, entry.true)


def marks_right(look: Look, description: Description) -> list[bool]:
    """For each claim about the picture whether it is listed as it is and marked rightly. Empty without a list."""
    if not look.round.verdict.listing:
        return []
    said = [fact(entry) for entry in listed(look.round.verdict.listing)]
    right = []
    for claim in map(fact, entries(look.objects, description)):
        right.append(claim in said)
        if claim in said:
            said.remove(claim)
    return right


def marks_wanted(objects: Objects, description: Description, listing: str) -> list[bool | None]:
    """For every mark of a list whether it should be Yes; None where what is listed is not there."""
    truth = [fact(entry) for entry in entries(objects, description)]
    wanted: list[bool | None] = []
    for entry in listed(listing):
        what, _ = fact(entry)
        true = next((one for one in truth if one[0] == what), None)
        wanted.append(None if true is None else true[1])
        if true is not None:
            truth.remove(true)
    return wanted


def objects_kept(before: Look, after: Look, description: Description) -> list[bool]:
    """For each object that was right, and that the instruction does not mean, whether it is still there as it was."""
    wanted = parse_repairs(before.round.verdict.instruction)
    touched = [edit.target for repair in wanted for edit in repair.edits if edit.kind != "add"]
    kept = []
    for slot, index in zip(description.slots, assign(before.objects, description), strict=True):
        item = None if index is None else before.objects[index]
        if item is None or not meant(slot, item) or any(meant(target, item) for target in touched):
            continue
        kept.append(any(_same(item, other) for other in after.objects))
    return kept


def _same(one: Seen, other: Seen) -> bool:
    looks_alike = (one.shape, one.colour, one.size) == (other.shape, other.colour, other.size)
    return looks_alike and hypot(one.centre[0] - other.centre[0], one.centre[1] - other.centre[1]) <= STAYED
