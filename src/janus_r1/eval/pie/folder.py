"""A user's copy of PIE-Bench: ``mapping_file.json`` beside ``annotation_images/``, checked before slow work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from janus_r1.errors import UserError
from janus_r1.eval.protocol import in_turn
from janus_r1.images import FORMATS, check_image, read_image
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
    cases = [_case(Path(folder) / IMAGES, f"{mapping}: {name}", name, entry) for name, entry in entries.items()]
    chosen = cases if limit is None else in_turn(cases, lambda case: case.kind)[:limit]
    for case in chosen:
        _check_picture(case.path)
    return chosen


def _case(images: Path, where: str, name: str, entry: Any) -> Case:
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
