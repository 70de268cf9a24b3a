"""What every ``janus-r1 eval`` does around its benchmark: check, measure, write, show."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from janus_r1.commands.checks import check_writable
from janus_r1.commands.terminal import answers_only, print_json, say
from janus_r1.files import write_json

Result = dict[str, Any]


def measure(args: argparse.Namespace, evaluate: Callable[[], Result], show: Callable[[Result, Console], None]) -> None:
    """Write the result to ``--out``; print it as JSON with ``--json``, else as ``show`` does."""
    if args.out:
        check_writable(Path(args.out))
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


def show_report(result: Result, console: Console) -> None:
    """The tables of a benchmark."""
    from janus_r1.eval.report import print_report

    print_report(result, console)
