"""The result of ``evaluate_world`` for people: tables on the terminal, or Markdown."""

from __future__ import annotations

from typing import Any

from janus_r1.eval.tables import Grid, rounds_title, show

JUDGE = ("accuracy", "balanced_accuracy", "auroc", "ece", "positive_rate", "base_rate")
CHAINS = ("triggered", "fixed", "broken", "gain", "rounds_used", "tokens")


def grids(result: dict[str, Any]) -> list[Grid]:
    """The tables of a result, in the order of reading."""
    judged = [_rounds(result["rounds"]), _introspection(result["introspection"]), _verdict(result["verdict"])]
    return [*judged, _controls(result)] if result["controls"] else judged


def footer(result: dict[str, Any]) -> str:
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


def _rounds(rounds: dict[str, Any]) -> Grid:
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
