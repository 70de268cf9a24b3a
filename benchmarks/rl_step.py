"""Seconds a step of reinforcement learning beside the official code's structure, in one process, on the same work.

    python benchmarks/rl_step.py --model tiny-sft --prompts 8 --group 8
    python benchmarks/rl_step.py --preset 7b --rows 16 --max-batch 64 --guidance 5 --precision bf16 \\
        --lora-rank 64 --base-dtype bfloat16 --recompute --arms ours        # on a GPU

* ours      train.rl: streams that only grow, accepted rows leave, sampled positions alone reach a head
* official  three stages, each prefilled from nothing: draw; judge; redraw of every row, accepted or not; a cache
            that grows by concatenation; heads over all positions of policy and reference; three losses whose
            graphs live until one backward pass

Both draw the same prompts with the same group, model, guidance and longest reason, two drafts a chain at
most, score them with the world's verifier, and make one AdamW step (of rate 0, so that every turn does the
same). A preset has random weights, whose pictures the verifier cannot read: rewards are random then. They take
turns. Peak memory is the process's on a CPU, in the first turn: later it holds what the other arm has left behind;
on a GPU it is what torch allocated.
Results are appended to benchmarks/results/rl_step.jsonl.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # before torch: short waits, see docs/log.md

import torch

import machine
import rl_official
from decode import random_janus
from janus_r1.environment import environment
from janus_r1.model.loading import save
from janus_r1.model.presets import PRESETS
from janus_r1.rewards.score import Ensemble, Item, Score
from janus_r1.train.loop import RunOptions
from janus_r1.train.lora import LoraRecipe
from janus_r1.train.rl import Parts, credited, dealt, draw_rollout, minibatch
from janus_r1.train.rl_recipe import RlRecipe

RESULTS = Path(__file__).parent / "results" / "rl_step.jsonl"
KL = 0.05
PARTS = ("drawing", "reward", "learning")


@dataclass
class Step:
    """Seconds of the parts of a step, and its drafts."""

    seconds: dict[str, float] = field(default_factory=dict)
    images: int = 0

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        began = _now()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + _now() - began


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


# ---------------------------------------------------------------------------------------- our structure


def ours(stage: Parts) -> Step:
    step = Step()
    with step.timed("drawing"):
        rollout = draw_rollout(stage, 0)
        groups = [credited(stage, group) for group in rollout.groups]
        batches, loss_of = minibatch(stage, dealt(groups, 1), 0)
    step.images = rollout.images
    step.seconds["reward"] = rollout.seconds_waiting  # beyond what ran beside the drawing
    step.seconds["drawing"] -= step.seconds["reward"]
    with step.timed("learning"):
        for batch in batches:
            with precision(stage):
                loss, _ = loss_of(stage.policy, batch)
            loss.backward()
        update(stage)
    return step


def precision(stage: Parts):
    half = stage.recipe.run.precision == "bf16"
    return torch.autocast(stage.janus.device.type, torch.bfloat16, enabled=half)


def update(stage: Parts) -> None:
    for optimizer in stage.optimizers:
        optimizer.step()
        optimizer.zero_grad()


# ------------------------------------------------------------------------------- the official structure


def official(stage: Parts) -> Step:
    """Rows at once: as many as ours learns from at once."""
    step, recipe = Step(), stage.recipe
    tasks = stage.tasks.step(recipe.prompts_per_step, 0, 0)
    texts = [task.prompt for task in tasks for _ in range(recipe.group)]
    rows = max(recipe.group, recipe.micro_batch // recipe.group * recipe.group)
    for start in range(0, len(texts), rows):
        part = texts[start : start + rows]
        with torch.no_grad(), step.timed("drawing"), precision(stage):
            chains = rl_official.three_stages(stage, part)
        with step.timed("reward"):
            advantages = rl_official.scored(stage, part, chains)
        with step.timed("learning"), precision(stage):
            (rl_official.three_losses(stage, chains, advantages) * len(part) / len(texts)).backward()
        step.images += 2 * len(part)
    with step.timed("learning"):
        update(stage)
    return step


# ------------------------------------------------------------------------------------------ measuring


ARMS = {"ours": ours, "official": official}


def measure(stage: Parts, arms: Sequence[str], repeats: int) -> dict[str, dict]:
    """Medians of every arm."""
    turns = machine.take_turns({name: partial(ARMS[name], stage) for name in arms}, repeats, str(stage.janus.device))
    return {name: summary(arm.results) | {"peak_bytes": arm.peaks[0]} for name, arm in turns.items()}


def summary(steps: Sequence[Step]) -> dict:
    middle = statistics.median(step.total for step in steps)
    parts = {part: statistics.median(step.seconds[part] for step in steps) for part in PARTS}
    images = statistics.median(step.images for step in steps)
    return {
        "seconds": middle,
        "all_seconds": sorted(step.total for step in steps),
        "split": parts,
        "images": images,
        "images_per_second": images / middle,
    }


class Chance:
    """Scores that depend on nothing: what a preset's pictures are worth."""

    name = "chance"

    def __init__(self) -> None:
        self.random = random.Random(0)

    def score(self, items: Sequence[Item]) -> list[Score]:
        return [self.random.random() for _ in items]


