"""The result of a benchmark for people: tables on the terminal, or Markdown.

``python -m janus_r1.eval.report results/*.json``: a summary, then every result whole.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from janus_r1.eval import audit_report, edit_report, tables, world_report
from janus_r1.eval.pie import report as pie_report
from janus_r1.eval.tables import Grid, show

REPORTS: dict[str, Any] = {"world": world_report, "edit": edit_report, "pie": pie_report, "audit": audit_report}


def print_report(result: dict[str, Any], console: Console | None = None) -> None:
    """Print every table of a result, then its cost and its failures."""
    console = console or Console()
    for grid in grids(result):
        table = Table(*grid.rows[0], title=grid.title, title_justify="left", title_style="bold")
        for row in grid.rows[1:]:
            table.add_row(*row)
        console.print(table)
    console.print(footer(result), highlight=False, markup=False)


def markdown(result: dict[str, Any]) -> str:
    """The same tables in GitHub's Markdown."""
    return "\n\n".join([*map(tables.markdown, grids(result)), footer(result)]) + "\n"


def grids(result: dict[str, Any]) -> list[Grid]:
    """The tables of a result, in the order of reading."""
    return REPORTS[_benchmark(result)].grids(result)


def footer(result: dict[str, Any]) -> str:
    """One paragraph: what was measured, what it cost, what failed."""
    return REPORTS[_benchmark(result)].footer(result)


def _benchmark(result: dict[str, Any]) -> str:
    return result["run"]["benchmark"]


# --------------------------------------------------------------------------------- many results


def summary(results: list[dict[str, Any]]) -> str:
    """One Markdown line a result of ``world``: what most readers want to compare."""
    rows = [["model", "prompts", "first draft", "after introspection", "gain", "verdict accuracy", "AUROC"]]
    for result in results:
        limits = list(result["rounds"])
        first, last = result["rounds"][limits[0]], result["rounds"][limits[-1]]
        verdict = result["verdict"]
        cells = [show(first["overall"]), show(last["overall"]), show(last["gain"])]
        cells += [show(verdict["balanced"] or verdict["accuracy"]), show(verdict["auroc"])]
        rows.append([str(result["run"]["model"]), result["run"]["split"], *cells])
    return tables.lines(rows) + "\n"


def page(paths: Sequence[str]) -> str:
    """Raises UserError for a file that is no result."""
    results = {path: tables.read_result(path, *REPORTS) for path in paths}
    worlds = [result for result in results.values() if _benchmark(result) == "world"]
    parts = [f"## {Path(path).stem}\n\n{markdown(result)}\n" for path, result in results.items()]
    return "".join(["# Results\n\n", summary(worlds) if worlds else "", "\n", *parts])


def main(argv: Sequence[str] | None = None) -> None:
    """Print the page of the files that are named."""
    parser = argparse.ArgumentParser(prog="python -m janus_r1.eval.report", description="Results as Markdown.")
    parser.add_argument("paths", nargs="+", metavar="RESULT.json")
    tables.print_page(parser, argv, lambda args: page(args.paths))


if __name__ == "__main__":
    main()
