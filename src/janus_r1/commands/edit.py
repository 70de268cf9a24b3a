"""``janus-r1 edit``: change an image as told, judge the result, redraw; several instructions in turn."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from janus_r1.chain import Chain, Settings
from janus_r1.commands.batch import memory_errors, plan_batch
from janus_r1.commands.chains import INDEX, index, save, show, slug
from janus_r1.commands.checks import check_new_folder, check_texts
from janus_r1.commands.model import load_model
from janus_r1.commands.terminal import answers_only, print_json, progress, warn
from janus_r1.images import check_image, read_image

if TYPE_CHECKING:
    from janus_r1.api import JanusR1


def run(args: argparse.Namespace) -> None:
    check_texts(args.instructions, "instruction", "change")
    check_image(args.image)
    settings = Settings.among(vars(args))
    out = Path(args.out or f"outputs/{slug(args.instructions)}-{settings.seed}")
    check_new_folder(out, args.overwrite, INDEX)
    with answers_only(args.json):
        image = read_image(args.image, warn=warn)
        batch = plan_batch(args, args.instructions, args.samples, settings, edit=True)
        model = load_model(args.model, args.dtype, args.device, kv=args.kv)
        began = time.monotonic()
        with progress("editing") as update, memory_errors(batch, args.device):
            chains = in_turn(model, image, args.instructions, settings, args.samples, batch, update)
        seconds = round(time.monotonic() - began, 2)
        head = {"model": args.model, "image": args.image, "instructions": args.instructions, "samples": args.samples}
        record = {**head, **index(chains, out, settings), "seconds": seconds}
        _number(record["chains"], len(args.instructions))
        save(chains, out, record)
    if args.json:
        print_json(record)
    else:
        show(chains, out, seconds)


def in_turn(
    model: JanusR1,
    image: np.ndarray,
    instructions: Sequence[str],
    settings: Settings,
    samples: int = 1,
    max_batch: int = 64,
    update: Callable[[int, int], None] = lambda done, total: None,
) -> list[Chain]:
    """Every sample's chains, one an instruction, sample after sample; each edits the final image before it."""
    results = [image] * samples
    turns: list[list[Chain]] = []
    for number, instruction in enumerate(instructions):
        update(number, len(instructions))
        chains = model.edit(results, instruction, max_batch=max_batch, first_row=number * samples, **asdict(settings))
        results = [chain.image for chain in chains]
        turns.append(chains)
    return [turn[sample] for sample in range(samples) for turn in turns]


def _number(items: list[dict[str, Any]], turns: int) -> None:
    """Which sample and which turn of it a chain is, from 1."""
    for place, item in enumerate(items):
        item["sample"], item["turn"] = place // turns + 1, place % turns + 1
