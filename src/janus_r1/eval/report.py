"""The result of a benchmark for people: tables on the terminal, or Markdown.

``python -m janus_r1.eval.report results/*.json``: a summary, then every result whole.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from janus_r1.errors import UserError
from janus_r1.eval import tables
from janus_r1.eval.protocol import BASELINES
from janus_r1.eval.tables import Grid, rounds_title, show

Result = dict[str, Any]

JUDGE = ("accuracy", "balanced_accuracy", "auroc", "ece", "positive_rate", "base_rate")
CHAINS = ("triggered", "fixed", "broken", "gain", "rounds_used", "tokens")
CHECKS = ("following", "preserving", "both")
SEEING = (
    "`janus-r1 eval understanding` asks plain questions about fresh pictures of the world, whose answers are known. "
    "Brackets are 95 % intervals over pictures. One training each, one seed."
)


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
    return REPORTS[_benchmark(result)][0](result)


def footer(result: dict[str, Any]) -> str:
    """One paragraph: what was measured, what it cost, what failed."""
    return REPORTS[_benchmark(result)][1](result)


def _benchmark(result: dict[str, Any]) -> str:
    return result["run"]["benchmark"]


# --------------------------------------------------------------------------------------------- prompts


def world_grids(result: dict[str, Any]) -> list[Grid]:
    """The tables of a result, in the order of reading."""
    judged = [_world_rounds(result["rounds"]), _introspection(result["introspection"]), _verdict(result["verdict"])]
    return [*judged, _controls(result)] if result["controls"] else judged


def world_footer(result: dict[str, Any]) -> str:
    """One paragraph: what was measured, what it cost, what failed."""
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


def _world_rounds(rounds: dict[str, Any]) -> Grid:
    """A column a round limit; families, then the mean."""
    reports = list(rounds.values())
    rows = [["correct", *map(rounds_title, rounds)]]
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


# ----------------------------------------------------------------------------------------------- edits


def edit_grids(result: dict[str, Any]) -> list[Grid]:
    """The tables of a result on edits."""
    shown = [_arms(result), _types(result), _chains(result)]
    return [*shown, _controls(result)] if result.get("controls") else shown


def edit_footer(result: dict[str, Any]) -> str:
    """One paragraph: what was measured, what it cost, what failed."""
    run, cost, failed = result["run"], result["cost"], result["failures"]
    text = (
        f"{run['model'] or 'model'} on edits, {run['split']}: {run['cases']} cases x {run['samples']} samples, "
        f"guidance {run['settings']['guidance']:g}, seed {run['settings']['seed']}. {cost['images']} images in "
        f"{cost['seconds']:.1f} s. Brackets are 95 % intervals over cases. PSNR and SSIM are taken outside the edited "
        "region, of edits that leave no place open."
    )
    if failed["chains"]:
        text += f" {failed['chains']} chains could not be scored and are left out ({failed['examples'][0]})."
    return text


def _arms(result: dict[str, Any]) -> Grid:
    """A line a round limit, then the baselines."""
    rows = [["", *CHECKS, "PSNR", "SSIM"]]
    rows += [_edit_arm(rounds_title(t), report) for t, report in result["rounds"].items()]
    rows += [_edit_arm(BASELINES[name], report) for name, report in (result["baselines"] or {}).items()]
    return Grid("Edits (mean of edit types)", rows)


def _edit_arm(title: str, report: dict[str, Any]) -> list[str]:
    checks = [show(report[check]) for check in CHECKS]
    return [title, *checks, show(report["psnr"], 1), show(report["ssim"])]


def _types(result: dict[str, Any]) -> Grid:
    """By edit type, after the most rounds."""
    last = list(result["rounds"].values())[-1]
    parts = dict(last["families"])
    if "one_step" in last:  # older results lack it
        parts["one step (mean of types)"] = last["one_step"]
    body = [[name, *(show(report[check]) for check in CHECKS)] for name, report in parts.items()]
    return Grid("By edit type, after the most rounds", [["", *CHECKS], *body])


def _chains(result: dict[str, Any]) -> Grid:
    """Verdicts on first edits, and what redrawing did."""
    last = list(result["rounds"].values())[-1]
    verdict = {name: result["verdict"][name] for name in JUDGE}
    chains = {name: result["introspection"][name] for name in ("triggered", "fixed", "broken")}
    figures = {**verdict, **chains, "gain over round 1": last["gain"]}
    body = [[name.replace("_", " "), show(value)] for name, value in figures.items()]
    return Grid("Verdicts on first edits, and introspection", [["", "value"], *body])


# ----------------------------------------------------------------------------------------- understanding


def understanding_grids(result: dict[str, Any]) -> list[Grid]:
    """What one model sees."""
    return [seen([result])]


def understanding_footer(result: dict[str, Any]) -> str:
    """One paragraph: what was asked."""
    run = result["run"]
    return (
        f"{run['model']}: {run['questions']} questions, {run['descriptions']} pictures to describe and "
        f"{run['checklists']} checklists on fresh pictures of the world {run['world']}, seed {run['seed']}. Brackets "
        "are 95 % intervals over pictures."
    )


def seen(results: Sequence[dict[str, Any]]) -> Grid:
    """A column a model: shares of right answers, by the words that a question begins with."""
    rows = [["right answers", *(str(result["run"]["model"]) for result in results)]]
    for kind in dict.fromkeys(kind for result in results for kind in result["kinds"]):
        rows.append([f"{kind} ...", *(show(result["kinds"].get(kind)) for result in results)])
    rows.append(["overall (mean of kinds)", *(show(result["overall"]) for result in results)])
    checked = [result["checklists"] or {} for result in results]
    rows.append(["items of checklists", *(show(one.get("accuracy")) for one in checked)])
    return Grid("What models see", rows)


# --------------------------------------------------------------------------------- many results


REPORTS: dict[str, tuple[Callable[[Result], list[Grid]], Callable[[Result], str]]] = {
    "world": (world_grids, world_footer),
    "edit": (edit_grids, edit_footer),
    "understanding": (understanding_grids, understanding_footer),
}


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
    results = [tables.read_result(path, *REPORTS) for path in paths]
    parts, worlds, asked = [], [], []
    for path, result in zip(paths, results, strict=True):
        try:
            text = markdown(result)
            if _benchmark(result) == "understanding":
                asked.append(result)
                continue
            parts.append(f"## {Path(path).stem}\n\n{text}\n")
            if _benchmark(result) == "world":
                worlds.append(result)
                summary([result])
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path} is not a whole result: {error!r:.80}") from None
    sight = f"## Does learning to draw hurt seeing?\n\n{SEEING}\n\n{tables.markdown(seen(asked))}\n\n" if asked else ""
    return "".join(["# Results\n\n", summary(worlds) if worlds else "", "\n", sight, *parts])


def main(argv: Sequence[str] | None = None) -> None:
    """Print the page of the files that are named."""
    parser = argparse.ArgumentParser(prog="python -m janus_r1.eval.report", description="Results as Markdown.")
    parser.add_argument("paths", nargs="+", metavar="RESULT.json")
    tables.print_page(parser, argv, lambda args: page(args.paths))


if __name__ == "__main__":
    main()
