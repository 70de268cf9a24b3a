"""The leaderboard: result files of any benchmark side by side, and published figures beside them as their authors'.

What is read: reports of ``eval NAME report --out``; GenEval's own result file (one JSON object a line), as the original
or anyone's scorer writes it; and imported figures, ``{"benchmark", "model", "value", "source"}``, alone or in a list.
A page is one HTML file without scripts; the same table is printed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib.resources import files
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np

from janus_r1.errors import UserError
from janus_r1.eval.protocol import BASELINES
from janus_r1.eval.statistics import Figure, Rows
from janus_r1.eval.tables import cell, grid
from janus_r1.files import check_new_files, write_text
from janus_r1.reading import parse_json, read_text

LARGEST = 1e9  # of a figure: a share, a count of tokens, an error
WIDTH, LINE, LEFT = 720, 22, 300  # of a plot, in pixels
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .8rem;text-align:left;border-bottom:1px solid #ddd}
.cited{color:#777}svg text{font:13px system-ui,sans-serif}"""


@dataclass(frozen=True)
class Entry:
    """One line of a table."""

    benchmark: str
    title: str
    model: str
    figure: Figure
    """Without an interval (low = high = mean, n = 0) where only a number was published."""
    source: str
    """The file, or who published it."""
    measured: bool
    """Whether the images were scored here or their verdicts are at hand, rather than a number cited."""
    scale: float = 1.0
    note: str = ""
    less_is_better: bool = False


def compare(
    results: list[Path], out: Path | None = None, cited: bool = True, overwrite: bool = False, json: bool = False
) -> None:
    """The leaderboard: results side by side with their intervals, published figures beside them.

    Args:
        results: Reports (`report --out`), GenEval result files of anyone's scorer, or imported figures
        out: An HTML page with the tables and plots
        cited: Also show what authors and re-measurements published
        overwrite: Replace --out if it exists
        json: Print JSON in place of tables
    """
    check_new_files(overwrite, out)
    found = boards([entry for path in results for entry in read_results(path)], published() if cited else ())
    if out is not None:
        write_text(out, page(found))
    print(dumps([asdict(board) for board in found], indent=1) if json else text(found))


def read_results(path: Path) -> list[Entry]:
    """The entries of one file.

    Raises:
        UserError: if it is none of the three kinds.
    """
    text = read_text(path)
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].lstrip().startswith("{") and lines[0].rstrip().endswith("}"):
        return [_verdicts(path, [parse_json(line, f"{path}, line {n}") for n, line in enumerate(lines, 1)])]
    found = parse_json(text, str(path))
    if isinstance(found, dict) and "arms" in found:
        return _report(path, found)
    rows = found if isinstance(found, list) else [found]
    if isinstance(found, dict) and {"tag", "correct"} <= set(found):
        return [_verdicts(path, rows)]
    return [_imported(f"{path}, entry {n}", row) for n, row in enumerate(rows, 1)]


def published() -> list[Entry]:
    """Figures that others published."""
    text = files("janus_r1.eval").joinpath("data/published.json").read_text(encoding="utf-8")
    return [_imported("published.json", row, row["by"]) for row in parse_json(text, "published.json")]


def _report(path: Path, found: dict[str, Any]) -> list[Entry]:
    """An entry an arm of rounds: what a model draws at once, and what introspection makes of it."""
    try:
        run = found["draw"] or {}
        model = str(run.get("model") or path.stem)
        entries = []
        for name, arm in found["arms"].items():
            if name.startswith("draft_"):
                continue
            rounds = f", {BASELINES.get(name, name.replace('_', ' '))}" if name else ""
            settings = run.get("settings", {})
            note = f"guidance {settings['guidance']:g}, seed {settings['seed']}" if settings else ""
            note += "; rewritten prompts" if run.get("rewritten") else ""
            judge = f"judge {found['judge'].get('judge')}"
            note = "; ".join(filter(None, (judge, note)))
            for figure, about in _figures(found, arm):
                entries.append(
                    Entry(model=model + rounds, figure=figure, source=path.name, measured=True, note=note, **about)
                )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path} is not a whole report: {error!r:.80}") from None
    return entries


def _figures(found: dict[str, Any], arm: dict[str, Any]) -> Iterator[tuple[Figure, dict[str, Any]]]:
    """An arm's headline, or each of its measures; what was not measured is passed over."""
    name, title = str(found["benchmark"]), str(found["title"])
    if isinstance(arm["overall"], dict):
        yield _figure(arm["overall"]), {"benchmark": name, "title": title, "scale": float(found["scale"])}
    for key, value in (arm.get("measures") or {}).items():
        if isinstance(value, dict):
            one = found["measures"][key]
            told = {"benchmark": f"{name}-{key}", "title": f"{title}: {one['title']}"}
            yield _figure(value), {**told, "scale": float(one["factor"]), "less_is_better": bool(one["less_is_better"])}


def _figure(value: dict[str, Any]) -> Figure:
    """Raises ValueError for one whose parts are no numbers that a plot can show."""
    mean, low, high = (float(value[key]) for key in ("mean", "low", "high"))
    if not all(abs(part) < LARGEST for part in (mean, low, high)):
        raise ValueError(f"a figure of {mean} [{low}, {high}]")
    return Figure(mean=mean, low=low, high=high, n=int(value["n"]))


