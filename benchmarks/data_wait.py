"""Does training wait for its data? Two measurements of SFT on a store of 1024 x 1024 JPEGs.

    python benchmarks/data_wait.py steps              # the tiny model: seconds a step waits for its rows, and learns
    python benchmarks/data_wait.py rows --images 512  # rows of the 7B recipe, without its model: what a core makes

* steps  runs the very loader of ``train sft``, with no worker and with some; of each step's time the share that passes
         until its rows are there. A worker on the core that also computes takes from it what it gives.
* rows   makes the rows of ``janus-pro/sft-7b``: 128 of 384 x 384 pixels and 576 ids an image, or one process's share of
         them. What a worker does (reads, decodes, fits) can be spread over cores; what the training process does
         (picks, takes the pictures over, lays out) is waited for in every step. From both, in CPU seconds, follows the
         shortest step that waits less than 5 % of its time on a machine with 16 cores. Whether a GPU's step is longer
         is not measured here.

VQ ids are zeros: a run computes them once, before its first step. Results are appended to
benchmarks/results/data.jsonl.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import shutil
import signal
import sys
import tempfile
import time
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch

import machine
from data_memory import RESULTS, pretend_codes, write_store
from decode import random_janus
from janus_r1.data.rows import Wanted
from janus_r1.data.store_rows import StoreRows
from janus_r1.environment import environment
from janus_r1.model.janus import Janus
from janus_r1.model.loading import load
from janus_r1.recipe import load_recipe
from janus_r1.segments import row_length
from janus_r1.train.loop import RunOptions
from janus_r1.train.sft import Parts, SftRecipe, micro_batches, rows_loss, step_rows

GRAIN = 6.0  # grey levels: a 1024 x 1024 JPEG then has some 500 kB, as those of image models do
CORES = 16
TOLERATED = 0.05
GPUS = (1, 8)  # of the machine; each has a training process and a core for it, the other cores are workers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("steps", "rows"))
    parser.add_argument("--images", type=int, default=512, help="in the store")
    parser.add_argument("--side", type=int, default=1024, help="pixels")
    parser.add_argument("--steps", type=int, default=10, help="measured, after one that warms up")
    parser.add_argument("--workers", default="0,1", help="steps: of run.workers, one measurement each")
    parser.add_argument("--batch", type=int, default=64, help="steps: rows a step")
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a stopped run deletes its data
    folder = Path(tempfile.mkdtemp())
    try:
        write_store(folder / "store", args.images, args.side, GRAIN)
        if args.part == "steps":
            figures = measure_steps(folder, args)
        else:  # 384 pixels and 576 ids as the 7B model has; weights are not used
            figures = measure_rows(folder / "store", random_janus("100m", "bfloat16", "cpu"), args.steps)
    finally:
        shutil.rmtree(folder)
    asked = {"part": f"wait: {args.part}", "images": args.images, "side": args.side, "steps": args.steps}
    print(json.dumps({**asked, **figures}, indent=1))
    if not args.no_save:
        place = {"machine": machine.name("cpu"), "environment": environment()}
        machine.append(RESULTS, {"date": str(date.today()), **asked, **figures, **place})


# ---------------------------------------------------------------------------------- a tiny model's steps


def measure_steps(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    pretend_codes(folder / "store", load("tiny-base"))
    arms = {}
    for workers in map(int, args.workers.split(",")):
        options = RunOptions(out=str(folder / "run"), steps=args.steps + 1, workers=workers, precision="no")
        recipe = SftRecipe(run=options, model="tiny-base", data=str(folder / "store"), rows=args.batch)
        arms[f"{workers} workers"] = waited(recipe)
    return {"rows_a_step": args.batch, "arms": arms}


def waited(recipe: SftRecipe) -> dict[str, float]:
    """Seconds of a mean step, the first left out: until its rows were there, and until the weights had moved."""
    parts, waiting, learning = Parts(recipe), 0.0, 0.0
    for step in range(recipe.run.steps):
        began = time.perf_counter()
        rows = step_rows(parts, step)
        here = time.perf_counter()
        learn(parts, micro_batches(rows, recipe.micro_batch))
        if step:
            waiting, learning = waiting + here - began, learning + time.perf_counter() - here
    steps = recipe.run.steps - 1
    share = waiting / (waiting + learning)
    return {"seconds_waiting": waiting / steps, "seconds_learning": learning / steps, "share_waiting": share}


def learn(parts: Parts, batches: list[Any]) -> None:
    loss_of = partial(rows_loss, parts=len(batches), text_weight=parts.recipe.text_weight)
    for batch in batches:
        loss, _ = loss_of(parts.module, batch)
        loss.backward()
    for optimizer in parts.optimizers:
        optimizer.step()
        optimizer.zero_grad()


# --------------------------------------------------------------------------------- rows of the 7B recipe


def measure_rows(store: Path, model: Janus, steps: int) -> dict[str, Any]:
    """Seconds a step: of a worker, and of the training process; and the shortest step that hardly waits for them."""
    recipe = load_recipe(SftRecipe, "janus-pro/sft-7b")
    pretend_codes(store, model)
    counts = {name: round(share * recipe.rows) for name, share in recipe.shares.items()}
    arms = {}
    for gpus in GPUS:
        maker = StoreRows([str(store)], model, list(recipe.shares), recipe.word_weight, part=(0, gpus))
        made = [made_rows(maker, recipe, counts, step) for step in range(steps + 1)][1:]
        of_worker, of_main, tokens, carried = (sum(column) / steps for column in zip(*made, strict=True))
        told = {"tokens_a_process": round(tokens), "mb_a_process": round(carried / 1e6, 1)}
        arms[f"{gpus} GPUs"] = told | bounds(of_worker, of_main, gpus)
    return {"rows_a_step": sum(counts.values()), "cores": CORES, "arms": arms}


def made_rows(
    maker: StoreRows, recipe: SftRecipe, counts: dict[str, int], step: int
) -> tuple[float, float, float, float]:
    """CPU seconds of a worker and of the training process, tokens, and bytes that go from one to the other."""
    rounds = (recipe.judge_wrong_rounds, recipe.redraw_wrong_rounds)  # the most that a step may have
    wanted = Wanted(counts, step, random.Random(step), *rounds, recipe.caption_dropout)
    began = time.process_time()
    job = maker.begin(wanted).job
    begun = time.process_time()
    sent = pickle.dumps(job(), pickle.HIGHEST_PROTOCOL)
    made = time.process_time()
    rows = maker.finish(pickle.loads(sent), wanted)
    own = (begun - began) + (time.process_time() - made)
    return made - begun, own, sum(row_length(row) for kind in rows for row in kind), len(sent)


def bounds(of_worker: float, of_main: float, gpus: int) -> dict[str, float]:
    """``of_worker`` and ``of_main``: seconds a step of one process. What is made ahead is there in time if its workers
    together are as fast as its steps; what the training process does itself is waited for in each."""
    workers = CORES // gpus - 1
    step = max(of_main / TOLERATED, of_worker / workers)
    return {
        "worker_seconds_a_step": of_worker,
        "own_seconds_a_step": of_main,
        "workers_a_process": workers,
        "shortest_step_waiting_under_5_percent": step,
    }


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
