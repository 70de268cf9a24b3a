"""The result of a benchmark for people: tables on the terminal, or Markdown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from janus_r1.eval import audit_report, edit_report, tables
from janus_r1.eval.pie import report as pie_report
from janus_r1.eval.tables import Grid, show
from janus_r1.files import read_json

JUDGE = ("accuracy", "balanced_accuracy", "auroc", "ece", "positive_rate", "base_rate")
# benchmarks whose tables are their own
OTHERS: dict[str, Any] = {"edit": edit_report, "pie": pie_report, "audit": audit_report}
CHAINS = ("triggered", "fixed", "broken", "gain", "rounds_used", "tokens")


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
    if other := OTHERS.get(_benchmark(result)):
        return other.grids(result)
    judged = [_rounds(result["rounds"]), _introspection(result["introspection"]), _verdict(result["verdict"])]
    return [*judged, _controls(result)] if result["controls"] else judged


def _benchmark(result: dict[str, Any]) -> str:
    return result["run"]["benchmark"]


def footer(result: dict[str, Any]) -> str:
    """One paragraph: what was measured, what it cost, what failed."""
    if other := OTHERS.get(_benchmark(result)):
        return other.footer(result)
    run, cost, failures = result["run"], result["cost"], result["failures"]
    rate = cost["images_per_second"]
    parts = [
        f"{run['model'] or 'model'} on {run['split']}: {run['prompts']} prompts x {run['samples']} samples, "
        f"guidance {run['settings']['guidance']:g}, seed {run['settings']['seed']}.",
        f"{cost['images']} images in {cost['seconds']:.1f} s" + (f" ({rate:.1f} images/s)." if rate else "."),
        "Brackets are 95 % intervals over prompts.",
    ]
    if failures["drafts"]:
        parts.append(
            f"{failures['drafts']} images could not be scored ({failures['examples'][0]}); "
            f"{failures['chains']} chains are left out."
        )
    return " ".join(parts)


# ------------------------------------------------------------------------------------------ tables


def _rounds(rounds: dict[str, Any]) -> Grid:
    """A column a round limit; families, then the mean."""
    reports = list(rounds.values())
    rows = [["correct", *(f"{limit} round{'s' if limit != '1' else ''}" for limit in rounds)]]
    rows += [[name, *(show(report["families"][name]) for report in reports)] for name in reports[0]["families"]]
    rows.append(["overall (mean of families)", *(show(report["overall"]) for report in reports)])
    rows.append(["gain over round 1", *(show(report["gain"]) for report in reports)])
    rows.append(["mean verifier score", *(show(report["score"]) for report in reports)])
    rows.append(["tokens a chain", *(show(report["tokens"], 1) for report in reports)])
    return Grid("After at most T rounds", rows)


def _introspection(chains: dict[str, Any]) -> Grid:
    body = [[name.replace("_", " "), show(chains[name], 1 if name == "tokens" else 3)] for name in CHAINS]
    return Grid("Introspection (share of all chains)", [["", "value"], *body])


def _verdict(verdict: dict[str, Any]) -> Grid:
    head = ["", "first drafts", "all drafts"]
    body = [[name.replace("_", " "), show(verdict[name]), show(verdict["all_drafts"][name])] for name in JUDGE]
    return Grid("Verdicts", [head, *body, ["accuracy, classes balanced", show(verdict["balanced"]), ""]])


def _controls(result: dict[str, Any]) -> Grid:
    """One row an arm; ``advantage`` is introspection minus the control, paired by image.

    The chains have the control's number of drafts as their round limit, at equal tokens their largest.
    One draft is the chains' own first round, which the first table shows.
    """
    controls = result["controls"]
    equal = controls["best_of_n_equal_tokens"]
    rows = [["control", "correct", "tokens", "gain over it"]]
    for name, title in (("best_of_n", "best of {}"), ("blind_redraw", "blind redraw of {}")):
        rows += [
            _arm(title.format(n), arm, f"{arm['tokens']['mean']:.1f}") for n, arm in controls[name].items() if n != "1"
        ]
    label = "equal tokens" if equal["reached"] else "fewer tokens"
    rows.append(_arm(f"best of {equal['n']:.2f} ({label})", equal, f"{equal['tokens']:.1f}"))
    rows += [[f"oracle of {n}", show(value), "", ""] for n, value in controls["oracle"].items() if n != "1"]
    return Grid("Controls on independent drafts", rows)


def _arm(title: str, arm: dict[str, Any], tokens: str) -> list[str]:
    return [title, show(arm["overall"]), tokens, show(arm["advantage"])]


# --------------------------------------------------------------------------------- many results


def summary(results: list[dict[str, Any]]) -> str:
    """One Markdown line a result: what most readers want to compare."""
    head = ["model", "prompts", "first draft", "after introspection", "gain", "verdict accuracy", "AUROC"]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for result in results:
        limits = list(result["rounds"])
        first, last = result["rounds"][limits[0]], result["rounds"][limits[-1]]
        verdict = result["verdict"]
        cells = [show(first["overall"]), show(last["overall"]), show(last["gain"])]
        cells += [show(verdict["balanced"] or verdict["accuracy"]), show(verdict["auroc"])]
        lines.append(f"| {result['run']['model']} | {result['run']['split']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(paths: list[str]) -> None:
    """``python -m janus_r1.eval.report results/*.json``: a summary, then every result whole."""
    results = [read_json(Path(path)) for path in paths]
    worlds = [result for result in results if _benchmark(result) not in OTHERS]
    print("# Results\n\n" + (summary(worlds) if worlds else ""))
    for path, result in zip(paths, results, strict=True):
        print(f"## {Path(path).stem}\n\n{markdown(result)}")


if __name__ == "__main__":
    main(sys.argv[1:])
