"""What introspection did to a benchmark's images, beside best-of-N and blind redrawing at equal cost.

Values are read off the scored arms of a drawn folder; verdicts and costs off its chains. Only chains all of whose
images have a score take part; ``chains`` says how many. A cost is counted in tokens, and in forwards: one a token, and
two a draft that read what stands before it and the draft itself (as :mod:`janus_r1.eval.drafts` counts them; decoding
that guesses several tokens a forward needs fewer, in chains and controls alike).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from janus_r1.eval.benchmark import Benchmark
from janus_r1.eval.drafts import PREFILLS
from janus_r1.eval.records import Row
from janus_r1.eval.statistics import Figure, figure, paired_difference

SAME = 1e-9


@dataclass(frozen=True)
class Table:
    """R chains of at most T rounds."""

    prompts: np.ndarray
    groups: np.ndarray
    values: np.ndarray
    """[R, T]: of the image after so many rounds."""
    spent: np.ndarray
    """[R, T]: tokens up to then, images and texts."""
    forwards: np.ndarray
    """[R, T]: passes through the model up to then."""
    accepted: np.ndarray
    """[R]: whether the chain ended with a Yes."""
    drafts: np.ndarray
    """[R, N]: values of independent drafts, the chain's first among them; N is 1 without controls."""
    draft_yes: np.ndarray
    """[R, N]: p_yes of them."""
    draft_accepted: np.ndarray
    draft_cost: np.ndarray
    """[R, N]: tokens of each, those that lead to its verdict's one word and the word included."""


def introspection(
    benchmark: Benchmark, by_arm: Mapping[str, Sequence[Row]], chains: Mapping[tuple[str, int], Row]
) -> dict[str, Any] | None:
    """None where there are no chains of two or more rounds."""
    rounds = sorted((arm for arm in by_arm if arm.startswith("round_")), key=lambda arm: int(arm[6:]))
    drafts = sorted((arm for arm in by_arm if arm.startswith("draft_")), key=lambda arm: int(arm[6:]))
    table = _table(by_arm, rounds, drafts, chains) if len(rounds) > 1 and chains else None
    if table is None:
        return None
    first, last = table.values[:, 0], table.values[:, -1]
    told: dict[str, Any] = {
        "chains": len(table.prompts),
        "improved": figure(last > first + SAME, table.prompts),
        "worse": figure(last < first - SAME, table.prompts),
        "unchanged": figure(np.abs(last - first) <= SAME, table.prompts),
        "gain": paired_difference(first, last, table.prompts),
        "tokens": [_cost(table.spent[:, t], table.prompts) for t in range(len(rounds))],
        "forwards": [_cost(table.forwards[:, t], table.prompts) for t in range(len(rounds))],
    }
    if benchmark.binary:
        told["rightly_stopped"] = figure(table.accepted * (last == 1), table.prompts)
        told["wrongly_stopped"] = figure(table.accepted * (last != 1), table.prompts)
    if drafts:
        told["controls"] = _controls(benchmark, table)
    return told


def _table(
    by_arm: Mapping[str, Sequence[Row]],
    rounds: Sequence[str],
    drafts: Sequence[str],
    chains: Mapping[tuple[str, int], Row],
) -> Table | None:
    scored = {
        arm: {(row["id"], row["index"]): row for row in by_arm[arm] if "value" in row} for arm in (*rounds, *drafts)
    }
    keys = [key for key in chains if all(key in scored[arm] for arm in scored) and _has_p_yes(chains[key])]
    if not keys:
        return None
    mine = [chains[key] for key in keys]
    alone = [[chain["rounds"][0], *chain["drafts"][: len(drafts)]] for chain in mine]

    def values(arms: Sequence[str]) -> np.ndarray:
        return np.array([[scored[arm][key]["value"] for arm in arms] for key in keys], dtype=np.float64)

    def of_drafts(name: str) -> np.ndarray:
        return np.array([[one.get(name, 0) for one in row] for row in alone], dtype=np.float64)

    spent = np.array([_spent(chain["rounds"], len(rounds)) for chain in mine], dtype=np.float64)
    drawn = np.array([[min(t + 1, len(chain["rounds"])) for t in range(len(rounds))] for chain in mine])
    return Table(
        prompts=np.array([key[0] for key in keys]),
        groups=np.array([scored[rounds[0]][key]["group"] for key in keys]),
        values=values(rounds),
        spent=spent,
        forwards=spent + PREFILLS * drawn,
        accepted=np.array([chain["rounds"][chain["final"]]["accepted"] for chain in mine], dtype=np.float64),
        drafts=values([rounds[0], *drafts]),
        draft_yes=of_drafts("p_yes"),
        draft_accepted=of_drafts("accepted"),
        draft_cost=of_drafts("image_tokens") + of_drafts("list_tokens") + 1,
    )


