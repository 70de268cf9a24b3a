"""kill -9 at random moments of whatever takes long, seeded: what is gone on with must equal what was never stopped.

CI kills everything once (``test_kills.py``); a longer run, and another seed:

    python tests/kills.py --kills 20 --seed 1

A command runs in a child that is forked from this process, which has loaded torch but never used it: killing it costs
a fork and not a start of Python. Each command runs whole once, to be compared with; then it is started, killed after a
random part of that time and gone on with, again and again, until it has been killed ``--kills`` times in all and has
ended. Equal are weights, averages, metrics but for times, data, images and scores; what servers were asked and answered
is counted, so that nothing is paid for twice but what was under way. At the end two processes are set on one folder.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_formats import lines, picture

PROMPTS = [f"a cat number {number}" for number in range(12)]
MODULES = ("train.rl", "train.sft", "worlds.shapes.training.repair", "worlds.shapes.training.vision")
MODULES += ("worlds.shapes.training.pretrain", "commands.evaluate", "commands.data", "commands.benchmarks")
UNDER_WAY = 4  # calls that a server answers at once: what a kill may lose
Found = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A command that can be killed."""

    words: str
    """Its command line: {out} is the place that it writes to, {made} what earlier commands made, {root} the ground."""
    found: Callable[[Path], Found]
    """What must be equal, by name."""
    resume: tuple[str, ...] = ("--resume",)

    def argv(self, ground: Ground, out: Path) -> list[str]:
        words = self.words.split()
        return [word.format(out=out, made=ground.root / "whole", root=ground.root, url=ground.url) for word in words]


@dataclass
class Ground:
    """A folder with what earlier commands made, and the servers' addresses."""

    root: Path
    url: str = ""
    answered: Callable[[], int] = lambda: 0
    seconds: dict[str, float] = field(default_factory=dict)
    """That each took whole."""
    calls: dict[str, int] = field(default_factory=dict)
    """And what it had servers answer."""

    def made(self, name: str) -> Path:
        return self.root / "whole" / name


# ---------------------------------------------------------------------------------- what is compared


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def of_run(out: Path) -> Found:
    """All weights, and the figures of every step but its times."""
    found: Found = {str(path.relative_to(out)): digest(path) for path in out.rglob("*.safetensors")}
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    found["metrics"] = [{k: str(v) for k, v in row.items() if "second" not in k} for row in rows]
    assert any(float(row["grad_norm"]) > 0 for row in found["metrics"]), "nothing was learnt: this shows nothing"
    rollouts = out / "rollouts.jsonl"
    return {**found, "rollouts": rollouts.read_text() if rollouts.exists() else ""}


def of_files(*patterns: str) -> Callable[[Path], Found]:
    def found(out: Path) -> Found:
        files = [path for pattern in patterns for path in out.glob(pattern) if path.is_file()]
        return {str(path.relative_to(out)): digest(path) for path in files}

    return found


def of_store(out: Path) -> Found:
    """Its rows; the shards' footers also tell times."""
    from janus_r1.data.store import Store

    return {record.id: record for record in Store(out)}


def of_result(out: Path) -> Found:
    result = json.loads(out.read_text())
    result.pop("cost")
    result["run"].pop("environment")
    return result


def of_drawn(out: Path) -> Found:
    images = of_files("round_*/*.png", "draft_*/*.png")(out)
    chains = [json.loads(line) for line in (out / "chains-0-of-1.jsonl").read_text().splitlines()]
    return {**images, "chains": chains}


def of_scores(out: Path) -> Found:
    """A row an image; also of images that were scored, but whose row a kill lost."""
    rows = [json.loads(line) for line in out.read_text().splitlines()][1:]
    assert len({(row["arm"], row["file"]) for row in rows}) == len(rows), "an image was scored twice"
    return {f"{row['arm']}/{row['file']}": row["value"] for row in rows}


# -------------------------------------------------------------------------------------- the commands


def trains(stage: str, words: str) -> Kind:
    steps = "--run.steps 6 --run.save_every 2 --run.preview_every 0 --run.log_every 1 --run.warmup 0 --run.ema 0.5"
    return Kind(f"train {stage} --run.out {{out}} {steps} --run.trackers [] --run.threads 1 {words}", of_run)


