"""What every ``janus-r1 eval`` does around its benchmark: check, ask, measure, write, show."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from janus_r1.chain import Chain, Settings, Task
from janus_r1.commands.checks import check_writable
from janus_r1.commands.terminal import answers_only, print_json, say
from janus_r1.files import check_replaceable, write_json

if TYPE_CHECKING:
    from janus_r1.api import JanusR1

MOST = 1024  # chains at once, however much memory there is
Result = dict[str, Any]


def measure(args: argparse.Namespace, evaluate: Callable[[], Result], show: Callable[[Result, Console], None]) -> None:
    """Write the result to ``--out``; print it as JSON with ``--json``, else as ``show`` does."""
    if args.out:
        check_writable(Path(args.out))
        check_replaceable(Path(args.out), "file")
    with answers_only(args.json):
        result = evaluate()
    if args.out:
        write_json(Path(args.out), result)
    answer(args, result, show)


def answer(args: argparse.Namespace, result: Result, show: Callable[[Result, Console], None]) -> None:
    """Print a result that may have been written to ``--out``."""
    if args.json:
        print_json(result)
        return
    show(result, Console())
    if args.out:
        say(f"wrote {args.out}")


def asked(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """What the options of several benchmarks have in common."""
    from janus_r1.environment import environment

    given = {
        "world": args.world,
        "split": args.split,
        "samples": args.samples,
        "limit": args.limit,
        "model": args.model,
    }
    return {**given, "settings": settings, "environment": environment()}


def show_report(result: Result, console: Console) -> None:
    """The tables of a benchmark."""
    from janus_r1.eval.report import print_report

    print_report(result, console)


def sampler(
    model: JanusR1, max_batch: int, update: Callable[[int, int], None]
) -> Callable[[list[Task], Settings], list[Chain]]:
    """The model as a benchmark calls it: a chain a task; all of them are prompts, or all are edits."""

    def sample(tasks: list[Task], settings: Settings) -> list[Chain]:
        prompts, sources = [task.prompt for task in tasks], [task.source for task in tasks if task.source is not None]
        common = {"max_batch": max_batch, "on_progress": lambda done: update(done, len(tasks)), **asdict(settings)}
        return model.edit(sources, prompts, **common) if sources else model.generate(prompts, **common)

    return sample