def _has_p_yes(chain: Row) -> bool:
    return all(one["p_yes"] is not None for one in (*chain["rounds"], *chain["drafts"]))


def _spent(rounds: Sequence[Row], limit: int) -> list[int]:
    """Tokens after 1, 2, ... rounds; a chain that has ended costs nothing more."""
    costs = [one["image_tokens"] + one.get("list_tokens", 0) + one["text_tokens"] for one in rounds]
    return [sum(costs[: t + 1]) for t in range(limit)]


def _controls(benchmark: Benchmark, table: Table) -> dict[str, Any]:
    """Best of N by p_yes, and redrawing until a Yes, for N = 1, 2, ...; ``advantage`` is the chains' over them."""
    rows, most = np.arange(len(table.prompts)), table.drafts.shape[1]
    costs = np.cumsum(table.draft_cost, axis=1)
    last = np.zeros((2, len(rows), most), dtype=int)  # of both kinds, with N drafts: the last that is drawn
    picked = np.zeros((2, len(rows), most))
    for n in range(1, most + 1):
        yes = table.draft_accepted[:, :n] > 0
        stop = np.where(yes.any(1), yes.argmax(1), n - 1)
        best = table.draft_yes[:, :n].argmax(1)
        last[0, :, n - 1], last[1, :, n - 1] = n - 1, stop
        picked[0, :, n - 1], picked[1, :, n - 1] = table.drafts[rows, best], table.drafts[rows, stop]
    told: dict[str, Any] = {}
    for kind, name in enumerate(("best_of_n", "blind_redraw")):
        tokens = np.take_along_axis(costs, last[kind], axis=1)
        spent = {"tokens": tokens, "forwards": tokens + PREFILLS * (last[kind] + 1)}
        told[name] = {
            str(n + 1): _control(benchmark, table, picked[kind][:, n], {unit: c[:, n] for unit, c in spent.items()})
            for n in range(most)
        }
        for unit, target in (("tokens", table.spent), ("forwards", table.forwards)):
            equal = _equal(benchmark, table, picked[kind], spent, unit, float(target[:, -1].mean()))
            told[f"{name}_equal_{unit}"] = equal
    return told


def _equal(
    benchmark: Benchmark, table: Table, picked: np.ndarray, spent: Mapping[str, np.ndarray], unit: str, target: float
) -> dict[str, Any]:
    """A control at the chains' mean cost: interpolated between the two N whose costs enclose it.

    ``picked`` and costs are [R, N]. ``reached`` is False where even the largest N costs less.
    """
    means = spent[unit].mean(0)
    n = float(np.interp(target, means, np.arange(1, len(means) + 1)))
    low, share = int(n) - 1, n - int(n)

    def between(columns: np.ndarray) -> np.ndarray:
        return (1 - share) * columns[:, low] + share * columns[:, min(low + 1, len(means) - 1)]

    costs = {name: between(columns) for name, columns in spent.items()}
    return {"n": n, "reached": target <= float(means[-1]), **_control(benchmark, table, between(picked), costs)}


def _control(
    benchmark: Benchmark, table: Table, values: np.ndarray, spent: Mapping[str, np.ndarray]
) -> dict[str, Figure]:
    return {
        "overall": benchmark.overall(values, table.prompts, table.groups),
        **{unit: _cost(costs, table.prompts) for unit, costs in spent.items()},
        "advantage": paired_difference(values, table.values[:, -1], table.prompts),
    }


def _cost(spent: np.ndarray, prompts: np.ndarray) -> Figure:
    return figure(spent, prompts, None)
