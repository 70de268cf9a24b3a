"""A benchmark's third step: the headline with its interval, what is missing from it, and what introspection did.

A headline stands for the whole benchmark, so it is refused where images are missing, unless a partial one is asked
for, which is then called partial.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from janus_r1.errors import UserError
from janus_r1.eval.benchmark import RUN, Benchmark, Measure, arm_number, arms, chain_files
from janus_r1.eval.benchmark_score import is_scored, row_key, score_rows
from janus_r1.eval.introspection_report import introspection
from janus_r1.eval.protocol import BASELINES
from janus_r1.eval.records import Row, read_records
from janus_r1.eval.statistics import Figure, figure
from janus_r1.eval.tables import cell, grid
from janus_r1.reading import read_json_object

FORMAT = 1


def report(
    benchmark: Benchmark, score_files: Sequence[Path], folder: Path | None = None, partial: bool = False
) -> dict[str, Any]:
    """Of one or more shards' score files; ``folder`` is the drawn folder, for the chains' verdicts and costs.

    The result is ready for JSON. ``headline`` is that of the last round, or of the only folder there is. A benchmark
    of several measures has none: every arm holds its figures by name instead, a text for one that was not measured.

    Raises:
        UserError: if images are missing and ``partial`` is off, if nothing was scored, or if files do not fit.
    """
    try:
        return _report(benchmark, score_files, folder, partial)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the rows of {score_files[0]} or its folder are not whole: {error!r:.80}") from None


def _report(benchmark: Benchmark, score_files: Sequence[Path], folder: Path | None, partial: bool) -> dict[str, Any]:
    judge, rows = _read(benchmark, score_files)
    by_arm: dict[str, list[Row]] = {arm: [] for arm in (arms(folder) if _run(folder) and folder else [])}
    for row in rows:
        by_arm.setdefault(row["arm"], []).append(row)
    if not any(is_scored(row) for row in rows):
        why = next((row["failed"] for row in rows if "failed" in row), "the files hold no rows")
        raise UserError(f"nothing was scored: {why}")
    samples = _samples(folder) or benchmark.images
    counts = {arm: count(benchmark, mine, samples) for arm, mine in by_arm.items()}
    missing = {arm: found for arm, found in counts.items() if found["missing"] or found["foreign"]}
    if missing and not partial:
        raise UserError(_refusal(benchmark, missing))
    last = max(by_arm, key=lambda arm: (arm.startswith("round_"), arm_number(arm)))
    tell = _measured_arm if benchmark.measures else _arm
    told = {arm: tell(benchmark, mine, counts[arm], judge) for arm, mine in by_arm.items()}
    return {
        "format": FORMAT,
        "benchmark": benchmark.name,
        "title": f"{benchmark.title} (partial)" if missing else benchmark.title,
        "partial": bool(missing),
        "scale": benchmark.scale,
        "measures": {name: one._asdict() for name, one in benchmark.measures.items()} or None,
        "headline": told[last]["overall"],
        "arm": last,
        "arms": told,
        "introspection": None if benchmark.measures else introspection(benchmark, by_arm, _chains(folder)),
        "judge": judge,
        "draw": _run(folder),
    }


def count(benchmark: Benchmark, rows: Iterable[Row], samples: int) -> dict[str, Any]:
    """Expected and scored images of an arm. ``extra``: beyond the expected number of a prompt; ``foreign``: of prompts
    that are not the benchmark's."""
    rows = list(rows)
    expected = [item.id for item in benchmark.items()]
    scored = Counter(row["id"] for row in rows if is_scored(row))
    known = set(expected)
    lacking = {name: samples - scored[name] for name in expected if scored[name] < samples}
    failures = [f"{row['file']}: {row['failed']}" for row in rows if "failed" in row]
    return {
        "expected": len(expected) * samples,
        "scored": scored.total(),
        "missing": sum(lacking.values()),
        "missing_examples": list(lacking)[:5],
        "extra": sum(n - samples for name, n in scored.items() if name in known and n > samples),
        "foreign": sum(n for name, n in scored.items() if name not in known),
        "failed": len(failures),
        "failed_examples": failures[:5],
    }


def _read(benchmark: Benchmark, score_files: Sequence[Path]) -> tuple[dict[str, Any], list[Row]]:
    """The header, and the last row about every image."""
    if not score_files:
        raise UserError("no score file: run the benchmark's score first")
    latest: dict[Any, Row] = {}
    headers = []
    for path in score_files:
        header, rows = read_records(path)
        if header.get("benchmark") != benchmark.name:
            raise UserError(f"{path} holds scores of {header.get('benchmark')}, not of {benchmark.name}")
        headers.append(header)
        latest |= {row_key(row): row for row in score_rows(path, rows)}
    if any(header != headers[0] for header in headers):
        raise UserError("the score files were made by different judges: report them one by one")
    return headers[0], list(latest.values())


