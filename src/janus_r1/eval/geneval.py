"""GenEval's rules (Ghosh et al., arXiv 2310.11513): from kept detections to a verdict, from verdicts to a score.

Pure functions; the detector is in geneval_detector.py. A metadata row says what must be seen::

    {"tag": "position", "prompt": "a photo of a dog right of a teddy bear",
     "include": [{"class": "teddy bear", "count": 1},
                 {"class": "dog", "count": 1, "position": ["right of", 0]}]}

Detections are a dict from class to a list of ``{"box": [x1, y1, x2, y2, score], "color": name or null}``, best first,
already thresholded for the row's tag (:func:`keep`). A detector's boxes are float32 and are reckoned with as such (only
numbers that float32 cannot hold are reckoned with in float64): a box on a margin must fall on the side it falls on in
the original.

Two functions at the end, ``flow_grpo_*``, are a reward that others train with under GenEval's name. It is another
measure: never report it as GenEval.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")
IMAGES_PER_PROMPT = 4

Metadata = Mapping[str, Any]
Detections = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Rules:
    """The scorer's options, the published ones by default. Figures with others are not GenEval's."""

    threshold: float = 0.3
    """A detection is kept if its score is greater."""
    counting_threshold: float = 0.9
    """The same for the tag ``counting``."""
    max_objects: int = 16
    """Of a class, the best ones."""
    max_overlap: float = 1.0
    """IoU from which a weaker detection of the same class is dropped; 1 drops none."""
    position_margin: float = 0.1
    """Share of both objects' sizes by which they must be apart."""


RULES = Rules()


@cache
def prompts() -> tuple[dict[str, Any], ...]:
    """The 553 metadata rows, in the published order (MIT, see geneval_LICENSE.txt)."""
    text = files("janus_r1.eval").joinpath("data/geneval_metadata.jsonl").read_text(encoding="utf-8")
    return tuple(json.loads(line) for line in text.splitlines())


@cache
def class_names() -> tuple[str, ...]:
    """The 80 classes in COCO's order; three are named otherwise than there ("computer mouse" for "mouse")."""
    text = files("janus_r1.eval").joinpath("data/geneval_object_names.txt").read_text(encoding="utf-8")
    return tuple(text.split("\n")[:80])


def fault_of_row(row: Any) -> str | None:
    """What is wrong with a metadata row that somebody wrote, or None."""
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        return "is not an object with a prompt"
    if row.get("tag") not in TAGS:
        return f"has an unknown tag {row.get('tag')!r}: the tags are {', '.join(TAGS)}"
    include, exclude = row.get("include"), row.get("exclude", [])
    if not isinstance(include, list) or not include or not isinstance(exclude, list):
        return "has no list of clauses under include"
    for index, clause in enumerate([*include, *exclude]):
        if fault := _fault_of_clause(clause, min(index, len(include))):
            return fault
    return None


def _fault_of_clause(clause: Any, earlier: int) -> str | None:
    """``earlier``: how many include clauses stand before, to which a position may point."""
    if not isinstance(clause, dict) or clause.get("class") not in class_names():
        return f"names a class that is none of the 80: {clause!r:.80}"
    count = clause.get("count")
    if type(count) is not int or count < 1:
        return f"has a count that is no positive whole number: {clause!r:.80}"
    if "color" in clause and clause["color"] not in COLORS:
        return f"names an unknown color: {clause!r:.80}"
    position = clause.get("position")
    if position is None:
        return None
    known = isinstance(position, list) and len(position) == 2 and position[0] in RELATIONS
    if not known or type(position[1]) is not int or not 0 <= position[1] < earlier:
        return f"has a position that is not [relation, index of an earlier clause]: {clause!r:.80}"
    return None


# ----------------------------------------------------------------------------------------- rules


