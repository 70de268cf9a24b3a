"""``janus-r1 eval edit``: following and preserving on edits not trained on, beside trivial editors."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from janus_r1.chain import Chain, Settings
from janus_r1.commands.batch import memory_errors, plan_batch
from janus_r1.commands.measure import MOST, asked, measure, show_report
from janus_r1.commands.model import load_model
from janus_r1.commands.terminal import progress

if TYPE_CHECKING:
    from janus_r1.api import JanusR1


def run(args: argparse.Namespace) -> None:
    settings = replace(Settings.among(vars(args)), rounds=max(args.round_limits))
    measure(args, lambda: _evaluate(args, settings), show_report)


def _evaluate(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    batch = plan_batch(args, [], MOST, settings, edit=True)
    model = load_model(args.model, args.dtype, args.device, kv=args.kv)
    from janus_r1.eval.edit import EditEvalOptions, evaluate_edit
    from janus_r1.train.history import training

    options = EditEvalOptions(
        **asked(args, settings), rounds=args.round_limits, baselines=args.baselines, training=training(args.model)
    )
    with progress("editing") as update, memory_errors(batch, args.device):
        return evaluate_edit(Editor(model, batch, update), options)


class Editor:
    """A model behind the three verbs of the benchmark."""

    def __init__(self, model: JanusR1, max_batch: int, update: Callable[[int, int], None]) -> None:
        self.model, self.max_batch, self.update = model, max_batch, update

    def edit(self, sources: list[np.ndarray], instructions: list[str], settings: Settings) -> list[Chain]:
        return self.model.edit(sources, instructions, **self._common(len(sources)), **asdict(settings))

    def draw(self, prompts: list[str], settings: Settings) -> list[Chain]:
        return self.model.generate(prompts, **self._common(len(prompts)), **asdict(settings))

    def reconstruct(self, images: list[np.ndarray]) -> list[np.ndarray]:
        return self.model.reconstruct(images)

    def _common(self, total: int) -> dict[str, Any]:
        return {"max_batch": self.max_batch, "on_progress": lambda done: self.update(done, total)}
