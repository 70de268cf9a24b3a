"""A study: variants of a run, each with several seeds, compared in tables.

``python studies/study.py results/ablations/*.json --baseline default``. Every file is what ``eval world`` or
``eval edit`` wrote for one seed of a variant, and is named VARIANT-SEED.json.

Every mean has an interval over seeds and one over prompts, which answer different questions. Over seeds: what would
training again give, measured on these prompts? Over prompts: what would these very models score on other prompts of
the kind?
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from janus_r1.errors import UserError
from janus_r1.eval.statistics import Figure
from janus_r1.eval.tables import Grid, markdown, print_page, read_result, show

Result = dict[str, Any]
Measure = Callable[[Result], Figure | None]

GAIN: dict[str, Measure] = {"gain": lambda result: result["rounds"][_limits(result)[-1]]["gain"]}
JUDGING: dict[str, Measure] = {
    "verdict accuracy (balanced)": lambda result: result["verdict"]["balanced_accuracy"],
    "AUROC": lambda result: result["verdict"]["auroc"],
    "fixed": lambda result: result["introspection"]["fixed"],
    "broken": lambda result: result["introspection"]["broken"],
}
MEASURES: dict[str, dict[str, Measure]] = {
    "world": {
        "first draft": lambda result: result["rounds"][_limits(result)[0]]["overall"],
        "after introspection": lambda result: result["rounds"][_limits(result)[-1]]["overall"],
        **GAIN,
        **JUDGING,
        "rounds used": lambda result: result["introspection"]["rounds_used"],
    },
    "edit": {
        "first edit": lambda result: result["rounds"][_limits(result)[0]]["both"],
        "following": lambda result: result["rounds"][_limits(result)[0]]["following"],
        "preserving": lambda result: result["rounds"][_limits(result)[0]]["preserving"],
        "after introspection": lambda result: result["rounds"][_limits(result)[-1]]["both"],
        **GAIN,
        **JUDGING,
    },
}
OF_CHAINS = {"after introspection", "gain", "fixed", "broken", "rounds used"}
ITEMS = {"world": "prompts", "edit": "cases"}
ALIKE = ("benchmark", "split", "samples", "limit", "rounds")  # what all results of a study were measured with


def _limits(result: Result) -> list[str]:
    """Its round limits, the smallest first."""
    return sorted(result["rounds"], key=int)


def _measures(study: Sequence[Variant]) -> dict[str, Measure]:
    """What redrawing did is left out where nothing was redrawn."""
    first = _first(study)
    redrawn = len(_limits(first)) > 1
    measures = MEASURES[first["run"]["benchmark"]]
    return {name: measure for name, measure in measures.items() if redrawn or name not in OF_CHAINS}


def _first(study: Sequence[Variant]) -> Result:
    """Any result: what it was measured with is common to all."""
    return next(iter(study[0].seeds.values()))


@dataclass(frozen=True)
class Variant:
    name: str
    seeds: dict[int, Result]

    def values(self, measure: Measure) -> dict[int, float]:
        """The measure's mean by seed, where it is defined."""
        figures = {seed: measure(result) for seed, result in self.seeds.items()}
        return {seed: figure["mean"] for seed, figure in figures.items() if figure is not None}

    @property
    def seconds(self) -> list[float]:
        """Of training, one a seed; empty where a result does not know its run."""
        known = [result["run"].get("training") for result in self.seeds.values()]
        return [training["seconds"] for training in known if training]


def read_study(paths: Sequence[str]) -> list[Variant]:
    """Variants in the order of their first files.

    Raises:
        UserError: for a file that is no such result, and for results that must not be compared.
    """
    study: dict[str, dict[int, Result]] = {}
    first: Result | None = None
    for path in map(Path, paths):
        name, dash, seed = path.stem.rpartition("-")
        if not (dash and name and seed.isdecimal()):
            raise UserError(f"{path} is not named VARIANT-SEED.json, such as default-0.json")
        result = read_result(path, *MEASURES)
        _check(path, result, first or result)
        first = first or result
        study.setdefault(name, {})[int(seed)] = result
    for name, seeds in study.items():
        if len({_steps(result) for result in seeds.values()}) > 1:
            raise UserError(f"the seeds of {name} were trained for different numbers of steps: run the study again")
    return [Variant(name, seeds) for name, seeds in study.items()]


def _check(path: Path, result: Result, first: Result) -> None:
    keys = (*ALIKE, ITEMS[first["run"]["benchmark"]])
    different = [key for key in keys if result["run"].get(key) != first["run"][key]]
    if different:
        raise UserError(f"{path} was measured with other {', '.join(different)} than the rest: measure it again")


def _steps(result: Result) -> int | None:
    return (result["run"].get("training") or {}).get("steps")


# ---------------------------------------------------------------------------------------- intervals


def seed_interval(values: Sequence[float]) -> Figure | None:
    """Mean of one value a seed with Student's 95 % interval; None for a single one, which tells no spread.

    It is not cut at 0 or 1: an interval that reaches beyond says that there are too few seeds.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers) or not np.isfinite(numbers).all():
        raise ValueError(f"need numbers, got {list(values)}")
    if len(numbers) == 1:
        return None
    mean = float(numbers.mean())
    half = student(len(numbers) - 1) * float(numbers.std(ddof=1)) / sqrt(len(numbers))
    return Figure(mean=mean, low=mean - half, high=mean + half, n=len(numbers))


def student(freedom: int) -> float:
    """97.5 percentile of Student's distribution."""
    return float(t.ppf(0.975, freedom))