def keep(scores: np.ndarray, boxes: np.ndarray, tag: str, rules: Rules = RULES) -> list[int]:
    """Which detections of one class count, best first: indices into ``scores`` [n] and ``boxes`` [n, 4], float32."""
    threshold = np.float32(rules.counting_threshold if tag == "counting" else rules.threshold)
    scores = np.asarray(scores, dtype=np.float32)
    order = np.argsort(scores, kind="stable")[::-1]  # of equal scores the later one comes first
    left = [int(i) for i in order if scores[i] > threshold][: rules.max_objects]
    if rules.max_overlap == 1:
        return left
    kept: list[int] = []
    for index in left:
        if all(_overlap(boxes[index], boxes[other]) < rules.max_overlap for other in kept):
            kept.append(index)
    return kept


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """IoU of boxes whose last pixel belongs to them (+1 a side)."""

    def area(box: np.ndarray) -> float:
        return float(np.prod(np.maximum(box[2:4] - box[:2] + 1, 0)))

    common = np.concatenate([np.maximum(first[:2], second[:2]), np.minimum(first[2:4], second[2:4])])
    shared = area(common)
    union = area(first) + area(second) - shared
    return shared / union if union else 0.0


def relations(box: Sequence[float], target: Sequence[float], margin: float = RULES.position_margin) -> list[str]:
    """Where ``box`` lies as seen from ``target``: none, one or two of :data:`RELATIONS`.

    The offset of the centres is shortened by ``margin`` x (size + size) on each axis; what is left must be more than
    half of the whole, unshortened distance.
    """
    given = np.array([box[:4], target[:4]], dtype=np.float64).reshape(2, 2, 2)
    single = given.astype(np.float32)
    corners = single if (single == given).all() else given
    (centre, target_centre), sizes = corners.mean(axis=1), np.abs(corners[:, 1] - corners[:, 0])
    offset = centre - target_centre
    apart = np.maximum(np.abs(offset) - margin * (sizes[0] + sizes[1]), 0) * np.sign(offset)
    if (np.abs(apart) < 1e-3).all():
        return []
    right, down = apart / np.linalg.norm(offset)
    holds = (right < -0.5, right > 0.5, down < -0.5, down > 0.5)
    return [relation for relation, true in zip(RELATIONS, holds, strict=True) if true]


def judge(metadata: Metadata, detections: Detections, rules: Rules = RULES) -> tuple[bool, str]:
    """Whether the picture fulfils its row, and the reasons why not, one a line.

    A color that is null is none of the ten, so it is not the wanted one.
    """
    reasons: list[str] = []
    groups: list[Sequence[Mapping[str, Any]] | None] = []
    for clause in metadata.get("include", []):
        chosen = detections.get(clause["class"], [])[: clause["count"]]
        reason = _fault(clause, chosen, groups, rules)
        groups.append(None if reason else chosen)
        if reason:
            reasons.append(reason)
    for clause in metadata.get("exclude", []):
        found = len(detections.get(clause["class"], []))
        if found >= clause["count"]:
            reasons.append(f"expected {clause['class']}<{clause['count']}, found {found}")
    return not reasons, "\n".join(reasons)


def _fault(
    clause: Metadata,
    chosen: Sequence[Mapping[str, Any]],
    groups: Sequence[Sequence[Mapping[str, Any]] | None],
    rules: Rules,
) -> str | None:
    """Why one include clause does not hold of its best detections; only the first fault is told."""
    name, count = clause["class"], clause["count"]
    if len(chosen) < count:
        return f"expected {name}>={count}, found {len(chosen)}"
    if "color" in clause:
        seen = [one["color"] for one in chosen]
        right = seen.count(clause["color"])
        if right < count:
            tally = ", ".join(f"{seen.count(color)} {color}" for color in COLORS if color in seen)
            return f"expected {clause['color']} {name}>={count}, found {right} {clause['color']}; and {tally}"
    if "position" not in clause:
        return None
    relation, index = clause["position"]
    target = groups[index]
    if target is None:
        return f"no target for {name} to be {relation}"
    for one in chosen:
        for other in target:
            found = relations(one["box"], other["box"], rules.position_margin)
            if relation not in found:
                return f"expected {name} {relation} target, found {' and '.join(found)} target"
    return None


