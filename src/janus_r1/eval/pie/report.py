"""The result of ``evaluate_pie`` for people: tables on the terminal, or Markdown."""

from __future__ import annotations

from typing import Any

from janus_r1.eval.pie.metrics import SCALES
from janus_r1.eval.tables import Grid, rounds_title, show

BASELINES = {"copy": "source copied", "tokenizer": "tokenizer's ceiling"}


def grids(result: dict[str, Any]) -> list[Grid]:
    """The tables of a result, in the order of reading."""
    return [_arms(result), _types(result)]


def footer(result: dict[str, Any]) -> str:
    """One paragraph: what was measured, what it cost, what failed, what is missing."""
    run, cost, failed = result["run"], result["cost"], result["failures"]
    parts = [
        f"{run.get('model') or 'model'} on PIE-Bench: {run['images']} pictures, guidance "
        f"{run['settings']['guidance']:g}, seed {run['settings']['seed']}. {cost['images']} images in "
        f"{cost['seconds']:.1f} s. Brackets are 95 % intervals over pictures. Edits are made at the model's own "
        "size and compared at 512 x 512; PSNR, LPIPS, MSE and SSIM are taken outside the edited region."
    ]
    if failed["images"]:
        parts.append(f"{failed['images']} pictures failed and are left out ({failed['examples'][0]}).")
    parts += [f"{name} {result[name]}." for name in SCALES if _missing(result[name])]
    return " ".join(parts)


def _arms(result: dict[str, Any]) -> Grid:
    """A line a metric; a column a round limit, then the trivial editors."""
    arms = {rounds_title(t): report for t, report in result["rounds"].items()}
    arms |= {BASELINES[name]: report for name, report in (result["baselines"] or {}).items()}
    body = [[scale.title, *(_cell(name, report[name]) for report in arms.values())] for name, scale in SCALES.items()]
    return Grid("PIE-Bench", [["", *arms], *body])


def _types(result: dict[str, Any]) -> Grid:
    """By edit type, after the most rounds; only what was measured."""
    measured = [name for name in SCALES if not _missing(result[name])]
    types = list(result["rounds"].values())[-1]["types"]
    body = [[kind, *(_cell(name, report[name]) for name in measured)] for kind, report in types.items()]
    return Grid("By edit type, after the most rounds", [["", *(SCALES[name].title for name in measured)], *body])


def _missing(value: Any) -> bool:
    return isinstance(value, str)


def _cell(name: str, value: Any) -> str:
    if _missing(value):
        return "not measured"
    factor = SCALES[name].factor
    return show(value and {key: value[key] * factor for key in ("mean", "low", "high")}, SCALES[name].digits)
