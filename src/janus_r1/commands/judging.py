"""``janus-r1 eval judge``: verdicts on a world's drafts, or any judges on labelled images of one's own."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from janus_r1.chain import Verdict
from janus_r1.commands.evaluate import Result, measure
from janus_r1.commands.model import JUDGE, ModelOptions, load_model
from janus_r1.commands.output import ResultFile, progress
from janus_r1.data.importing import renamed
from janus_r1.environment import environment
from janus_r1.errors import UserError, require
from janus_r1.eval.judge import JudgeOptions, evaluate_judge, judge_rows, judge_set
from janus_r1.eval.tables import show
from janus_r1.fields import Count, Positive
from janus_r1.reading import read_yaml
from janus_r1.recipe import build
from janus_r1.rewards.build import build_rewards
from janus_r1.rewards.score import RewardRecipe

A_JUDGE = ModelOptions(model=JUDGE)
A_FILE = ResultFile()
DRAFTS = JudgeOptions()


def judge(
    *,
    data: Path | None = None,
    rewards: Path | None = None,
    columns: tuple[str, ...] = (),
    worst: Count = 20,
    sheets: Path | None = None,
    drafts_of: str = "tiny-base",
    asked: JudgeOptions = DRAFTS,
    max_batch: Positive = 64,
    using: ModelOptions = A_JUDGE,
    to: ResultFile = A_FILE,
) -> None:
    """Measure verdicts on labelled images of your own, or on one fixed set of a world's drafts, half right.

    Accuracy, balanced accuracy, AUROC and calibration with intervals. With --data the judges of --rewards stand in the
    same table as the model.

    Args:
        data: JSON lines of image, text and label (yes or no), or anything else that data import reads
        rewards: With --data: YAML file with other judges under rewards, as in a recipe of train rl
        columns: With --data: a name that is not known by itself, ours to yours: label=correct; may be repeated
        worst: With --data: errors of every judge that are told
        sheets: With --data: folder for a picture of every judge's worst errors; --overwrite replaces those there
        drafts_of: Model that drew what is judged
        max_batch: Images judged at once

    Examples:
        janus-r1 eval judge --data rows.jsonl --model runs/rl/model --sheets errors
        janus-r1 eval judge --model tiny-r1
        janus-r1 eval judge --model runs/rl/model --drafts-of tiny-base --out results/judge.json
    """
    if data is not None:
        rows = data
        names = dict(renamed(name) for name in columns)
        if sheets and not to.overwrite and any(sheets.glob("*.png")):
            raise UserError(f"{sheets} holds pictures already: pass --overwrite to replace those of the same names")

        def on_rows() -> Result:
            return _on_rows(rows, rewards, names, asked.limit, worst, sheets, using, max_batch)

        measure(on_rows, to, _show_judges)
        return
    given = {"--rewards": rewards, "--columns": columns, "--sheets": sheets}
    extra = ", ".join(name for name, value in given.items() if value)
    require(not extra, f"{extra} goes with --data: name the file with your rows")

    measure(lambda: _on_drafts(asked, drafts_of, using, max_batch), to, _show_judge)


def _on_rows(
    data: Path,
    rewards: Path | None,
    columns: dict[str, str],
    limit: int | None,
    worst: int,
    sheets: Path | None,
    using: ModelOptions,
    max_batch: int,
) -> Result:
    others = _rewards(rewards)  # a file that is wrong is told of before a model is loaded
    loaded = load_model(using)
    from janus_r1.rewards.janus import JanusReward

    judges: dict[str, Any] = {using.model: JanusReward(loaded.model, max_batch), **others}
    result = judge_rows(data, judges, columns, limit or 0, worst, sheets)
    return {"run": {"benchmark": "judge-rows", "data": str(data), "environment": environment()}, **result}


def _on_drafts(options: JudgeOptions, drafts_of: str, using: ModelOptions, max_batch: int) -> Result:
    loaded = load_model(using)
    drawer = load_model(replace(using, model=drafts_of))
    held = judge_set(drawer.model, options)
    with progress("judging") as update:

        def judged(images: list[np.ndarray], texts: list[str]) -> list[Verdict]:
            """The likeliest word; p_yes needs no reason."""
            verdicts: list[Verdict] = []
            for start in range(0, len(images), max_batch):
                part = slice(start, start + max_batch)
                verdicts += loaded.judge(images[part], texts[part], text_temperature=0.0, max_reason_tokens=1)
                update(len(verdicts), len(images))
            return verdicts

        result = evaluate_judge(judged, held)
    run = {"benchmark": "judge", "model": using.model, "drafts_of": drafts_of, **asdict(options)}
    return {"run": {**run, "environment": environment()}, **result}


def _rewards(path: Path | None) -> dict[str, Any]:
    """The rewards of a YAML file by their names."""
    if path is None:
        return {}
    listed = read_yaml(path).get("rewards")
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise UserError(f"{path} must hold a list under rewards, such as [{{kind: endpoint, ...}}]")
    recipes = [build(RewardRecipe, item, prefix=f"rewards[{i}].") for i, item in enumerate(listed)]
    return {reward.name: reward for reward, _ in build_rewards(recipes).members}


def _show_judges(result: Result, console: Console) -> None:
    figures = ("accuracy", "balanced_accuracy", "auroc", "ece")
    table = Table("judge", "answered", *(name.replace("_", " ") for name in figures))
    for name, judged in result["judges"].items():
        values = [show(judged[key]) if judged.get(key) else "-" for key in figures]
        table.add_row(name, f"{judged['answered']} of {result['rows']}", *values)
    console.print(table)
    for cause, count in result["dropped"].items():
        console.print(f"left out {count}: {cause}", markup=False, highlight=False)


def _show_judge(result: Result, console: Console) -> None:
    run = result["run"]
    title = f"{run['model']} on {result['images']} drafts of {run['drafts_of']}, half of them right"
    table = Table("", "mean [95 %]", title=title)
    for name in ("accuracy", "auroc", "ece"):
        table.add_row(name, show(result["verdict"][name]))
    table.add_row("wrong, but accepted", show(result["accepted_wrong"]))
    table.add_row("right, but rejected", show(result["rejected_right"]))
    for family, value in result["families"].items():
        table.add_row(f"accuracy, {family}", show(value))
    console.print(table)
