"""PIE-Bench (Ju et al., arXiv 2310.01506): 700 pictures to edit, in ten types, with the edited region as a mask.

What is done is that benchmark's own protocol, deviations included, so that its published tables are comparable;
docs/editing.md says exactly what. The folder with the pictures is the user's own copy: ``mapping_file.json`` beside
``annotation_images/``, checked before slow work.

The editor gets the 512 x 512 source and fits it to its own size; what it returns is brought to 512 x 512 (bicubic)
and compared there with the source itself. Overall figures are means over pictures, as the benchmark's are. There is no
headline: how much of the rest is kept and how far the instruction is followed pull against each other. Outside the
edited region means what it means in the benchmark's code: both pictures are made black inside it, then compared whole.
A large edited region therefore raises PSNR and SSIM and lowers MSE and LPIPS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from janus_r1.chain import Task
from janus_r1.errors import UserError, first_line, require
from janus_r1.eval import similarity
from janus_r1.eval.benchmark import Benchmark, Item, Measure, Shot, Survey, save_png
from janus_r1.eval.benchmark_score import Outcome, failed
from janus_r1.eval.protocol import in_turn
from janus_r1.images import FORMATS, check_image, read_image
from janus_r1.layout import clean
from janus_r1.reading import read_json

MAPPING, IMAGES = "mapping_file.json", "annotation_images"
SIDE = 512
TYPES = {
    "0": "random",
    "1": "change object",
    "2": "add object",
    "3": "delete object",
    "4": "change content",
    "5": "change pose",
    "6": "change colour",
    "7": "change material",
    "8": "change background",
    "9": "change style",
}
TEXTS = ("image_path", "editing_instruction", "editing_prompt")


@dataclass(frozen=True)
class Case:
    """One edit to make."""

    name: str
    kind: str
    """The edit type, one of :data:`TYPES`' values."""
    path: Path
    image: str
    """The picture's name below annotation_images/, and that of the edited one below its own folder."""
    instruction: str
    target: str
    """What the edited picture shows."""
    runs: tuple[int, ...]
    """The edited region: start and length, in turn, over the pixels row by row."""

    def picture(self) -> np.ndarray:
        """The source, uint8 [512, 512, 3]."""
        return read_image(self.path)

    def edited(self) -> np.ndarray:
        """The edited region, bool [512, 512]."""
        return decode_mask(self.runs)


def decode_mask(runs: Sequence[int], side: int = SIDE) -> np.ndarray:
    """Runs (start, length, start, length, ...) -> bool [side, side].

    As the benchmark decodes them: what runs past the last pixel is cut, and the picture's border always
    belongs to the edited region, since annotators missed it.
    """
    flat = np.zeros(side * side, dtype=bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start : start + length] = True
    mask = flat.reshape(side, side)
    mask[[0, -1]] = True
    mask[:, [0, -1]] = True
    return mask


def read_folder(folder: str | Path, limit: int | None = None) -> list[Case]:
    """Its edits in the order of the mapping; with ``limit`` at most so many, taken from the types in turn.

    Raises:
        UserError: if the folder is no PIE-Bench, an entry is malformed, or a picture that is needed is missing.
    """
    mapping = Path(folder) / MAPPING
    if not mapping.is_file():
        raise UserError(f"no {MAPPING} in {folder}: PIE-Bench's folder holds it beside {IMAGES}/")
    entries = read_json(mapping)
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{mapping} must hold an object of edits by name")
    cases = [_read_case(Path(folder) / IMAGES, f"{mapping}: {name}", name, entry) for name, entry in entries.items()]
    chosen = cases if limit is None else in_turn(cases, lambda case: case.kind)[:limit]
    for case in chosen:
        _check_picture(case.path)
    return chosen


