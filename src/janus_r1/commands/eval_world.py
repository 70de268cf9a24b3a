"""``janus-r1 eval world``: success, introspection and controls on prompts not trained on."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from janus_r1.chain import Chain, Settings
from janus_r1.commands.batch import memory_errors, plan_batch
from janus_r1.commands.measure import measure, show_report
from janus_r1.commands.model import load_model
from janus_r1.commands.terminal import progress

if TYPE_CHECKING:
    from janus_r1.api import JanusR1

MOST = 1024  # chains at once, however much memory there is


def run(args: argparse.Namespace) -> None:
    settings = replace(Settings.among(vars(args)), rounds=max(args.round_limits))
    measure(args, lambda: _evaluate(args, settings), show_report)


def _evaluate(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    batch = plan_batch(args, [], MOST, settings)
    model = load_model(args.model, args.dtype, args.device)
    from janus_r1.environment import environment
    from janus_r1.eval.world import EvalOptions, evaluate_world
    from janus_r1.train.history import training

    options = EvalOptions(
        split=args.split,
        rounds=args.round_limits,
        samples=args.samples,
        limit=args.limit,
        settings=settings,
        controls=args.controls,
        model=args.model,
        environment=environment(),
        training=training(args.model),
    )
    with progress("sampling") as update, memory_errors(batch, args.device):
        return evaluate_world(sampler(model, batch, update), options)


def sampler(
    model: JanusR1, max_batch: int, update: Callable[[int, int], None]
) -> Callable[[list[str], Settings], list[Chain]]:
    """The model as a benchmark calls it: a chain a prompt."""

    def sample(prompts: list[str], settings: Settings) -> list[Chain]:
        total = len(prompts)
        return model.generate(
            prompts, max_batch=max_batch, on_progress=lambda done: update(done, total), **asdict(settings)
        )

    return sample
