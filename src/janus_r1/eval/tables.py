"""What every report is made of: titled tables, and figures as text."""

from __future__ import annotations

from dataclasses import dataclass

from janus_r1.eval.statistics import Figure


@dataclass(frozen=True)
class Grid:
    """A titled table of text; the first row holds the column heads."""

    title: str
    rows: list[list[str]]


def markdown(grid: Grid) -> str:
    """The table in GitHub's Markdown, below its title; ends without a line break."""
    head, *body = (f"| {' | '.join(row)} |" for row in grid.rows)
    return "\n".join([f"**{grid.title}**", "", head, "|" + " --- |" * len(grid.rows[0]), *body])


def show(value: Figure | dict[str, float] | None, digits: int = 3) -> str:
    """``0.832 [0.801, 0.860]``; n/a where a figure is undefined."""
    if value is None:
        return "n/a"
    ends = (value["mean"], value["low"], value["high"])
    mean, low, high = (f"{round(end, digits) + 0.0:.{digits}f}" for end in ends)  # no -0.000
    return f"{mean} [{low}, {high}]"
