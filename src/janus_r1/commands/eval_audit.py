"""``janus-r1 eval audit``: what a model accepts though it is wrong, and rejects though it is right."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from janus_r1.chain import Settings
from janus_r1.commands.batch import memory_errors, plan_batch
from janus_r1.commands.checks import check_new_folder
from janus_r1.commands.measure import MOST, answer, asked, sampler, show_report
from janus_r1.commands.model import load_model
from janus_r1.commands.terminal import answers_only, progress
from janus_r1.files import write_atomically, write_json

if TYPE_CHECKING:
    from janus_r1.eval.audit import Judged

RESULT = "audit.json"


def run(args: argparse.Namespace) -> None:
    if args.out:
        check_new_folder(Path(args.out), args.overwrite, RESULT)
    with answers_only(args.json):
        result, drafts = _audit(args)
    if args.out:
        write_atomically(Path(args.out), lambda folder: _write(folder, result, drafts))
    answer(args, result, show_report)


def _audit(args: argparse.Namespace) -> tuple[dict[str, Any], list[Judged]]:
    settings = replace(Settings.among(vars(args)), rounds=1)
    batch = plan_batch(args, [], MOST, settings)
    model = load_model(args.model, args.dtype, args.device, kv=args.kv)
    from janus_r1.eval.audit import audit
    from janus_r1.eval.world import EvalOptions
    from janus_r1.train.history import training

    options = EvalOptions(**asked(args, settings), training=training(args.model))
    with progress("drawing") as update, memory_errors(batch, args.device):
        return audit(sampler(model, batch, update), options)


def _write(folder: Path, result: dict[str, Any], drafts: list[Judged]) -> None:
    """The result, and a picture of examples for each of the two errors that occurred."""
    from janus_r1.eval.audit import ERRORS, examples
    from janus_r1.sheet import side_by_side

    folder.mkdir()
    write_json(folder / RESULT, result)
    for error in ERRORS:
        if chains := examples(drafts, error):
            side_by_side(chains).save(folder / f"{error}.png")
