"""A benchmark's report as text: what was measured, arm by arm and group by group, with 95 % intervals."""

from __future__ import annotations

from typing import Any

from janus_r1.eval.benchmark import BASELINES
from janus_r1.eval.statistics import Figure

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


def cell(figure: Figure | None, scale: float = 1.0, digits: int | None = None) -> str:
    """ "0.812 [0.790, 0.833]"."""
    if figure is None:
        return "-"
    digits = digits if digits is not None else (3 if scale == 1 else 2)
    mean, low, high = (figure[key] * scale for key in ("mean", "low", "high"))  # type: ignore[literal-required]
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def grid(head: list[str], body: list[list[str]]) -> list[str]:
    """Columns as wide as their longest cell."""
    widths = [max(len(row[i]) for row in (head, *body)) for i in range(len(head))]
    return [
        "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *body)
    ]


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
