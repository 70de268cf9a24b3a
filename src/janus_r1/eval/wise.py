"""WISE_Verified: 1,000 prompts that take knowledge to draw; a judge who is told the answer says 1 or 0.

The data carries no licence, so it is not shipped: ``--data`` names the folder ``data_verified`` of the user's copy.
Figures are not comparable with those of WISE before April 2026 (0 to 2 for consistency, realism and aesthetics).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from janus_r1.errors import UserError
from janus_r1.eval.benchmark import Benchmark, Item, Survey, by_name, save_png
from janus_r1.eval.benchmark_score import Outcome, failed
from janus_r1.eval.statistics import Figure, figure, mean_of
from janus_r1.eval.vlm_judge import Ask, VlmJudge
from janus_r1.reading import field, read_json
from janus_r1.rewards.score import Abstained

FILES = ("cultural_common_sense", "spatio-temporal_reasoning", "natural_science")
PARTS = {"culture": 400, "time": 520, "space": 640, "biology": 760, "physics": 880, "chemistry": 1000}  # last ids
WEIGHTS = {"culture": 0.40, "time": 0.12, "space": 0.12, "biology": 0.12, "physics": 0.12, "chemistry": 0.12}
TRIES, MAX_TOKENS = 3, 500
ASK = """\
You check whether a generated image shows what its prompt calls for. The explanation says what a correct image shows; \
take it for the truth.
Prompt: {prompt}
Explanation: {explanation}
Give 1 only if the image clearly shows what the explanation calls for, with the right objects and the right relations \
between them, and is realistic and free of errors that would make it useless. If you are in doubt, give 0.
Reply with one line, Score: 0 or Score: 1."""


class Wise(Benchmark):
    """``<prompt_id>.png`` in one folder."""

    name, title, images, binary = "wise", "WISE_Verified", 1, True
    any_number = False

    def __init__(self, data: Path | None) -> None:
        if data is None:
            raise UserError("WISE's prompts are not shipped (no licence): name your folder data_verified with --data")
        rows = [row for name in FILES for row in _rows(data / f"{name}_verified.json")]
        self._items = sorted((_item(*row) for row in rows), key=lambda item: int(item.id))
        if len({item.id for item in self._items}) < len(self._items):
            raise UserError(f"{data} holds a prompt_id twice")

    def write(self, folder: Path, item: Item, images: Sequence[np.ndarray]) -> None:
        save_png(folder / f"{item.id}.png", images[0])

    def survey(self, folder: Path) -> Survey:
        return by_name(folder, self._items, r"([0-9]+)\.png", lambda match: (str(int(match[1])), 0))

    def overall(self, values: np.ndarray, prompts: np.ndarray, groups: np.ndarray) -> Figure:
        """The parts' means, culture with .40 and the others with .12 each; weights of parts that are missing in a
        partial report are shared out."""
        present = [part for part in WEIGHTS if part in groups]
        figures = [figure(values[groups == part], prompts[groups == part]) for part in present]
        return mean_of(figures, [WEIGHTS[part] for part in present])


def _rows(path: Path) -> list[tuple[str, Any]]:
    rows = read_json(path)
    if not isinstance(rows, list):
        raise UserError(f"{path} must hold a list of prompts")
    return [(f"{path}, entry {number}", row) for number, row in enumerate(rows, 1)]


def _item(place: str, row: Any) -> Item:
    number = field(row, "prompt_id", int, place)
    part = next((part for part, last in PARTS.items() if 1 <= number <= last), None)
    if part is None:
        raise UserError(f"{place}: the prompt_id {number} is not between 1 and 1000")
    prompt, explanation = field(row, "Prompt", str, place), field(row, "Explanation", str, place)
    return Item(str(number), prompt, part, {"explanation": explanation})


class WiseScorer:
    """Asks up to three times for a line that can be read; else the image has no score."""

    def __init__(self, judge: VlmJudge, batch: int = 16) -> None:
        self.judge, self.batch = judge, batch
        self.record: Mapping[str, Any] = {**judge.record, "question": "WISE_Verified in this project's words"}

    def score(self, shots: Sequence[tuple[Item, np.ndarray]]) -> list[Outcome]:
        outcomes: list[Outcome] = [failed("not asked")] * len(shots)
        left = list(range(len(shots)))
        for _ in range(TRIES):
            asks = [
                Ask(shots[i][1], ASK.format(prompt=shots[i][0].prompt, **shots[i][0].data), MAX_TOKENS) for i in left
            ]
            for i, answer in zip(left, self.judge.answer(asks) if asks else [], strict=True):
                outcomes[i] = _outcome(answer)
            left = [i for i in left if (outcomes[i].failed or "").startswith("no score in")]
        return outcomes


def _outcome(answer: str | Abstained) -> Outcome:
    if isinstance(answer, Abstained):
        return failed(answer.why)
    value = read_score(answer)
    return failed(f"no score in the answer {answer!r:.60}") if value is None else Outcome(value, {"answer": answer})


def read_score(answer: str) -> float | None:
    """The 0 or 1 after the last "Score:", or of a line that is nothing else."""
    found = re.findall(r"score\W*([01])(?![\d.])", answer, re.IGNORECASE)
    found = found or re.findall(r"^\s*([01])\s*$", answer, re.MULTILINE)
    return float(found[-1]) if found else None
