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
from janus_r1.eval.drafts import PREFILLS, at_cost, ways
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
    costs, told = np.cumsum(table.draft_cost, axis=1), dict[str, Any]()
    for name, way in ways(table.draft_yes, table.draft_accepted).items():
        picked = np.take_along_axis(table.drafts, way.picked, axis=1)
        tokens = np.take_along_axis(costs, way.drawn - 1, axis=1)
        spent = {"tokens": tokens, "forwards": tokens + PREFILLS * way.drawn}
        told[name] = {
            str(n + 1): _control(benchmark, table, picked[:, n], {unit: c[:, n] for unit, c in spent.items()})
            for n in range(picked.shape[1])
        }
        for unit, target in (("tokens", table.spent), ("forwards", table.forwards)):
            equal = at_cost(spent[unit].mean(0), float(target[:, -1].mean()))
            found = _control(benchmark, table, equal.of(picked), {one: equal.of(c) for one, c in spent.items()})
            told[f"{name}_equal_{unit}"] = {"n": equal.n, "reached": bool(equal.reached), **found}
    return told


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