def _refusal(benchmark: Benchmark, missing: dict[str, dict[str, Any]]) -> str:
    arm, found = next(iter(missing.items()))
    where = f" in {arm}" if arm else ""
    if not found["missing"]:
        return (
            f"{found['foreign']} images{where} are of prompts that are not {benchmark.title}'s: --partial reports them"
        )
    why = f"; {found['failed']} failed, such as {found['failed_examples'][0]}" if found["failed"] else ""
    return (
        f"{found['missing']} of {found['expected']} images{where} have no score (such as of prompt "
        f"{found['missing_examples'][0]}){why}: no headline without them; --partial reports what there is"
    )


def _arm(benchmark: Benchmark, rows: Sequence[Row], counts: dict[str, Any], judge: Mapping[str, Any]) -> dict[str, Any]:
    scored = [row for row in rows if is_scored(row)]
    if not scored:
        return {"overall": None, "groups": {}, "counts": counts}
    values, prompts, groups = benchmark.units(scored)
    present = _present(benchmark, groups.tolist())
    return {
        "overall": benchmark.overall(values, prompts, groups),
        "groups": {name: figure(values[groups == name], prompts[groups == name]) for name in present},
        "extras": benchmark.extras(scored),
        "counts": counts,
    }


def _measured_arm(
    benchmark: Benchmark, rows: Sequence[Row], counts: dict[str, Any], judge: Mapping[str, Any]
) -> dict[str, Any]:
    """Every measure over all images, then by group."""
    scored = [row for row in rows if is_scored(row)]
    present = _present(benchmark, [row["group"] for row in scored])

    def figures(mine: Sequence[Row]) -> dict[str, Figure | str | None]:
        missing = judge.get("not_measured") or {}
        measures = benchmark.measures.items()
        return {name: missing.get(name) or _measured(name, one, mine) for name, one in measures}

    groups = {name: figures([row for row in scored if row["group"] == name]) for name in present}
    return {"overall": None, "measures": figures(scored), "groups": groups, "counts": counts}


def _measured(name: str, measure: Measure, rows: Sequence[Row]) -> Figure | None:
    """None where no image has anything to measure."""
    defined = [(row["measures"][name], row["id"]) for row in rows if row["measures"].get(name) is not None]
    if not defined:
        return None
    values, prompts = zip(*defined, strict=True)
    # These are continuous: several pictures agree to the last digit only by construction, as copies do.
    return figure(values, prompts, measure.bounds if len(set(prompts)) == 1 else None)


def _present(benchmark: Benchmark, groups: Sequence[str]) -> list[str]:
    """Groups that have images, in the benchmark's own order."""
    names = dict.fromkeys(item.group for item in benchmark.items())
    return [*(name for name in names if name in groups), *(n for n in dict.fromkeys(groups) if n not in names)]


def _samples(folder: Path | None) -> int | None:
    run = _run(folder)
    return run["samples"] if run else None


def _run(folder: Path | None) -> dict[str, Any] | None:
    """How a folder was drawn, if this project drew it."""
    if folder is None or not (folder / RUN).is_file():
        return None
    record = read_json_object(folder / RUN)
    samples = record.get("samples")
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
        raise UserError(f"{folder / RUN} was not written by a benchmark's draw")
    return record


def _chains(folder: Path | None) -> dict[tuple[str, int], Row]:
    """The logged chain of every image: (item, index) -> its rounds and independent drafts."""
    if folder is None:
        return {}
    chains: dict[tuple[str, int], Row] = {}
    for path in chain_files(folder):
        for row in read_records(path)[1]:
            chains |= {(row["item"], index): chain for index, chain in enumerate(row.get("chains", ()))}
    return chains


# ----------------------------------------------------------------------------------------- as text


KINDS = (("best of", "best_of_n"), ("blind redraw", "blind_redraw"))


def text(report: dict[str, Any]) -> str:
    """Several lines, for a terminal of any width above 100."""
    if report["measures"]:
        return "\n".join([*_measures(report), *_counts(report["arms"]), "", *_made(report)])
    scale = report["scale"]
    arms = report["arms"]
    lines = [f"{report['title']}: {cell(report['headline'], scale)} ({report['arm'] or 'the folder'})", ""]
    names = list(dict.fromkeys(name for arm in arms.values() for name in arm["groups"]))
    lines += grid(
        ["", *(arm or "score" for arm in arms)],
        [
            ["overall", *(cell(arm["overall"], scale) for arm in arms.values())],
            *([name, *(cell(arm["groups"].get(name), scale) for arm in arms.values())] for name in names),
        ],
    )
    lines += _counts(arms)
    lines += ["", *_introspection(report["introspection"], scale), *_made(report)]
    return "\n".join(lines)


