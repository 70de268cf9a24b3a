"""A benchmark's report as text: what was measured, arm by arm and group by group, with 95 % intervals."""

from __future__ import annotations

from typing import Any

from janus_r1.eval.statistics import Figure


def text(report: dict[str, Any]) -> str:
    """Several lines, for a terminal of any width above 100."""
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
    for name, arm in arms.items():
        counts = arm["counts"]
        note = f"{name or 'images'}: {counts['scored']} scored of {counts['expected']} expected"
        for key in ("missing", "failed", "extra", "foreign"):
            note += f", {counts[key]} {key}" if counts[key] else ""
        extras = "; ".join(f"{key} {value:.2%}" for key, value in (arm.get("extras") or {}).items())
        lines.append(note + (f" ({extras})" if extras else ""))
        lines += [f"  failed: {line}" for line in counts["failed_examples"][:3]]
    lines += ["", *_introspection(report["introspection"], scale), *_made(report)]
    return "\n".join(lines)


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
    lines.append(f"tokens a chain: {', '.join(cell(one, 1, 0) for one in found['tokens'])}")
    if controls := found.get("controls"):
        body = [
            [f"{title} {n}", cell(one["overall"], scale), cell(one["tokens"], 1, 0), cell(one["advantage"], scale)]
            for title, key in (("best of", "best_of_n"), ("blind redraw", "blind_redraw"))
            for n, one in controls[key].items()
        ]
        equal = controls["best_of_n_equal_tokens"]
        reached = "" if equal["reached"] else " (costs less)"
        tokens = cell(equal["tokens"], 1, 0)
        body.append(
            [
                f"best of {equal['n']:.2f}{reached}",
                cell(equal["overall"], scale),
                tokens,
                cell(equal["advantage"], scale),
            ]
        )
        lines += ["", *grid(["", "overall", "tokens", "the chains' advantage"], body)]
    return [*lines, ""]


def _made(report: dict[str, Any]) -> list[str]:
    judge = "; ".join(f"{key} {value}" for key, value in report["judge"].items() if key not in ("benchmark", "rules"))
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
