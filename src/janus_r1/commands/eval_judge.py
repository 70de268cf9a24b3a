"""``janus-r1 eval judge``: a model's verdicts on one fixed set of drafts."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from janus_r1.chain import Verdict
from janus_r1.commands.measure import measure
from janus_r1.commands.model import load_model
from janus_r1.commands.terminal import progress


def run(args: argparse.Namespace) -> None:
    measure(args, lambda: _evaluate(args), _show)


def _evaluate(args: argparse.Namespace) -> dict[str, Any]:
    model = load_model(args.model, args.dtype, args.device, kv=args.kv)
    drawer = load_model(args.drafts_of, args.dtype, args.device, kv=args.kv)
    from janus_r1.environment import environment
    from janus_r1.eval.judge import JudgeOptions, evaluate_judge, judge_set

    options = JudgeOptions(args.world, args.split, args.samples, args.limit, seed=args.seed)
    held = judge_set(drawer.model, options)
    with progress("judging") as update:

        def judge(images: list[np.ndarray], texts: list[str]) -> list[Verdict]:
            """The likeliest word; p_yes needs no reason."""
            verdicts: list[Verdict] = []
            for start in range(0, len(images), args.max_batch):
                part = slice(start, start + args.max_batch)
                verdicts += model.judge(images[part], texts[part], text_temperature=0.0, max_reason_tokens=1)
                update(len(verdicts), len(images))
            return verdicts

        result = evaluate_judge(judge, held)
    run = {"benchmark": "judge", "model": args.model, "drafts_of": args.drafts_of, **asdict(options)}
    return {"run": {**run, "environment": environment()}, **result}


def _show(result: dict[str, Any], console: Console) -> None:
    from janus_r1.eval.tables import show

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
