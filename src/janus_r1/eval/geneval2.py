"""GenEval 2 with Soft-TIFA: how probable a judge finds the right answer to each atom of a prompt, in one word.

Its prompts are CC BY-NC 4.0, so they are not shipped: ``--data`` names the user's copy of ``geneval2_data.jsonl``.
The published sum counts a token twice that two spellings share (" 3" may begin with a blank of its own), so that a
"probability" can exceed 1; here a token counts once, and ``original_sums`` brings the published way back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from janus_r1.errors import UserError
from janus_r1.eval.benchmark import Benchmark, Item, Shot, Survey, save_png
from janus_r1.eval.benchmark_score import Outcome, failed, means
from janus_r1.eval.records import Row
from janus_r1.eval.vlm_judge import Ask, VlmJudge, by_item
from janus_r1.files import write_text
from janus_r1.reading import field, read_json_object, read_jsonl
from janus_r1.rewards.score import Abstained

PATHS = "image_paths.json"
DIGITS = {
    name: str(number)
    for number, name in enumerate(["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], 1)
}
ASK = "{question} Answer in one word."


class GenEval2(Benchmark):
    """One image a prompt, and a JSON object from prompts to image paths, as the published scorer reads it."""

    name, title, images, binary, scale = "geneval2", "GenEval 2 (Soft-TIFA GM)", 1, False, 100.0
    any_number = False

    def __init__(self, data: Path | None) -> None:
        if data is None:
            raise UserError("GenEval 2's prompts are not shipped (CC BY-NC): name your geneval2_data.jsonl with --data")
        self._items = [_item(place, number, row) for number, (place, row) in enumerate(read_jsonl(data))]
        if len({item.prompt for item in self._items}) < len(self._items) or not self._items:
            raise UserError(f"{data} holds no prompt, or one twice")

    def write(self, folder: Path, item: Item, images: Sequence[np.ndarray]) -> None:
        save_png(folder / f"{item.id}.png", images[0])
        if not (folder / PATHS).exists():
            paths = {one.prompt: f"{one.id}.png" for one in self._items}
            write_text(folder / PATHS, json.dumps(paths, ensure_ascii=False, indent=1))

    def survey(self, folder: Path) -> Survey:
        """Paths are relative to the folder and stay in it."""
        if not (folder / PATHS).is_file():
            raise UserError(f"no {PATHS} in {folder}: an object from prompts to the paths of their images")
        paths = read_json_object(folder / PATHS)
        shots, complaints = [], []
        for item in self._items:
            path = paths.pop(item.prompt, None)
            if not isinstance(path, str) or not _inside(folder, path):
                complaints.append(f"{PATHS}: no image in the folder for {item.prompt!r:.60}")
            else:
                shots.append(Shot(item, 0, path))
        complaints += [f"{PATHS}: {prompt!r:.60} is none of the prompts" for prompt in paths]
        return Survey(shots, complaints)

    def extras(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The arithmetic mean over prompts, each skill's mean over atoms, and the hard matches."""
        skills = {f"skill {name}": mean for name, mean in means(rows, "skills", "scores").items()}
        am = float(np.mean([np.mean(row["detail"]["scores"]) for row in rows]))
        hard = float(np.mean([np.mean(row["detail"]["hard"]) for row in rows]))
        return {"Soft-TIFA AM": am, "TIFA": hard, **skills}


def _item(place: str, number: int, row: Any) -> Item:
    pairs, skills = field(row, "vqa_list", list, place), field(row, "skills", list, place)
    atoms, prompt = field(row, "atom_count", int, place), field(row, "prompt", str, place)
    fits = all(isinstance(pair, list) and len(pair) == 2 and all(isinstance(x, str) for x in pair) for pair in pairs)
    if not pairs or not fits or len(skills) != len(pairs):
        raise UserError(f"{place}: vqa_list must hold [question, answer] pairs, one for each of skills")
    for question, answer in pairs:
        if question.startswith("How many") and answer.lower() not in DIGITS:
            raise UserError(f"{place}: the answer {answer!r} is no number from one to ten")
    return Item(f"{number:04}", prompt, f"{atoms} atoms", {"pairs": pairs, "skills": skills})


def _inside(folder: Path, path: str) -> bool:
    try:
        return (folder / path).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a NUL in the name, or links in a circle
        return False


def spellings(question: str, answer: str) -> tuple[str, ...]:
    """What counts as the right answer's first token."""
    if not question.startswith("How many"):
        return ("Yes", "yes", " yes", " Yes")
    word = answer.lower()
    return (word, word.capitalize(), f" {word}", f" {word.capitalize()}", DIGITS[word], f" {DIGITS[word]}")


class SoftTifa:
    """``original_sums``: add the spellings up as published, tokens they share twice."""

    def __init__(self, judge: VlmJudge, batch: int = 8, original_sums: bool = False) -> None:
        self.judge, self.batch, self.original_sums = judge, batch, original_sums
        self.record: Mapping[str, Any] = {**judge.record, "sums": "original" if original_sums else "de-duplicated"}

    def score(self, shots: Sequence[tuple[Item, np.ndarray]]) -> list[Outcome]:
        asks = [
            [Ask(pixels, ASK.format(question=pair[0]), 1, spellings(*pair)) for pair in item.data["pairs"]]
            for item, pixels in shots
        ]
        said = by_item(self.judge.first, asks)
        return [self._outcome(item, own) for (item, _), own in zip(shots, said, strict=True)]

    def _outcome(self, item: Item, answers: Sequence[Any]) -> Outcome:
        if lost := next((one for one in answers if isinstance(one, Abstained)), None):
            return failed(lost.why)
        scores = [one.total(once=not self.original_sums) for one in answers]
        hard = [
            one.best.strip().lower() in {word.strip().lower() for word in spellings(*pair)}
            for one, pair in zip(answers, item.data["pairs"], strict=True)
        ]
        detail = {"scores": scores, "hard": hard, "skills": item.data["skills"]}
        return Outcome(geometric_mean(scores), detail, most=6.0 if self.original_sums else 1.0)


def geometric_mean(scores: Sequence[float]) -> float:
    """0 if any score is 0."""
    return float(np.exp(np.mean(np.log(scores)))) if min(scores) > 0 else 0.0
