"""DPG-Bench (ELLA, arXiv 2403.05135): long prompts, each with yes/no questions that depend on one another.

The published judge is mPLUG-large from ModelScope; any vision-language model takes its place here, so the figure is
called ``DPG-<judge>`` and its level is the judge's. ``official`` brings back two quirks of the published script: the
first line of the table of questions is passed over, and categories count only the last tile. ``--data`` names the
folder with ``prompts/`` and ``dpg_bench.csv`` (Apache-2.0).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from janus_r1.errors import UserError
from janus_r1.eval.benchmark import Benchmark, Item, Shot, Survey, save_png
from janus_r1.eval.benchmark_score import Outcome, failed, means
from janus_r1.eval.records import Row
from janus_r1.eval.vlm_judge import Ask, VlmJudge, by_item, yes_or_no
from janus_r1.reading import read_table, read_text
from janus_r1.rewards.score import Abstained

TABLE, PROMPTS = "dpg_bench.csv", "prompts"
TILES = 4
COLUMNS = ("item_id", "proposition_id", "dependency", "category_broad", "tuple", "question_natural_language")
ASK = "{question} Reply with yes or no only."


@dataclass(frozen=True)
class Question:
    number: int
    parents: tuple[int, ...]
    text: str
    broad: str
    """Its category: what stands before the first "-"."""


class Dpg(Benchmark):
    """``<item_id>.png``, a grid of 2 x 2 images in the order of reading. ``tiles``: how many of them count."""

    name, images, binary, scale = "dpg", TILES, False, 100.0
    any_number = False

    def __init__(self, data: Path | None, judge: str = "judge", tiles: int = TILES, official: bool = False) -> None:
        if data is None:
            raise UserError("DPG-Bench's questions are not shipped: name the folder with dpg_bench.csv by --data")
        self.title = f"DPG-{judge}" + (" (official quirks)" if official else "")
        self.official, self.images = official, tiles
        questions = read_questions(data / TABLE, official)
        files = sorted((data / PROMPTS).glob("*.txt"))
        if not files:
            raise UserError(f"no prompts in {data / PROMPTS}")
        self._items = [_item(path, questions.get(path.stem, ())) for path in files]

    def write(self, folder: Path, item: Item, images: Sequence[np.ndarray]) -> None:
        """Fewer than four images leave black tiles."""
        blank = np.zeros_like(images[0])
        four = [*images, *[blank] * (TILES - len(images))]
        save_png(folder / f"{item.id}.png", np.vstack([np.hstack(four[:2]), np.hstack(four[2:])]))

    def survey(self, folder: Path) -> Survey:
        """A file's prompt is its name up to the first dot."""
        known = {item.id: item for item in self._items}
        shots, complaints = [], []
        for path in sorted(folder.iterdir()):
            item = known.get(path.name.split(".")[0])
            if item is None or path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp") or not path.is_file():
                if not path.name.startswith((".", "scores-")):
                    complaints.append(f"{path.name}: not scored, since it is no image named after a prompt")
                continue
            shots += [Shot(item, tile, path.name, tile) for tile in range(self.images)]
        if not shots:
            raise UserError(f"no image in {folder} is named after a prompt, such as {self._items[0].id}.png")
        return Survey(shots, complaints)

    def pixels(self, folder: Path, shot: Shot, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[0] // 2, image.shape[1] // 2
        down, right = divmod(shot.tile or 0, 2)
        return image[down * height : (down + 1) * height, right * width : (right + 1) * width]

    def extras(self, rows: Sequence[Row]) -> dict[str, Any]:
        """By category, before zeros cascade: of all tiles, or of each prompt's last one in official mode."""
        last = {row["id"]: row for row in sorted(rows, key=lambda row: row["tile"])}
        return means(last.values() if self.official else rows, "categories", "answers")


def read_questions(path: Path, official: bool = False) -> dict[str, tuple[Question, ...]]:
    """By item, in the order of the file."""
    found: dict[str, list[Question]] = {}
    for number, (place, row) in enumerate(read_table(path)):
        if lacking := [name for name in COLUMNS if name not in row]:
            raise UserError(f"{path} lacks the column {lacking[0]}")
        if official and number == 0:
            continue
        try:
            own = int(row["proposition_id"])
            parents = tuple(int(part) for part in row["dependency"].split(",") if part.strip())
        except ValueError:
            raise UserError(f"{place}: proposition_id and dependency must be whole numbers") from None
        broad = row["category_broad"].split("-")[0].strip()
        found.setdefault(row["item_id"], []).append(Question(own, parents, row["question_natural_language"], broad))
    return {item: tuple(questions) for item, questions in found.items()}


def _item(path: Path, questions: Sequence[Question]) -> Item:
    source = re.match(r"[A-Za-z]+", path.stem)
    return Item(path.stem, read_text(path).strip(), source[0] if source else "numbered", {"questions": questions})


def tile_score(questions: Sequence[Question], answers: Sequence[float]) -> float:
    """Mean over questions; one whose parent has 0 *by now* gets 0, in the file's order, so that zeros cascade.

    Raises:
        KeyError: if a question depends on one that is not there.
    """
    scores = {question.number: answer for question, answer in zip(questions, answers, strict=True)}
    for question in questions:
        if any(parent != 0 and scores[parent] == 0 for parent in question.parents):
            scores[question.number] = 0.0
    return sum(scores.values()) / len(scores)


class DpgScorer:
    """A tile is a picture of its own; every question is asked."""

    def __init__(self, judge: VlmJudge, batch: int = 8, official: bool = False) -> None:
        self.judge, self.batch = judge, batch
        self.record: Mapping[str, Any] = {**judge.record, "question": ASK, "official": official}

    def score(self, shots: Sequence[tuple[Item, np.ndarray]]) -> list[Outcome]:
        asks = [[Ask(pixels, ASK.format(question=q.text), 8) for q in item.data["questions"]] for item, pixels in shots]
        said = by_item(self.judge.answer, asks)
        return [_outcome(item.data["questions"], own) for (item, _), own in zip(shots, said, strict=True)]


def _outcome(questions: Sequence[Question], said: Sequence[str | Abstained]) -> Outcome:
    if not questions:
        return failed("the table holds no question of this prompt")
    answers = yes_or_no(said)
    if isinstance(answers, str):
        return failed(answers)
    try:
        value = tile_score(questions, answers)
    except KeyError as error:
        return failed(f"a question depends on question {error}, which is not there")
    return Outcome(value, {"answers": answers, "categories": [question.broad for question in questions]})
