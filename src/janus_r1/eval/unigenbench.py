"""UniGenBench++ (CodeGoat24/UniGenBench, MIT): prompts with test points in 10 dimensions, each passed or not.

``--data`` names one of its CSV files (English or Chinese, short or long). The score is the share of test points that
pass; a judge is asked about one point at a time, in this project's words, so figures are named after the judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from janus_r1.errors import UserError
from janus_r1.eval.benchmark import Benchmark, Item, Survey, by_name, save_png
from janus_r1.eval.benchmark_score import Outcome, failed, means
from janus_r1.eval.records import Row
from janus_r1.eval.vlm_judge import Ask, VlmJudge, by_item, yes_or_no
from janus_r1.reading import parse_json, read_table
from janus_r1.rewards.score import Abstained

ASK = """\
Prompt of a generated image: {prompt}
Test point: {point}
What it means here: {description}
Does the image pass this test point? Reply with yes or no only."""


class UniGenBench(Benchmark):
    """``<prompt>_<image>.png`` in one folder, images from 0."""

    name, images, binary, scale = "unigenbench", 4, False, 100.0

    def __init__(self, data: Path | None, judge: str = "judge") -> None:
        if data is None:
            raise UserError("UniGenBench's prompts are not shipped: name one of its CSV files with --data")
        self.title = f"UniGenBench++-{judge} ({data.stem})"
        self._items = [_item(place, row) for place, row in read_table(data)]
        if len({item.id for item in self._items}) < len(self._items) or not self._items:
            raise UserError(f"{data} holds no prompt, or an index twice")

    def write(self, folder: Path, item: Item, images: Sequence[np.ndarray]) -> None:
        for index, image in enumerate(images):
            save_png(folder / f"{item.id}_{index}.png", image)

    def survey(self, folder: Path) -> Survey:
        return by_name(folder, self._items, r"([0-9]+)_([0-9]+)\.png", lambda m: (str(int(m[1])), int(m[2])))

    def units(self, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A value a test point; groups are the primary dimensions."""
        points = [
            (value, row["id"], name.split("-")[0].strip())
            for row in rows
            for name, value in zip(row["detail"]["points"], row["detail"]["passed"], strict=True)
        ]
        values, prompts, groups = zip(*points, strict=True)
        return np.array(values, dtype=np.float64), np.array(prompts), np.array(groups)

    def extras(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Every sub-dimension's share."""
        values, _, dimensions = self.units(rows)
        shares = [float(values[dimensions == name].mean()) for name in np.unique(dimensions)]
        found = means(rows, "points", "passed")
        return {"mean of the dimensions": float(np.mean(shares)), **{name: found[name] for name in sorted(found)}}


def _item(place: str, row: dict[str, str]) -> Item:
    found = {name: next((c for c in row if c.startswith(name)), None) for name in ("index", "prompt", "sub_dims")}
    if lacking := [name for name, column in found.items() if column is None]:
        raise UserError(f"{place}: no column begins with {lacking[0]}")
    prompt = row[str(found["prompt"])]
    told = parse_json(row[str(found["sub_dims"])], f"{place}, {found['sub_dims']}")
    keys = ("Testpoints", "Testpoint Description")
    points, descriptions = (told.get(key) if isinstance(told, dict) else None for key in keys)
    fits = isinstance(points, list) and isinstance(descriptions, list) and len(points) == len(descriptions) > 0
    texts = [*points, *descriptions] if isinstance(points, list) and isinstance(descriptions, list) else []
    if not fits or not row["index"].isdigit() or not all(isinstance(x, str) for x in texts):
        raise UserError(f"{place}: index must be a number, sub_dims test points with as many descriptions")
    return Item(str(int(row["index"])), prompt, "prompts", {"points": points, "descriptions": descriptions})


class UniGenScorer:
    def __init__(self, judge: VlmJudge, batch: int = 8) -> None:
        self.judge, self.batch = judge, batch
        self.record: Mapping[str, Any] = {
            **judge.record,
            "question": "one test point at a time, in this project's words",
        }

    def score(self, shots: Sequence[tuple[Item, np.ndarray]]) -> list[Outcome]:
        asks = [
            [
                Ask(pixels, ASK.format(prompt=item.prompt, point=point, description=description), 8)
                for point, description in zip(item.data["points"], item.data["descriptions"], strict=True)
            ]
            for item, pixels in shots
        ]
        said = by_item(self.judge.answer, asks)
        return [_outcome(item, own) for (item, _), own in zip(shots, said, strict=True)]


def _outcome(item: Item, said: Sequence[str | Abstained]) -> Outcome:
    passed = yes_or_no(said)
    if isinstance(passed, str):
        return failed(passed)
    return Outcome(sum(passed) / len(passed), {"points": item.data["points"], "passed": passed})
