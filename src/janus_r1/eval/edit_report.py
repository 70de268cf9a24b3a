"""The result of ``evaluate_edit`` for people: tables on the terminal, or Markdown."""

from __future__ import annotations

from typing import Any

from janus_r1.eval.tables import Grid, rounds_title, show

CHECKS = ("following", "preserving", "both")
BASELINES = {
    "copy": "source copied",
    "from_scratch": "drawn from scratch",
    "tokenizer": "tokenizer's ceiling",
}


def grids(result: dict[str, Any]) -> list[Grid]:
    """The tables of a result, in the order of reading."""
    return [_arms(result), _types(result), _chains(result)]


def footer(result: dict[str, Any]) -> str:
    """One paragraph: what was measured, what it cost, what failed."""
    run, cost, failed = result["run"], result["cost"], result["failures"]
    text = (
        f"{run['model'] or 'model'} on edits, {run['split']}: {run['cases']} cases x {run['samples']} samples, "
        f"guidance {run['settings']['guidance']:g}, seed {run['settings']['seed']}. {cost['images']} images in "
        f"{cost['seconds']:.1f} s. Brackets are 95 % intervals over cases. PSNR and SSIM are taken outside the edited "
        "region, of edits that leave no place open."
    )
    if failed["chains"]:
        text += f" {failed['chains']} chains could not be scored and are left out ({failed['examples'][0]})."
    return text


def _arms(result: dict[str, Any]) -> Grid:
    """A line a round limit, then the baselines."""
    rows = [["", *CHECKS, "PSNR", "SSIM"]]
    rows += [_arm(rounds_title(t), report) for t, report in result["rounds"].items()]
    rows += [_arm(BASELINES[name], report) for name, report in (result["baselines"] or {}).items()]
    return Grid("Edits (mean of edit types)", rows)


def _arm(title: str, report: dict[str, Any]) -> list[str]:
    checks = [show(report[check]) for check in CHECKS]
    return [title, *checks, show(report["psnr"], 1), show(report["ssim"])]


def _types(result: dict[str, Any]) -> Grid:
    """By edit type, after the most rounds."""
    last = list(result["rounds"].values())[-1]
    parts = dict(last["families"])
    if "one_step" in last:  # older results lack it
        parts["one step (mean of types)"] = last["one_step"]
    body = [[name, *(show(report[check]) for check in CHECKS)] for name, report in parts.items()]
    return Grid("By edit type, after the most rounds", [["", *CHECKS], *body])


def _chains(result: dict[str, Any]) -> Grid:
    """Verdicts on first edits, and what redrawing did."""
    last = list(result["rounds"].values())[-1]
    figures = {**result["verdict"], **result["introspection"], "gain over round 1": last["gain"]}
    body = [[name.replace("_", " "), show(value)] for name, value in figures.items()]
    return Grid("Verdicts on first edits, and introspection", [["", "value"], *body])