def _verdicts(path: Path, rows: Sequence[Any]) -> Entry:
    """GenEval's own result file: the mean of the tags' means, with its interval over prompts."""
    keys = ("tag", "correct", "metadata")
    if not all(isinstance(row, dict) and all(key in row for key in keys) for row in rows):
        raise UserError(f"{path} is neither a report, nor GenEval's result file (tag, correct, metadata), nor figures")
    prompts, tags = (np.array([str(row[key]) for row in rows]) for key in ("metadata", "tag"))
    figure = Rows(prompts, tags).overall(np.array([float(bool(row["correct"])) for row in rows]))
    whole = len(set(prompts.tolist())) == 553 and len(rows) >= 4 * 553
    return Entry("geneval", "GenEval" if whole else "GenEval (partial)", path.stem, figure, path.name, True)


def _imported(place: str, row: Any, by: str = "") -> Entry:
    if not isinstance(row, dict) or not {"benchmark", "model", "value", "source"} <= set(row):
        raise UserError(f"{place}: an imported figure has benchmark, model, value and source")
    value = row["value"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f"{place}: the value {value!r:.40} is not between 0 and 1")
    figure = Figure(mean=float(value), low=float(value), high=float(value), n=0)
    name = str(row["benchmark"])
    note = f"by {by}" if by else "cited"
    note += f"; judged by {row['judge']}, which is another scale" if row.get("judge") else ""
    return Entry(name, "", str(row["model"]), figure, str(row["source"]), False, note=note)


# -------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Board:
    """One benchmark's entries, the best first."""

    title: str
    scale: float
    entries: list[Entry]


def boards(entries: Iterable[Entry], cited: Iterable[Entry] = ()) -> list[Board]:
    """A board for every title that was measured (partial figures have titles of their own); cited figures join the
    whole boards of their benchmark, and make one of their own where the user named them and nothing was measured."""
    given = list(entries)
    measured, others_too = ([one for one in given if one.measured is kind] for kind in (True, False))
    cited = [*others_too, *cited]
    made = []
    for title in dict.fromkeys(entry.title for entry in measured):
        mine = [entry for entry in measured if entry.title == title]
        name, partial = mine[0].benchmark, "(partial)" in title
        others = [] if partial else [entry for entry in cited if entry.benchmark == name]
        sign = 1 if mine[0].less_is_better else -1
        ranked = sorted([*mine, *others], key=lambda entry: sign * entry.figure["mean"])
        made.append(Board(title, max(entry.scale for entry in mine), ranked))
    seen = {entry.benchmark for entry in measured}
    for name in dict.fromkeys(entry.benchmark for entry in others_too if entry.benchmark not in seen):
        mine = [entry for entry in cited if entry.benchmark == name]
        made.append(Board(name, 1.0, sorted(mine, key=lambda entry: -entry.figure["mean"])))
    return made


def text(found: Sequence[Board]) -> str:
    """Tables for a terminal."""
    lines = []
    for board in found:
        body = [[entry.model, _value(entry, board.scale), entry.source, entry.note] for entry in board.entries]
        lines += [board.title, *grid(["model", "score", "source", ""], body), ""]
    return "\n".join(
        [*lines, "Brackets are 95 % intervals over prompts; figures without them are cited, not measured."]
    )


def page(found: Sequence[Board]) -> str:
    """One HTML file: a table and a plot a benchmark."""
    parts = [f"<!doctype html><meta charset=utf-8><title>Benchmarks</title><style>{STYLE}</style><h1>Benchmarks</h1>"]
    for board in found:
        rows = "".join(
            f"<tr{'' if entry.measured else ' class=cited'}><td>{escape(entry.model)}<td>"
            f"{escape(_value(entry, board.scale))}<td>{escape(entry.source)}<td>{escape(entry.note)}"
            for entry in board.entries
        )
        parts.append(f"<h2>{escape(board.title)}</h2>{_plot(board)}")
        parts.append(f"<table><tr><th>model<th>score<th>source<th>{rows}</table>")
    parts.append(
        "<p>Brackets and bars are 95 % intervals over prompts. Grey figures are cited from their authors or from a "
        "re-measurement, and were not measured here."
    )
    return "\n".join(parts) + "\n"


def _value(entry: Entry, scale: float) -> str:
    shown = cell(entry.figure, scale)
    return shown if entry.figure["n"] else shown.partition(" ")[0]


def _plot(board: Board) -> str:
    """Dots with their intervals on a common axis, as SVG."""
    lows, highs = ([entry.figure[key] for entry in board.entries] for key in ("low", "high"))  # type: ignore[literal-required]
    low, high = min(lows), max(highs)
    span = max(high - low, 0.02)
    low, high = low - 0.05 * span, high + 0.05 * span

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - 10) * (value - low) / (high - low)

    height = LINE * len(board.entries) + 20
    marks = []
    for number, entry in enumerate(board.entries):
        y, color, figure = LINE * number + LINE / 2, "#1f6fb2" if entry.measured else "#999", entry.figure
        marks.append(f'<text x="{LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">{escape(entry.model[:44])}</text>')
        marks.append(
            f'<line x1="{x(figure["low"]):.1f}" x2="{x(figure["high"]):.1f}" y1="{y}" y2="{y}" stroke="{color}" '
            f'stroke-width="2"/><circle cx="{x(figure["mean"]):.1f}" cy="{y}" r="4" fill="{color}"/>'
        )
    ends = f'<text x="{LEFT}" y="{height - 4}">{low * board.scale:.3g}</text>'
    ends += f'<text x="{WIDTH - 10}" y="{height - 4}" text-anchor="end">{high * board.scale:.3g}</text>'
    return f'<svg width="{WIDTH}" height="{height}" role="img">{"".join(marks)}{ends}</svg>'
