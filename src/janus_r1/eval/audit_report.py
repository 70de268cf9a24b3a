"""Audits for people, side by side: ``python -m janus_r1.eval.audit_report before/audit.json after/audit.json``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from janus_r1.eval.statistics import Figure
from janus_r1.eval.tables import Grid, markdown, print_page, read_result, show

Result = dict[str, Any]


def grids(result: Result) -> list[Grid]:
    """The tables of one audit, in the order of reading."""
    return side_by_side([result])


def footer(result: Result) -> str:
    return about([result])


def side_by_side(results: Sequence[Result]) -> list[Grid]:
    """A column a model; every cell says of how many drafts it is the share."""
    return [
        Grid(
            "First drafts",
            [
                ["", *_models(results)],
                ["right", *(_cell(result["right"]) for result in results)],
                ["wrong ones that were accepted", *(_cell(r["accepted_wrong"]["of_wrong"]) for r in results)],
                ["right ones that were rejected", *(_cell(r["rejected_right"]["of_right"]) for r in results)],
                ["rejected wrong ones with a true reason", *(_cell(r["rejected_wrong"]["explained"]) for r in results)],
            ],
        ),
        _table("Share of wrong drafts that were accepted, by family", results, "accepted_wrong", "families"),
        _table("The same by what the verifier finds wrong first", results, "accepted_wrong", "kinds"),
        _table("Share of right drafts that were rejected, by family", results, "rejected_right", "families"),
        _table(
            "What the model finds wrong in right drafts (share of those rejected)", results, "rejected_right", "claims"
        ),
        _table(
            "Share of rejected wrong drafts with a true reason, by what is wrong", results, "rejected_wrong", "kinds"
        ),
    ]


def about(results: Sequence[Result]) -> str:
    """One paragraph: what was measured."""
    run = results[0]["run"]
    counts = ", ".join(f"{result['cost']['images']} of {result['run']['model']}" for result in results)
    return (
        f"First drafts on the prompts {run['split']}, {run['samples']} samples each: {counts}. Brackets are 95 % "
        "intervals over prompts; behind them the number of drafts of which it is the share."
    )


def _models(results: Sequence[Result]) -> list[str]:
    return [str(result["run"]["model"] or "model") for result in results]


def _table(title: str, results: Sequence[Result], error: str, part: str) -> Grid:
    parts = [result[error][part] for result in results]
    names = dict.fromkeys(name for figures in parts for name in figures)
    rows = [[name.replace("_", " "), *(_cell(figures.get(name)) for figures in parts)] for name in names]
    return Grid(title, [["", *_models(results)], *rows])


def _cell(figure: Figure | None) -> str:
    return f"{show(figure)} of {figure['n']}" if figure else "none"


def read_audits(paths: Sequence[str]) -> list[Result]:
    """Raises UserError for a file that is no audit."""
    return [read_result(path, "audit") for path in paths]


def page(results: Sequence[Result]) -> str:
    """All audits as one page of Markdown."""
    return "\n\n".join(["# Where the judge errs", *map(markdown, side_by_side(results)), about(results)]) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the Markdown of all audits side by side."""
    parser = argparse.ArgumentParser(prog="python -m janus_r1.eval.audit_report", description="Audits side by side.")
    parser.add_argument("paths", nargs="+", metavar="audit.json")
    print_page(parser, argv, lambda args: page(read_audits(args.paths)))


if __name__ == "__main__":
    main()
