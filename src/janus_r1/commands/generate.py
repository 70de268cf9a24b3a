"""``janus-r1 generate``: draw, judge, redraw; show the story and save it."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path

from janus_r1.chain import Settings
from janus_r1.commands.batch import memory_errors, plan_batch
from janus_r1.commands.chains import INDEX, index, save, show, slug
from janus_r1.commands.checks import check_new_folder, check_texts
from janus_r1.commands.model import load_model
from janus_r1.commands.terminal import answers_only, print_json, progress
from janus_r1.data.prompt_file import read_prompts
from janus_r1.errors import require


def run(args: argparse.Namespace) -> None:
    prompts = [*args.prompts, *(read_prompts(args.file) if args.file else [])]
    require(bool(prompts), "no prompt: say what to draw, or pass --file prompts.txt")
    check_texts(prompts)
    settings = Settings.among(vars(args))
    samples = args.samples or (4 if len(prompts) == 1 else 1)
    out = Path(args.out or f"outputs/{slug(prompts)}-{settings.seed}")
    check_new_folder(out, args.overwrite, INDEX)
    with answers_only(args.json):
        batch = plan_batch(args, prompts, samples * len(prompts), settings)
        model = load_model(args.model, args.dtype, args.device, kv=args.kv)
        began = time.monotonic()
        with progress("drawing") as update, memory_errors(batch, args.device):
            chains = model.generate(
                prompts,
                samples=samples,
                max_batch=batch,
                on_progress=lambda done: update(done, samples * len(prompts)),
                **asdict(settings),
            )
        seconds = round(time.monotonic() - began, 2)
        record = {"model": args.model, "samples": samples, **index(chains, out, settings), "seconds": seconds}
        save(chains, out, record)
    if args.json:
        print_json(record)
    else:
        show(chains, out, seconds)