def preset_stage(options: argparse.Namespace) -> Parts:
    """Random weights, which the stage loads from a folder as it would a checkpoint's."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options.model = f"{options.out}/model"
    save(random_janus(options.preset, options.base_dtype, device), options.model)
    stage = stage_of(options)
    stage.rewards = Ensemble([(Chance(), 1.0)])
    return stage


def stage_of(options: argparse.Namespace) -> Parts:
    run = RunOptions(out=options.out, precision=options.precision, threads=options.threads)
    return Parts(
        RlRecipe(
            run=run,
            model=options.model,
            prompts_per_step=options.prompts,
            group=options.group,
            rounds=2,
            guidance=options.guidance,
            max_reason_tokens=options.max_reason_tokens,
            micro_batch=options.rows,
            max_batch=options.max_batch or options.rows,
            credit="segment",
            policy="guided",
            kl=KL,
            lr=1e-30,
            rollout_dtype="bfloat16" if options.precision == "bf16" else "float32",
            lora=LoraRecipe(rank=options.lora_rank, base_dtype=options.base_dtype),
            recompute=options.recompute,
            eval_every=0,
        )
    )


def options_from(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-sft")
    parser.add_argument("--preset", choices=("tiny", *PRESETS), help="random weights of this size instead")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--rows", type=int, default=32, help="chains at once in learning, and in the official arm")
    parser.add_argument("--max-batch", type=int, help="chains at once in drawing (as many as in learning)")
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--max-reason-tokens", type=int, default=40)
    parser.add_argument("--precision", default="no", choices=["no", "bf16"])
    parser.add_argument("--lora-rank", type=int, default=0)
    parser.add_argument("--base-dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--recompute", action="store_true", help="activations, in both arms")
    parser.add_argument("--arms", default="ours,official")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--no-save", action="store_true", help="do not append to the results")
    return parser.parse_args(argv)


def main() -> None:
    options = options_from()
    if options.threads:
        torch.set_num_threads(options.threads)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as options.out:
        stage = preset_stage(options) if options.preset else stage_of(options)
        print(f"prepared in {time.perf_counter() - began:.0f} s", flush=True)
        arms = measure(stage, options.arms.split(","), options.repeats)
    del options.out
    for name, arm in arms.items():
        split = ", ".join(f"{part} {arm['split'][part]:.2f}" for part in PARTS)
        rate = f"{arm['images']:.0f} images, {arm['images_per_second']:.2f} a second"
        print(f"{name:>9}  {arm['seconds']:7.2f} s a step ({split}); {rate}; peak {arm['peak_bytes'] / 1e9:.2f} GB")
    if len(arms) == 2:
        print(f"ours is faster by {arms['official']['seconds'] / arms['ours']['seconds']:.1f}x a step")
    if not options.no_save:
        where = machine.name(str(stage.janus.device))
        record = {"date": str(date.today()), **vars(options), "machine": where}
        record |= {"environment": environment(), "arms": arms}
        machine.append(RESULTS, record)


if __name__ == "__main__":
    main()