BASE = "--model {made}/pretrain/model"
DATA = "--data {root}/geneval2.jsonl"
KINDS: dict[str, Kind] = {
    "vq": trains("vq", "--batch 2 --codes 32 --continuous_steps 2"),
    "pretrain": trains(
        "pretrain",
        "--vq {made}/vq/vq --draw_rows 4 --see_rows 2 --hidden 64 --layers 1 --intermediate 96 --tokenizer_prompts 40",
    ),
    "vision": trains("vision", f"{BASE} --batch 2"),
    "build": Kind(
        "data build --model tiny-base --out {out} --prompts 8 --part 2 --temperatures [1.0] --threads 1",
        of_files("part_*/*"),
    ),
    "sft": trains("sft", "--model tiny-base --candidates {made}/build --rows 4"),
    "rl": trains(
        "rl",
        f"{BASE} --prompts_per_step 2 --group 2 --rounds 2 --eval_every 3 --eval_prompts 2 --max_reason_tokens 8 "
        "--lr 1e-3 --keep_candidates true",
    ),
    "repair": trains(
        "repair",
        f"{BASE} --rows.draw 2 --rows.repair 2 --rows.edit 1 --rows.look 4 --rows.judge_edit 2 --rows.compare 1 "
        "--rows.see 1 --drafts 4 --refresh 3 --kept 7",
    ),
    "import": Kind("data import {root}/source {out} --shard-rows 5", of_files("data/*.parquet")),
    "make": Kind("data make --config {root}/make.yaml --out {out}", of_store),
    "world": Kind(
        f"eval world {BASE} --limit 2 --samples 1 --rounds 1,2 --variety 0 --out {{out}}", of_result, resume=()
    ),
    "draw": Kind(f"eval geneval2 draw {{out}} {DATA} {BASE} --rounds 2 --controls --batch 2", of_drawn, resume=()),
    "score": Kind(
        f"eval geneval2 score {{made}}/draw --out {{out}} {DATA} --url {{url}} --model judge --batch 2 "
        f"--concurrency {UNDER_WAY}",
        of_scores,
        resume=(),
    ),
}


@contextmanager
def make_ground(root: Path) -> Iterator[Ground]:
    from test_data_make import Server

    (root / "whole").mkdir()
    (root / "source").mkdir()
    rows = [{"prompt": f"a cat {number}", "image": f"{number}.png", "score": 0.9} for number in range(40)]
    for number in range(len(rows)):
        (root / "source" / f"{number}.png").write_bytes(picture(number))
    lines(root / "source" / "rows.jsonl", rows)
    asked = [["Is there a cat?", "Yes"]]
    lines(
        root / "geneval2.jsonl", [{"prompt": p, "vqa_list": asked, "skills": ["x"], "atom_count": 1} for p in PROMPTS]
    )
    (root / "prompts.txt").write_text("\n".join(PROMPTS))
    cited = [{"benchmark": "geneval", "model": "X", "value": 0.8, "source": "a paper"}]
    (root / "cited.json").write_text(json.dumps(cited))
    with Server() as server:
        quick = {"concurrency": UNDER_WAY, "backoff_s": 0.001, "url": server.url}
        drawers = [{"kind": "server", "model": "FLUX", **quick}]
        rewards = [{"kind": "endpoint", "model": "judge", **quick}]
        recipe = {"prompts": str(root / "prompts.txt"), "drawers": drawers, "rewards": rewards, "part": 3}
        (root / "make.yaml").write_text(json.dumps(recipe))
        yield Ground(root, server.url, lambda: sum(server.answered.values()))


# ------------------------------------------------------------------------------------------ children


