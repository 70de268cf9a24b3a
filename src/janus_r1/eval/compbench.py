"""T2I-CompBench(++) (arXiv 2307.06350): one benchmark a category, with the rules that need no network.

Categories here: color, shape, texture (BLIP-VQA); spatial and numeracy, whose published detector is UniDet and ours is
one of transformers', so that they are called by its name; non_spatial (CLIP). ``--data`` names the file
``<category>_val.txt`` (MIT).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from janus_r1.errors import UserError, require
from janus_r1.eval.benchmark import Benchmark, Item, Shot, Survey, save_png
from janus_r1.reading import read_text

IMAGES = 10
ATTRIBUTES = ("color", "shape", "texture")
CATEGORIES = (*ATTRIBUTES, "spatial", "numeracy", "non_spatial")

PEOPLE = ("girl", "boy", "man", "woman")
NEAR = ("on side of", "next to", "near")
SIDES = {
    "on the left of": (-1, 0),
    "on the right of": (1, 0),
    "on the bottom of": (0, 1),
    "on the top of": (0, -1),
}
LOCALITIES = (*NEAR, *SIDES, "on top of")  # the last is looked for and, as published, never scores
NEAR_PIXELS, SIDE_IOU = 150.0, 0.1
NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}
ALIASES = {"ship": "boat", "telivision": "tv", "television": "tv", "goldfish": "fish", "painting": "picture"}
SAME_OBJECT = 0.9


class CompBench(Benchmark):
    """``samples/<prompt>_<6 digits>.png``; the prompt is what stands before the first "_", the digits sort images."""

    images, binary = IMAGES, False

    def __init__(self, category: str, data: Path | None, judge: str = "") -> None:
        require(category in CATEGORIES, f"unknown category {category!r}: choose {', '.join(CATEGORIES)}")
        if data is None:
            raise UserError(f"T2I-CompBench's prompts are not shipped: name your {category}_val.txt with --data")
        self.category, self.name = category, f"compbench-{category}"
        self.title = f"T2I-CompBench {category}" + (f" ({judge})" if judge else "")
        prompts = list(dict.fromkeys(line.strip() for line in read_text(data).splitlines() if line.strip()))
        if bad := next((p for p in prompts if "/" in p or "_" in p or len(p.encode()) > 240), None):
            raise UserError(f"{data}: {bad!r:.80} cannot be part of a file's name")
        require(bool(prompts), f"{data} holds no prompt")
        self._items = [Item(f"{number:04}", prompt, category) for number, prompt in enumerate(prompts)]

    def write(self, folder: Path, item: Item, images: Sequence[np.ndarray]) -> None:
        for index, image in enumerate(images):
            save_png(folder / "samples" / f"{item.prompt}_{int(item.id) * self.images + index:06}.png", image)

    def survey(self, folder: Path) -> Survey:
        own = folder / "samples"
        if not own.is_dir():
            raise UserError(f"{folder} holds no folder samples/")
        known = {item.prompt: item for item in self._items}
        found: dict[str, list[tuple[int, str]]] = {}
        complaints = []
        for path in own.iterdir():
            match = re.fullmatch(r"([^_]*)_([0-9]+)\.png", path.name)
            if match and match[1] in known and path.is_file():
                found.setdefault(match[1], []).append((int(match[2]), path.name))
            elif not path.name.startswith("."):
                complaints.append(f"samples/{path.name}: not scored, since it is not named <prompt>_<number>.png")
        shots = [
            Shot(known[prompt], index, f"samples/{name}")
            for prompt, files in sorted(found.items(), key=lambda pair: known[pair[0]].id)
            for index, (_, name) in enumerate(sorted(files))
        ]
        return Survey(shots, sorted(complaints))


# ----------------------------------------------------------------------------------- boxes, by hand


class Box(NamedTuple):
    """In pixels of an image that fits into about 480 x 480."""

    label: str
    score: float
    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def area(self) -> float:
        return max(self.x2 - self.x1, 0.0) * max(self.y2 - self.y1, 0.0)


def shared(first: Box, second: Box) -> float:
    """Area in common."""
    width = min(first.x2, second.x2) - max(first.x1, second.x1)
    height = min(first.y2, second.y2) - max(first.y1, second.y1)
    return max(width, 0.0) * max(height, 0.0)


def iou(first: Box, second: Box) -> float:
    common = shared(first, second)
    union = first.area + second.area - common
    return common / union if union else 0.0


def spatial_objects(nouns: Sequence[str]) -> tuple[str, str] | None:
    """The first and the last noun of a prompt; people are all "person"."""
    if len(nouns) < 2:
        return None
    first, last = (noun.lower() for noun in (nouns[0], nouns[-1]))
    return ("person" if first in PEOPLE else first), ("person" if last in PEOPLE else last)


def locality(prompt: str) -> str | None:
    """The first of :data:`LOCALITIES` that stands in the prompt."""
    return next((one for one in LOCALITIES if one in prompt), None)


def position_score(relation: str | None, first: Box, second: Box) -> float:
    """How well ``first`` lies to ``second``: 1 where it does; less where they overlap, or are not near."""
    across = (first.x1 + first.x2 - second.x1 - second.x2) / 2
    down = (first.y1 + first.y2 - second.y1 - second.y2) / 2
    if relation in NEAR:
        close = abs(across) < NEAR_PIXELS or abs(down) < NEAR_PIXELS
        return 1.0 if close else NEAR_PIXELS / max(abs(across), abs(down))
    if relation not in SIDES:
        return 0.0
    right, below = SIDES[relation]
    along, beside = (across * right, down) if right else (down * below, across)
    if along <= abs(beside):
        return 0.0
    overlap = iou(first, second)
    return 1.0 if overlap < SIDE_IOU else SIDE_IOU / overlap


def spatial_score(prompt: str, nouns: Sequence[str], boxes: Iterable[Box]) -> float | None:
    """A quarter of each object's confidence and half of their position; below 0.5 it is 0, so that a single object
    never scores. None for a prompt without two nouns."""
    pair = spatial_objects(nouns)
    if pair is None:
        return None
    ordered = sorted(boxes, key=lambda box: -box.score)
    first, second = (next((box for box in ordered if box.label == name), None) for name in pair)
    total = 0.25 * ((first.score if first else 0.0) + (second.score if second else 0.0))
    if first and second:
        total += 0.5 * position_score(locality(prompt), first, second)
    return total if total >= 0.5 else 0.0


def counted(prompt: str, labels: Iterable[str]) -> list[tuple[int, str]]:
    """Numbers and the names that follow them: "three dogs and a ship" -> [(3, "dog"), (1, "boat")]."""
    known = {form: label for label in (*labels, *PEOPLE, *ALIASES) for form in (label, *_plurals(label))}
    found = []
    pattern = rf"\b({'|'.join(NUMBERS)})\s+((?:(?!\b(?:and|{'|'.join(NUMBERS)})\b)[a-z' -])+)"
    for word, phrase in re.findall(pattern, prompt.lower()):
        words = phrase.split()
        spans = (" ".join(words[i:j]) for j in range(len(words), 0, -1) for i in range(j))
        plain = next((span for span in spans if span in known), None)
        name = known[plain] if plain else _singular(words[-1]) if words else None
        if name:
            found.append((NUMBERS[word], "person" if name in PEOPLE else ALIASES.get(name, name)))
    return found


def _plurals(label: str) -> list[str]:
    irregular = {"person": "people", "man": "men", "woman": "women", "child": "children", "knife": "knives"}
    irregular |= {"mouse": "mice", "goose": "geese", "sheep": "sheep", "fish": "fish"}
    return [irregular[label]] if label in irregular else [f"{label}s", f"{label}es", re.sub(r"y$", "ies", label)]


def _singular(word: str) -> str:
    for end, instead in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("xes", "x"), ("s", "")):
        if word.endswith(end) and not word.endswith("ss"):
            return word[: -len(end)] + instead
    return word


def distinct(boxes: Iterable[Box]) -> dict[str, int]:
    """How many objects of each label, once boxes with IoU or containment above 0.9 are taken for one."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box.score):
        same = (
            other.label == box.label
            and max(iou(box, other), shared(box, other) / max(min(box.area, other.area), 1e-9)) > SAME_OBJECT
            for other in kept
        )
        if not any(same):
            kept.append(box)
    return {label: sum(box.label == label for box in kept) for label in {box.label for box in kept}}


def numeracy_score(wanted: Sequence[tuple[int, str]], counts: Mapping[str, int]) -> float | None:
    """Half for an object's presence and half for its exact number, averaged over objects; None without objects."""
    scores = []
    for number, name in wanted:
        label = name if name in counts else next((label for label in counts if name in label), None)
        found = counts[label] if label is not None else 0
        scores.append(0.5 * (found > 0) + 0.5 * (found == number))
    return sum(scores) / len(scores) if scores else None
