"""GenEval as a benchmark: its folder layout, its scorer, and its result file for the original's summary script."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from janus_r1.errors import UserError
from janus_r1.eval.benchmark import Benchmark, Item, Shot, Survey, save_png
from janus_r1.eval.benchmark_score import Outcome, failed, kind_of
from janus_r1.eval.geneval import (
    IMAGES_PER_PROMPT,
    RULES,
    Rules,
    fault_of_row,
    judge,
    keep,
    needs_color,
    prompts,
    summary,
)
from janus_r1.eval.records import Row
from janus_r1.eval.statistics import Figure, Rows
from janus_r1.files import write_text
from janus_r1.reading import read_json

if TYPE_CHECKING:  # torch only where it is needed
    from janus_r1.eval.geneval_detector import ColorClassifier, Detector, Found

METADATA = "metadata.jsonl"
DETECTOR = "facebook/mask2former-swin-small-coco-instance"
CLIP = "openai/clip-vit-large-patch14"


class GenEval(Benchmark):
    """``<number>/metadata.jsonl`` beside ``<number>/samples/<number>.png``."""

    name, title, images, binary = "geneval", "GenEval", IMAGES_PER_PROMPT, True

    def __init__(self) -> None:
        self._items = [_item(f"{number:05}", row) for number, row in enumerate(prompts())]

    def write(self, folder: Path, item: Item, images: Sequence[np.ndarray]) -> None:
        own = folder / item.id
        write_text(own / METADATA, json.dumps(item.data["row"]))
        for index, image in enumerate(images):
            save_png(own / "samples" / f"{index:05}.png", image)

    def survey(self, folder: Path) -> Survey:
        """An item's id is the number of the published row that its metadata equals, wherever it lies; a row that is
        none of them is scored, too, and told of."""
        shots: list[Shot] = []
        complaints: list[str] = []
        for own in sorted(folder.iterdir()):
            if not own.is_dir() or own.name.startswith("."):
                continue
            if not (own.name.isascii() and own.name.isdigit()):
                complaints.append(f"{own.name}: not scored, since the folder's name is not a number")
                continue
            try:
                item, notes = _read_item(own)
                files, strange = _samples(own)
            except UserError as error:
                complaints.append(f"{own.name}: not scored: {error}")
                continue
            complaints += [f"{own.name}{line}" for line in (*notes, *strange)]
            shots += [Shot(item, index, f"{own.name}/samples/{name}") for index, name in enumerate(files)]
        if not shots and not complaints:
            raise UserError(
                f"{folder} is no GenEval folder: it holds folders such as 00000/ with {METADATA} and samples/"
            )
        return Survey(shots, complaints)

    def overall(self, values: np.ndarray, prompts: np.ndarray, groups: np.ndarray) -> Figure:
        """The unweighted mean of the tags' means."""
        return Rows(prompts, groups).overall(values)

    def extras(self, rows: Sequence[Row]) -> dict[str, Any]:
        """The published summary's other figures."""
        found = summary(official_rows(rows))
        return {"correct images": found.correct_images, "prompts with a correct image": found.correct_prompts}


def _item(number: str, row: Mapping[str, Any]) -> Item:
    return Item(number, row["prompt"], row["tag"], {"row": row})


def _read_item(own: Path) -> tuple[Item, list[str]]:
    row = read_json(own / METADATA)
    if fault := fault_of_row(row):
        raise UserError(f"its {METADATA} {fault}")
    number = _published().get(_canonical(row))
    if number is None:
        own_id = "own-" + hashlib.sha256(_canonical(row).encode()).hexdigest()[:12]
        return _item(own_id, row), [f": its {METADATA} is none of the 553 published rows"]
    return _item(number, row), []


def _published() -> dict[str, str]:
    return {_canonical(row): f"{number:05}" for number, row in enumerate(prompts())}


def _canonical(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True)


def _samples(own: Path) -> tuple[list[str], list[str]]:
    """File names in the order of their numbers, and lines about the others."""
    folder = own / "samples"
    if not folder.is_dir():
        raise UserError("it has no folder samples/")
    names, strange = [], []
    for path in sorted(folder.iterdir()):
        if path.is_file() and re.fullmatch(r"[0-9]+\.png", path.name):
            names.append(path.name)
        elif not path.name.startswith("."):
            strange.append(f"/samples/{path.name}: not scored, since its name is not a number and .png")
    if not names:
        strange.append("/samples: holds no image")
    return sorted(names, key=lambda name: (int(name[:-4]), name)), strange


# ----------------------------------------------------------------------------------------- score