def _read_case(images: Path, where: str, name: str, entry: Any) -> Case:
    if not isinstance(entry, dict):
        raise UserError(f"{where} is not an object")
    for key in (*TEXTS, "editing_type_id", "mask"):
        if key not in entry:
            raise UserError(f"{where} has no {key}")
        if key in TEXTS and not isinstance(entry[key], str):
            raise UserError(f"{where}: {key} is not text")
    path, instruction, target = (entry[key] for key in TEXTS)
    if not path or Path(path).is_absolute() or ".." in Path(path).parts:
        raise UserError(f"{where}: image_path {path!r} lies outside {IMAGES}/")
    kind, runs = _kind(where, entry["editing_type_id"]), _runs(where, entry["mask"])
    return Case(name, kind, images / path, path, instruction, target.replace("[", "").replace("]", ""), runs)


def _kind(where: str, number: Any) -> str:
    if str(number) not in TYPES:
        raise UserError(f"{where} has the unknown editing_type_id {number!r}: the types are 0 to {len(TYPES) - 1}")
    return TYPES[str(number)]


def _runs(where: str, mask: Any) -> tuple[int, ...]:
    if not isinstance(mask, list) or not all(isinstance(n, int) and n >= 0 for n in mask):
        raise UserError(f"{where}: mask is not a list of whole numbers from 0")
    if len(mask) % 2:
        raise UserError(f"{where}: mask has {len(mask)} entries, an odd number: it must be starts and lengths in turn")
    return tuple(mask)


def _check_picture(path: Path) -> None:
    check_image(path)
    with Image.open(path, formats=FORMATS) as image:
        width, height = image.size
    if (width, height) != (SIDE, SIDE):
        raise UserError(f"{path} is {width} x {height}: PIE-Bench's pictures, and so its masks, are {SIDE} x {SIDE}")


# -------------------------------------------------------------------------------------- measures

MAX_PSNR = 100.0  # dB, of equal pictures; a single value off by one level costs 107


class Pair(NamedTuple):
    """A source and what was made of it, uint8 [H, W, 3]."""

    source: np.ndarray
    image: np.ndarray
    edited: np.ndarray
    """The edited region, bool [H, W]."""
    target: str
    """What the edited picture shows."""

    def outside(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Both pictures, black inside the edited region; ``None`` where nothing lies outside."""
        if self.edited.all():
            return None
        kept = ~self.edited[..., None]
        return self.source * kept, self.image * kept


Metric = Callable[[Pair], float | None]
"""``None`` where the pair has nothing to measure; the benchmark leaves it out of that metric's mean."""


class NotMeasured(NamedTuple):
    """Stands in for a metric that cannot be had here, and says why."""

    reason: str

    def __str__(self) -> str:
        return f"not measured: {self.reason}"


Metrics = dict[str, Metric | NotMeasured]


SCALES = {
    "structure_distance": Measure("structure ×10³ ↓", 1e3, 2, (0, 4), less_is_better=True),
    "psnr": Measure("PSNR ↑", 1, 2, (0, MAX_PSNR)),
    "lpips": Measure("LPIPS ×10³ ↓", 1e3, 2, (0, 1), less_is_better=True),
    "mse": Measure("MSE ×10⁴ ↓", 1e4, 2, (0, 1), less_is_better=True),
    "ssim": Measure("SSIM ×10² ↑", 1e2, 2, (-1, 1)),
    "clip_whole": Measure("CLIP whole ↑", 1, 2, (0, 100)),
    "clip_edited": Measure("CLIP edited ↑", 1, 2, (0, 100)),
}


def psnr(pair: Pair) -> float | None:
    """dB, at most :data:`MAX_PSNR`."""
    outside = pair.outside()
    return None if outside is None else min(MAX_PSNR, similarity.psnr(*outside))


def mse(pair: Pair) -> float | None:
    """Of values from 0 to 1."""
    outside = pair.outside()
    return None if outside is None else similarity.mse(*outside) / similarity.PEAK**2


def ssim(pair: Pair) -> float | None:
    outside = pair.outside()
    return None if outside is None else similarity.ssim(*outside)


PIXELS: Metrics = {"psnr": psnr, "mse": mse, "ssim": ssim}


# ------------------------------------------------------------------------------------- benchmark


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
