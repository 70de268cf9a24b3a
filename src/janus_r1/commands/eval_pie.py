"""``janus-r1 eval pie``: edits of real pictures by the PIE-Bench protocol, from the user's copy of its folder."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from janus_r1.chain import Chain, Settings
from janus_r1.commands.batch import memory_errors, plan_batch
from janus_r1.commands.checks import check_device
from janus_r1.commands.measure import measure, show_report
from janus_r1.commands.model import load_model, quiet_transformers
from janus_r1.commands.terminal import note, progress, say
from janus_r1.eval.pie.folder import read_folder

if TYPE_CHECKING:
    from janus_r1.api import JanusR1
    from janus_r1.eval.pie.metrics import Metrics


def run(args: argparse.Namespace) -> None:
    settings = replace(Settings.among(vars(args)), rounds=max(args.round_limits))
    measure(args, lambda: _evaluate(args, settings), show_report)


def _evaluate(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    cases = read_folder(args.folder, args.limit)
    metrics = _metrics(args)
    batch = plan_batch(args, [case.instruction for case in cases], len(cases), settings, edit=True)
    model = load_model(args.model, args.dtype, args.device, kv=args.kv)
    from janus_r1.eval.pie.benchmark import PieOptions, evaluate_pie

    options = PieOptions(args.round_limits, settings, batch, args.baselines, _record(args))
    with progress("editing") as update, memory_errors(batch, args.device):
        return evaluate_pie(Editor(model, len(cases), update), cases, metrics, options)


def _metrics(args: argparse.Namespace) -> Metrics:
    """Loaded before anything slow, so that who misses one can stop at once."""
    check_device(args.device)
    quiet_transformers()
    say(f"loading the metrics' weights: {args.clip}, {args.dino}, lpips")
    from janus_r1.eval.pie.learned import learned_metrics
    from janus_r1.eval.pie.metrics import PIXELS, NotMeasured

    metrics = {**PIXELS, **learned_metrics(args.clip, args.dino, args.device)}
    for name, metric in metrics.items():
        if isinstance(metric, NotMeasured):
            note(f"{name} {metric}")
    return metrics


def _record(args: argparse.Namespace) -> dict[str, Any]:
    from janus_r1.environment import environment

    given = {name: getattr(args, name) for name in ("model", "folder", "limit", "clip", "dino")}
    return {**given, "environment": environment()}


class Editor:
    """A model behind the two verbs of the benchmark."""

    def __init__(self, model: JanusR1, total: int, update: Callable[[int, int], None]) -> None:
        self.model, self.total, self.update = model, total, update

    def edit(
        self, sources: list[np.ndarray], instructions: list[str], settings: Settings, first_row: int
    ) -> list[Chain]:
        chains = self.model.edit(sources, instructions, max_batch=len(sources), first_row=first_row, **asdict(settings))
        self.update(first_row + len(sources), self.total)
        return chains

    def reconstruct(self, images: list[np.ndarray]) -> list[np.ndarray]:
        return self.model.reconstruct(images)