def _measures(report: dict[str, Any]) -> list[str]:
    """A line a measure and a column an arm; then by group, of the last round."""
    arms, measures = report["arms"], report["measures"]

    def shown(name: str, value: Figure | str | None) -> str:
        if isinstance(value, str):
            return "not measured"
        return cell(value, measures[name]["factor"], measures[name]["digits"])

    told = {name: arm["measures"] for name, arm in arms.items() if arm.get("measures")}
    head = ["", *(BASELINES.get(name, name.replace("_", " ")) or "score" for name in told)]
    body = [[one["title"], *(shown(name, arm[name]) for arm in told.values())] for name, one in measures.items()]
    lines = [report["title"], "", *grid(head, body), ""]
    last = arms[report["arm"]]
    there = [name for name in measures if not isinstance(last["measures"][name], str)]
    groups = [[kind, *(shown(name, group[name]) for name in there)] for kind, group in last["groups"].items()]
    lines += [f"By edit type ({report['arm'].replace('_', ' ') or 'the folder'}):"]
    lines += grid(["", *(measures[name]["title"] for name in there)], groups)
    return [*lines, "", *(f"{name}: {last['measures'][name]}." for name in measures if name not in there)]


def _counts(arms: dict[str, Any]) -> list[str]:
    """What stands behind each arm's figures."""
    lines = []
    for name, arm in arms.items():
        counts = arm["counts"]
        note = f"{name or 'images'}: {counts['scored']} scored of {counts['expected']} expected"
        for key in ("missing", "failed", "extra", "foreign"):
            note += f", {counts[key]} {key}" if counts[key] else ""
        extras = "; ".join(f"{key} {value:.2%}" for key, value in (arm.get("extras") or {}).items())
        lines.append(note + (f" ({extras})" if extras else ""))
        lines += [f"  failed: {line}" for line in counts["failed_examples"][:3]]
    return lines


def _introspection(found: dict[str, Any] | None, scale: float) -> list[str]:
    if found is None:
        return []
    shown = ("improved", "worse", "unchanged", "rightly_stopped", "wrongly_stopped", "gain")
    lines = [f"Of {found['chains']} chains, first draft against last round:"]
    lines += grid(["", ""], [[name.replace("_", " "), cell(found[name])] for name in shown if name in found])[1:]
    for unit in ("tokens", "forwards"):
        lines.append(f"{unit} a chain: {', '.join(cell(one, 1, 0) for one in found[unit])}")
    if controls := found.get("controls"):
        body = [_control(f"{title} {n}", one, scale) for title, key in KINDS for n, one in controls[key].items()]
        for title, key in KINDS:
            for unit in ("tokens", "forwards"):
                one = controls[f"{key}_equal_{unit}"]
                reached = f"at equal {unit}" if one["reached"] else f"fewer {unit}"
                body.append(_control(f"{title} {one['n']:.2f}, {reached}", one, scale))
        lines += ["", *grid(["", "overall", "tokens", "forwards", "the chains' advantage"], body)]
    return [*lines, ""]


def _control(title: str, one: dict[str, Any], scale: float) -> list[str]:
    costs = [cell(one[unit], 1, 0) for unit in ("tokens", "forwards")]
    return [title, cell(one["overall"], scale), *costs, cell(one["advantage"], scale)]


def _made(report: dict[str, Any]) -> list[str]:
    judge = "; ".join(
        f"{key} {value}" for key, value in report["judge"].items() if key not in ("benchmark", "rules", "not_measured")
    )
    lines = [f"Judge: {judge}."]
    if run := report["draw"]:
        settings = run["settings"]
        rewriting = "on" if run["rewritten"] else "off"
        noise = "shared by all prompts" if run["shared_noise"] else "a prompt's own"
        lines.append(
            f"Drawn by {run.get('model')}: {run['samples']} images a prompt, {settings['rounds']} rounds, guidance "
            f"{settings['guidance']:g}, seed {settings['seed']} (noise {noise}), prompt rewriting {rewriting}."
        )
    else:
        lines.append("Drawn elsewhere: settings, seeds and prompt rewriting unknown.")
    return [*lines, "Brackets are 95 % intervals over prompts."]
