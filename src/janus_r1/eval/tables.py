"""What every report is made of: results as files, titled tables, figures as text, a script's page."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from janus_r1.errors import UserError, one_line
from janus_r1.eval.statistics import Figure
from janus_r1.reading import read_json


@dataclass(frozen=True)
class Grid:
    """A titled table of text; the first row holds the column heads."""

    title: str
    rows: list[list[str]]


def markdown(grid: Grid) -> str:
    """The table in GitHub's Markdown, below its title; ends without a line break."""
    return f"**{grid.title}**\n\n{lines(grid.rows)}"


def lines(rows: Sequence[Sequence[str]]) -> str:
    """A table in GitHub's Markdown, the first row its heads; ends without a line break."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


def grid(head: list[str], body: list[list[str]]) -> list[str]:
    """Lines for a terminal, columns as wide as their longest cell."""
    widths = [max(len(row[i]) for row in (head, *body)) for i in range(len(head))]
    return [
        "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *body)
    ]


def rounds_title(limit: str) -> str:
    """``1 round``, ``3 rounds``."""
    return "1 round" if limit == "1" else f"{limit} rounds"


def show(value: Figure | dict[str, float] | None, digits: int = 3, scale: float = 1.0) -> str:
    """``0.832 [0.801, 0.860]``; n/a where a figure is undefined."""
    if value is None:
        return "n/a"
    ends = (value["mean"], value["low"], value["high"])
    mean, low, high = (f"{round(end * scale, digits) + 0.0:.{digits}f}" for end in ends)  # no -0.000
    return f"{mean} [{low}, {high}]"


def cell(value: Figure | None, scale: float = 1.0, digits: int | None = None) -> str:
    """The same of a benchmark's figure as papers print it, in percent or as a share."""
    return "-" if value is None else show(value, (3 if scale == 1 else 2) if digits is None else digits, scale)


def read_result(path: str | Path, *benchmarks: str) -> dict[str, Any]:
    """What ``janus-r1 eval`` wrote.

    Raises:
        UserError: for a file that is no result of one of ``benchmarks``.
    """
    result = read_json(Path(path))
    run = result.get("run") if isinstance(result, dict) else None
    if not isinstance(run, dict) or run.get("benchmark") not in benchmarks:
        raise UserError(f"{path} is not a result of janus-r1 eval {' or '.join(benchmarks)}")
    return result


def print_page(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, page: Callable[[argparse.Namespace], str]
) -> None:
    """What a script that writes a Markdown page does: bad input ends in one line and exit code 2."""
    try:
        print(page(parser.parse_args(argv)), end="")
    except UserError as error:
        parser.exit(2, f"{parser.prog}: error: {one_line(str(error))}\n")