def needs_color(metadata: Metadata) -> dict[str, int]:
    """Classes whose color is asked for, and of how many of their best detections."""
    wanted: dict[str, int] = {}
    for clause in metadata.get("include", []):
        if "color" in clause:
            wanted[clause["class"]] = max(wanted.get(clause["class"], 0), clause["count"])
    return wanted


# --------------------------------------------------------------------------------------- summary


@dataclass(frozen=True)
class Summary:
    """The figures of the published summary."""

    images: int
    prompts: int
    correct_images: float
    correct_prompts: float
    """Share of prompts with any correct image."""
    tags: dict[str, tuple[float, int, int]]
    """Share, correct images and images of every tag, in the order of appearance."""
    overall: float
    """Plain mean of the tags' shares: the GenEval score."""


def summary(rows: Sequence[Mapping[str, Any]]) -> Summary:
    """Of verdicts: ``tag``, ``correct``, and ``metadata`` (text), which says what is one prompt.

    Raises:
        ValueError: if there are none.
    """
    if not rows:
        raise ValueError("no verdicts to summarise")
    any_correct: dict[str, bool] = {}
    by_tag: dict[str, list[bool]] = {}
    for row in rows:
        any_correct[row["metadata"]] = any_correct.get(row["metadata"], False) or bool(row["correct"])
        by_tag.setdefault(row["tag"], []).append(bool(row["correct"]))
    tags = {tag: (sum(marks) / len(marks), sum(marks), len(marks)) for tag, marks in by_tag.items()}
    return Summary(
        images=len(rows),
        prompts=len(any_correct),
        correct_images=sum(bool(row["correct"]) for row in rows) / len(rows),
        correct_prompts=sum(any_correct.values()) / len(any_correct),
        tags=tags,
        overall=float(np.mean([share for share, _, _ in tags.values()])),
    )


# ------------------------------------------------------------- another measure: flow_grpo's reward


def flow_grpo_reward(metadata: Metadata, detections: Detections) -> tuple[bool, float]:
    """What flow_grpo and UniRL train with: (strictly correct, partial credit). Not GenEval.

    Every clause must hold of *exactly* its count, whatever the tag, and exclude clauses are passed over. The credit
    is the mean of 1 - |expected - found| / expected over counts and colors, with 0 for a color or position that could
    not be tested, and, for a position that was, a 1 beside the 0 of its first failure. It may be negative.
    """
    correct, credits = True, []
    groups: list[Sequence[Mapping[str, Any]] | None] = []
    for clause in metadata.get("include", []):
        found = detections.get(clause["class"], [])
        matched, earned = _flow_grpo_clause(clause, found, groups)
        correct &= matched
        credits += earned
        groups.append(found if matched else None)
    return correct, sum(credits) / len(credits) if credits else 0.0


def _flow_grpo_clause(
    clause: Metadata, found: Sequence[Mapping[str, Any]], groups: Sequence[Sequence[Mapping[str, Any]] | None]
) -> tuple[bool, list[float]]:
    count = clause["count"]
    credits = [1 - abs(count - len(found)) / count]
    if len(found) != count:
        return False, credits + [0.0] * ("color" in clause or "position" in clause)
    if "color" in clause:
        right = [one["color"] for one in found].count(clause["color"])
        credits.append(1 - abs(count - right) / count)
        if right != count:
            return False, credits
    if "position" not in clause:
        return True, credits
    relation, index = clause["position"]
    target = groups[index]
    if target is None:
        return False, [*credits, 0.0]
    holds = all(relation in relations(one["box"], other["box"]) for one in found for other in target)
    return holds, [*credits, *([] if holds else [0.0]), 1.0]