class GenEvalScorer:
    """``colors`` may be missing: rows that ask for a color then fail with ``no_colors``, and the others are scored."""

    def __init__(
        self,
        detector: Detector,
        colors: ColorClassifier | None,
        record: Mapping[str, Any],
        batch: int = 8,
        rules: Rules = RULES,
        no_colors: str = "",
    ) -> None:
        if detector.least > min(rules.threshold, rules.counting_threshold):
            raise ValueError("the detector must tell everything that the rules may keep")
        self.detector, self.colors, self.batch = detector, colors, batch
        self.rules, self.no_colors = rules, no_colors
        self.record: Mapping[str, Any] = {**record, "rules": asdict(rules)}

    def score(self, shots: Sequence[tuple[Item, np.ndarray]]) -> list[Outcome]:
        rows = [item.data["row"] for item, _ in shots]
        seen = self.see([pixels for _, pixels in shots], rows)
        return [_outcome(row, one, self.rules) for row, one in zip(rows, seen, strict=True)]

    def see(self, images: Sequence[np.ndarray], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, list] | str]:
        """What :func:`judge` reads of every image (uint8 [H, W, 3]), or why it cannot be had.

        Only the colors that its row asks for are looked at; others are null.
        """
        kept = [
            _kept(found, row["tag"], self.rules) for found, row in zip(self.detector.find(images), rows, strict=True)
        ]
        detections: list[dict[str, list] | str] = []
        asked: list[tuple[np.ndarray, Found]] = []
        blanks: list[dict[str, Any]] = []
        for image, row, mine in zip(images, rows, kept, strict=True):
            told = {name: [_told(one) for one in group] for name, group in mine.items()}
            wanted = [(name, i) for name, n in needs_color(row).items() for i in range(min(n, len(mine.get(name, []))))]
            if needs_color(row) and self.colors is None:
                detections.append(f"not measured: {self.no_colors}")
                continue
            asked += [(image, mine[name][i]) for name, i in wanted]
            blanks += [told[name][i] for name, i in wanted]
            detections.append(told)
        for blank, color in zip(blanks, self.colors.classify(asked) if self.colors else [], strict=True):
            blank["color"] = color
        return detections


def geneval_scorer(detector: str, clip: str, device: str, batch: int, download: bool) -> GenEvalScorer:
    """Without CLIP's weights, rows that ask for no color are scored all the same."""
    from transformers import AutoTokenizer, CLIPModel, Mask2FormerForUniversalSegmentation

    from janus_r1.eval.geneval_detector import ColorClassifier, Detector
    from janus_r1.eval.weights import NotHere, load_model, revision, weights_folder

    eyes = weights_folder(detector, download)
    record: dict[str, Any] = {"judge": detector, "revision": revision(eyes), "colors": clip, "device": kind_of(device)}
    found = Detector(load_model(Mask2FormerForUniversalSegmentation, eyes).to(device))
    try:
        folder = weights_folder(clip, download)
    except NotHere as error:
        return GenEvalScorer(found, None, {**record, "colors_revision": None}, batch, no_colors=str(error))
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    colors = ColorClassifier(load_model(CLIPModel, folder).to(device), tokenizer)
    return GenEvalScorer(found, colors, {**record, "colors_revision": revision(folder)}, batch)


def _kept(found: Sequence[Found], tag: str, rules: Rules) -> dict[str, list[Found]]:
    """By class, best first."""
    kept = {}
    for name in dict.fromkeys(one.name for one in found):
        mine = [one for one in found if one.name == name]
        order = keep(np.array([one.score for one in mine]), np.array([one.box for one in mine]), tag, rules)
        if order:
            kept[name] = [mine[i] for i in order]
    return kept


def _told(one: Found) -> dict[str, Any]:
    return {"box": [*one.box.tolist(), float(one.score)], "color": None}


def _outcome(row: Mapping[str, Any], seen: dict[str, list] | str, rules: Rules) -> Outcome:
    if isinstance(seen, str):
        return failed(seen)
    correct, reason = judge(row, seen, rules)
    return Outcome(float(correct), {"reason": reason, "row": row, "detections": seen})


# ---------------------------------------------------------------------------------------- result


def write_official(path: Path, rows: Iterable[Row]) -> None:
    """The last row about every image as the original's result file.

    Raises:
        UserError: for rows that are not whole.
    """
    latest = {(row["arm"], row["file"]): row for row in rows}
    try:
        lines = [json.dumps(row) + "\n" for row in official_rows(latest.values())]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the score rows are not whole: {error!r:.80}") from None
    write_text(path, "".join(lines))


def official_rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Score rows as the original's result file has them, so that its own summary script reads them."""
    return [
        {
            "filename": f"{row['arm']}/{row['file']}".lstrip("/"),
            "tag": row["group"],
            "prompt": row["prompt"],
            "correct": row["value"] == 1,
            "reason": row["detail"]["reason"],
            "metadata": json.dumps(row["detail"]["row"]),
            "details": json.dumps(
                {name: [one["box"] for one in found] for name, found in row["detail"]["detections"].items()}
            ),
        }
        for row in rows
        if "value" in row
    ]