def prompt_interval(figures: Iterable[Figure]) -> Figure:
    """Mean of one figure a seed, all on the same prompts, with an interval over prompts.

    Prompts that are hard for one seed are hard for the others, so the intervals are averaged and not narrowed:
    right where seeds agree on every prompt, a little too wide elsewhere.
    """
    parts = list(figures)
    if not parts:
        raise ValueError("no figures to average")
    mean, low, high = (sum(part[end] for part in parts) / len(parts) for end in ("mean", "low", "high"))
    return Figure(mean=mean, low=low, high=high, n=sum(part["n"] for part in parts))


# ------------------------------------------------------------------------------------------ tables


def over_seeds(study: Sequence[Variant]) -> Grid:
    """Means with intervals over seeds, and what training cost."""
    measures = _measures(study)
    rows = [["variant", "seeds", "steps", *measures, "training, s"]]
    for variant in study:
        steps = _steps(_first([variant]))
        cells = [_over_seeds(list(variant.values(measure).values())) for measure in measures.values()]
        cost = _over_seeds(variant.seconds, 0)
        rows.append([variant.name, str(len(variant.seeds)), str(steps or "n/a"), *cells, cost])
    return Grid("Intervals over seeds", rows)


def over_prompts(study: Sequence[Variant]) -> Grid:
    """The same means with intervals over prompts (of edits: over cases)."""
    measures = _measures(study)
    rows = [["variant", *measures]]
    for variant in study:
        figures = [[measure(result) for result in variant.seeds.values()] for measure in measures.values()]
        known = [[figure for figure in column if figure is not None] for column in figures]
        rows.append([variant.name, *(show(prompt_interval(column)) if column else "n/a" for column in known)])
    return Grid(f"Intervals over {ITEMS[_first(study)['run']['benchmark']]}", rows)


def against(baseline: Variant, study: Sequence[Variant]) -> Grid:
    """Differences to ``baseline``, paired by seed, with intervals over seeds."""
    measures = _measures(study)
    rows = [["variant", *measures]]
    for variant in study:
        if variant is not baseline:
            rows.append([variant.name, *(_difference(variant, baseline, measure) for measure in measures.values())])
    return Grid(f"Minus {baseline.name}, paired by seed (intervals over seeds)", rows)


def _difference(variant: Variant, baseline: Variant, measure: Measure) -> str:
    ours, theirs = variant.values(measure), baseline.values(measure)
    return _over_seeds([ours[seed] - theirs[seed] for seed in ours if seed in theirs])


def _over_seeds(values: Sequence[float], digits: int = 3) -> str:
    """Without an interval where there is one seed only."""
    if not values:
        return "n/a"
    figure = seed_interval(values)
    return show(figure, digits) if figure else f"{values[0]:.{digits}f}"


# ------------------------------------------------------------------------------------------ report


def report(study: Sequence[Variant], title: str, baselines: Sequence[str] = ()) -> str:
    """The study as a Markdown page, with differences to each of the ``baselines``.

    Raises:
        UserError: if a baseline is none of the variants.
    """
    grids = [over_seeds(study), over_prompts(study)]
    named = {variant.name: variant for variant in study}
    for baseline in baselines:
        if baseline not in named:
            raise UserError(f"no results of the baseline {baseline}: there are {', '.join(named)}")
        grids.append(against(named[baseline], study))
    return "\n\n".join([f"# {title}", _preamble(study), *map(markdown, grids)]) + "\n"


def _preamble(study: Sequence[Variant]) -> str:
    run, limits = _first(study)["run"], _limits(_first(study))
    items = ITEMS[run["benchmark"]]
    counts = sorted({len(variant.seeds) for variant in study} - {1})
    quantiles = ", ".join(f"t = {student(n - 1):.2f} for {n}" for n in counts)
    sentences = [
        f"Every seed of a variant is a run of its own, measured on {run[items]} {items} ({run['split']}) x "
        f"{run['samples']} samples.",
        f"After introspection is after up to {limits[-1]} rounds; fixed and broken are shares of all chains."
        if len(limits) > 1
        else "",
        "Following and preserving are those of first edits." if items == "cases" else "",
        "The accuracy of verdicts is the mean of those on right and on wrong first ones.",
        f"Brackets are 95 % intervals: over seeds Student's ({quantiles}), which may reach beyond 0 or 1;"
        if quantiles
        else "Brackets are 95 % intervals, which one seed alone has none of;",
        f"over {items} the bootstrap's of the seeds, averaged, since the {items} are the same.",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the page of the files that are named."""
    parser = argparse.ArgumentParser(prog="python studies/study.py", description=str(__doc__).splitlines()[0])
    parser.add_argument("paths", nargs="+", metavar="VARIANT-SEED.json")
    parser.add_argument(
        "--baseline",
        metavar="VARIANT",
        action="append",
        default=[],
        help="also show differences to this variant, paired by seed; may be given several times",
    )
    parser.add_argument("--title", help="of the page; the files' folder by default")
    print_page(parser, argv, lambda args: report(read_study(args.paths), args.title or _title(args), args.baseline))


def _title(args: argparse.Namespace) -> str:
    return Path(args.paths[0]).absolute().parent.name.replace("_", " ").capitalize()


if __name__ == "__main__":
    main()
