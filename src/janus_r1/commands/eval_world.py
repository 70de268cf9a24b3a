"""``janus-r1 eval world`` and ``eval edit``: success, introspection and controls on tasks not trained on."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from janus_r1.chain import Settings
from janus_r1.commands.batch import memory_errors, plan_batch
from janus_r1.commands.measure import MOST, asked, measure, sampler, show_report
from janus_r1.commands.model import load_model
from janus_r1.commands.terminal import progress


def run(args: argparse.Namespace) -> None:
    settings = replace(Settings.among(vars(args)), rounds=max(args.round_limits))
    measure(args, lambda: _evaluate(args, settings), show_report)


def _evaluate(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    from janus_r1.eval.protocol import choose_tasks
    from janus_r1.worlds.base import world

    choose_tasks(world(args.world), args.split, args.limit, args.kind)  # what cannot be had is told before a load
    batch = plan_batch(args, [], MOST, settings, edit=args.kind == "edit")
    model = load_model(args.model, args.dtype, args.device, kv=args.kv)
    from janus_r1.eval.world import EvalOptions, evaluate_world
    from janus_r1.train.history import training

    given = {"kind": args.kind, "controls": args.controls, "baselines": args.baselines}
    options = EvalOptions(**asked(args, settings), rounds=args.round_limits, training=training(args.model), **given)
    with progress("sampling") as update, memory_errors(batch, args.device):
        return evaluate_world(sampler(model, batch, update), options, reconstruct=model.reconstruct)