def start(argv: list[str], log: Path, limit: int | None = None) -> int:
    """A child that runs the command line; its process id. It can write ``limit`` bytes into a file at most."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        from janus_r1.cli import main

        code = main(argv)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 71
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def ended(child: int, within: float) -> int | None:
    """Its exit code, if it ends within so many seconds; a kill counts as -9."""
    until = time.monotonic() + within
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.002)


def to_the_end(argv: list[str], log: Path) -> None:
    if (code := ended(start(argv, log), 600)) != 0:
        raise AssertionError(f"{' '.join(argv)} ended with {code}:\n{log.read_text()[-1500:]}")


# --------------------------------------------------------------------------------------------- checks


def run_whole(name: str, ground: Ground) -> Found:
    """Once without a kill, to be compared with."""
    out, before, began = ground.made(name), ground.answered(), time.monotonic()
    to_the_end(KINDS[name].argv(ground, out), ground.root / "log")
    ground.seconds[name] = time.monotonic() - began
    ground.calls[name] = ground.answered() - before
    return KINDS[name].found(out)


def run_killed(name: str, ground: Ground, kills: int, rng: random.Random, whole: Found) -> int:
    """Kill and go on until it has ended and was killed so often in all; how often it was killed while it worked.

    Raises AssertionError where the result is another one, or something was paid for twice.
    """
    kind, out, log, done = KINDS[name], ground.root / "killed" / name, ground.root / "log", 0
    killed = 0
    while done < kills:
        shutil.rmtree(out.parent, ignore_errors=True)
        out.parent.mkdir()
        before, own = ground.answered(), 0
        argv = kind.argv(ground, out)
        for _ in range(min(rng.randint(1, 4), kills - done)):
            child = start(argv if own == 0 else [*argv, *kind.resume], log)
            code = ended(child, rng.uniform(0, ground.seconds[name]))
            if code is not None:
                break
            os.kill(child, signal.SIGKILL)
            ended(child, 60)
            own += 1
        done, killed = done + max(1, own), killed + own  # it may have ended before its kill
        if code not in (None, 0):
            raise AssertionError(f"{name} ended with {code} after a kill:\n{log.read_text()[-1500:]}")
        if code is None:
            to_the_end([*argv, *kind.resume], log)
        compare(name, whole, kind.found(out), out.parent)
        paid = ground.answered() - before
        need = ground.calls[name]
        assert paid <= need + own * UNDER_WAY, f"{name}: {paid} answers were paid for, {need} are needed"
    return killed


def compare(name: str, whole: Found, found: Found, folder: Path) -> None:
    differing = [key for key in {**whole, **found} if whole.get(key) != found.get(key)]
    assert not differing, f"{name}: {differing[:3]} differ after a kill"
    left = [path for path in folder.rglob(".*") if path.name.endswith((".tmp", ".old", ".lock"))]
    assert not left, f"{name} leaves {left}"


def two_at_once(name: str, ground: Ground, whole: Found) -> None:
    """One of two processes does the work, the other says in one line that it cannot."""
    out = ground.root / "killed" / name
    shutil.rmtree(out.parent, ignore_errors=True)
    out.parent.mkdir()
    logs = [ground.root / f"log{number}" for number in range(2)]
    children = [start(KINDS[name].argv(ground, out), log) for log in logs]
    codes = [ended(child, 600) for child in children]
    told = [line for log, code in zip(logs, codes, strict=True) if code for line in log.read_text().splitlines()]
    errors = [line for line in told if line.startswith("janus-r1: error: ")]
    assert sorted(map(str, codes)) == ["0", "2"], f"{name}: two at once end with {codes}: {told[-3:]}"
    refused = ("in use", "already", "exists", "holds")
    assert len(errors) == 1 and any(word in errors[0] for word in refused), f"{name}: {errors}"
    compare(name, whole, KINDS[name].found(out), out.parent)


def prepare() -> None:
    """Everything is loaded once, and nothing is run: a child of a process with threads would hang."""
    import torch

    for name in MODULES:
        importlib.import_module(f"janus_r1.{name}")
    torch.set_num_threads(1)


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each command")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), help="what to kill; all run whole before")
    args = parser.parse_args()
    prepare()
    failures = []
    with tempfile.TemporaryDirectory() as folder, make_ground(Path(folder)) as ground:
        for name in KINDS:
            whole = run_whole(name, ground)
            if name not in args.kinds:
                continue
            rng, began = random.Random(f"{name} {args.seed}"), time.monotonic()
            try:
                killed = run_killed(name, ground, args.kills, rng, whole)
                two_at_once(name, ground, whole)
                print(f"{name}: {killed} kills, all equal; two at once: one is refused; ", end="")
            except AssertionError as error:
                failures.append(f"{name}: {error}")
                print(f"FAILED {error} ", end="")
            print(f"{time.monotonic() - began:.0f} s, {ground.seconds[name]:.1f} s whole", flush=True)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{len(failures)} failures; {spent.ru_utime + spent.ru_stime:.0f} s of CPU")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(_main())
