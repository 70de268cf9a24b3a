"""PIE-Bench as a benchmark: the editor's pictures under the sources' own names, and a scorer of seven measures.

The editor gets the 512 x 512 source and fits it to its own size; what it returns is brought to 512 x 512 (bicubic)
and compared there with the source itself. Overall figures are means over pictures, as the benchmark's are. There is no
headline: how much of the rest is kept and how far the instruction is followed pull against each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from janus_r1.chain import Task
from janus_r1.errors import UserError, first_line, require
from janus_r1.eval.benchmark import Benchmark, Item, Shot, Survey, save_png
from janus_r1.eval.benchmark_score import Outcome, failed
from janus_r1.eval.pie.folder import IMAGES, SIDE, Case, read_folder
from janus_r1.eval.pie.metrics import SCALES, Metrics, NotMeasured, Pair
from janus_r1.eval.protocol import in_turn
from janus_r1.layout import clean


class Pie(Benchmark):
    """``<image_path>`` as the mapping names it, the published script's layout; PNG inside, whatever the name says.

    Items are taken from the edit types in turn, so that any limit is balanced.

    Raises:
        UserError: if ``data`` is no PIE-Bench folder, or one of its pictures is missing.
    """

    name, title, images, binary, any_number = "pie", "PIE-Bench", 1, False, False
    measures = SCALES

    def __init__(self, data: Path | None) -> None:
        require(data is not None, "PIE-Bench needs --data, your copy: mapping_file.json beside annotation_images/")
        cases = in_turn(read_folder(str(data)), lambda case: case.kind)
        self._items = [Item(case.name, case.instruction, case.kind, {"case": case}) for case in cases]

    def items(self) -> list[Item]:
        return self._items

    def task(self, item: Item, text: str) -> Task:
        return Task(clean(text, "instruction", "change"), _case(item).picture())

    def write(self, folder: Path, item: Item, images: Sequence[np.ndarray]) -> None:
        save_png(folder / _case(item).image, images[0])

    def survey(self, folder: Path) -> Survey:
        """A picture may also end in .png, and all of them may lie in annotation_images/."""
        root = folder / IMAGES if (folder / IMAGES).is_dir() else folder
        shots: list[Shot] = []
        for item in self._items:
            name = Path(_case(item).image)
            if found := [one for one in (name, name.with_suffix(".png")) if (root / one).is_file()]:
                shots.append(Shot(item, 0, (root / found[0]).relative_to(folder).as_posix()))
        known = {shot.file for shot in shots}
        there = sorted(path.relative_to(folder).as_posix() for path in root.rglob("*") if path.is_file())
        strange = [f"{name}: not scored, since it is none of the benchmark's pictures" for name in there]
        complaints = [line for name, line in zip(there, strange, strict=True) if name not in known]
        if not shots:
            raise UserError(f"{folder} holds no edited pictures of PIE-Bench, such as {_case(self._items[0]).image}")
        return Survey(shots, complaints)


class PieScorer:
    """Every measure that can be had here. What cannot is told in ``record``, and so in the header of the scores."""

    def __init__(self, metrics: Metrics, record: dict[str, Any], batch: int) -> None:
        missing = {name: str(metric) for name, metric in metrics.items() if isinstance(metric, NotMeasured)}
        self.metrics = {name: metric for name, metric in metrics.items() if not isinstance(metric, NotMeasured)}
        self.record: Mapping[str, Any] = {**record, "not_measured": missing}
        self.batch = batch

    def score(self, shots: Sequence[tuple[Item, np.ndarray]]) -> list[Outcome]:
        return [self._outcome(_case(item), pixels) for item, pixels in shots]

    def _outcome(self, case: Case, pixels: np.ndarray) -> Outcome:
        height, width = pixels.shape[:2]
        if height != width:
            return failed(f"the picture is {width} x {height}: edited pictures are square")
        try:
            pair = Pair(case.picture(), at_512(pixels), case.edited(), case.target)
            return Outcome(None, measures={name: metric(pair) for name, metric in self.metrics.items()})
        except MemoryError:
            raise
        except Exception as error:  # whatever went wrong, this picture has no score, and a 0 would be a lie
            return failed(first_line(error))


def _case(item: Item) -> Case:
    case: Case = item.data["case"]
    return case


def at_512(image: np.ndarray) -> np.ndarray:
    """A square picture at the protocol's size (Pillow's bicubic); one of that size stays as it is."""
    if image.shape[:2] == (SIDE, SIDE):
        return image
    return np.array(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
