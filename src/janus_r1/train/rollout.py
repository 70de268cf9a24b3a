"""Chains for reinforcement learning: drawn, judged and redrawn as in inference, then scored; and what is kept of them.

Scoring runs beside the drawing of the next chains, which pays when a reward waits for a network.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object

from janus_r1.chain import Chain, Round, Settings, Task, Verdict
from janus_r1.data.candidates import Candidate, write_part
from janus_r1.data.rows import NO_THRESHOLD, YES_THRESHOLD
from janus_r1.introspect import introspect
from janus_r1.model.janus import Janus
from janus_r1.rewards.score import Abstained, Reward, Score, claims_of
from janus_r1.train.credit import RIGHT, Scored, drawing_return, has_spread, judging_return


@dataclass(frozen=True)
class Group:
    """Chains of one prompt whose drafts were all scored: ``rewards[i][k]`` is of draft k of chain i."""

    prompt: str
    chains: tuple[Chain, ...]
    rewards: tuple[tuple[float, ...], ...]
    """They may tell the claims that they are made of (:class:`janus_r1.rewards.score.Claimed`)."""
    family: str = ""
    """Of the prompt, where its row names one."""


@dataclass
class Rollout:
    groups: list[Group]
    abstained: Counter[str] = field(default_factory=Counter)
    """Chains that left their group, by the reward's reason."""
    lost_groups: int = 0
    """Groups with fewer than two chains left."""
    seconds_drawing: float = 0.0
    seconds_waiting: float = 0.0
    """For rewards, beyond what ran beside the drawing."""

    @property
    def images(self) -> int:
        return sum(len(chain.rounds) for group in self.groups for chain in group.chains)


def roll_out(
    model: Janus,
    tasks: Sequence[Task],
    group: int,
    settings: Settings,
    reward: Reward,
    *,
    max_batch: int = 128,
    first_row: int = 0,
    fewest: int = 2,
    begun: Sequence[Round] | None = None,
    window: int | None = None,
) -> Rollout:
    """``group`` chains of every task. Whole groups go through the model together. The chains of a task go on from its
    draft in ``begun``, one a task, where it is given. ``window`` is introspect's.

    A chain with a draft that could not be scored leaves its group; one with less than ``fewest`` chains is lost.
    """
    at_once = max(1, max_batch // group)
    rollout = Rollout([])
    began = time.monotonic()
    with ThreadPoolExecutor(max_workers=1) as scorer:
        pending = []
        for start in range(0, len(tasks), at_once):
            part = [task for task in tasks[start : start + at_once] for _ in range(group)]
            first = first_row + start * group
            drafts = None if begun is None else [d for d in begun[start : start + at_once] for _ in range(group)]
            chains = introspect(
                model, part, settings, max_batch=len(part), first_row=first, window=window, begun=drafts
            )
            pending.append((chains, scorer.submit(_score, reward, part, chains)))
        rollout.seconds_drawing = time.monotonic() - began
        asked = iter(tasks)
        for chains, scores in pending:
            _collect(rollout, chains, scores.result(), group, fewest, asked)
    rollout.seconds_waiting = time.monotonic() - began - rollout.seconds_drawing
    return rollout


def _score(reward: Reward, tasks: Sequence[Task], chains: Sequence[Chain]) -> list[list[Score]]:
    """One list a chain, one score a draft."""
    asked = [replace(chain.task, columns=task.columns) for task, chain in zip(tasks, chains, strict=True)]
    scores = iter(
        reward.score([(task, r.pixels) for task, chain in zip(asked, chains, strict=True) for r in chain.rounds])
    )
    return [[next(scores) for _ in chain.rounds] for chain in chains]


def _collect(
    rollout: Rollout,
    chains: Sequence[Chain],
    scores: Sequence[Sequence[Score]],
    group: int,
    fewest: int,
    tasks: Iterator[Task],
) -> None:
    for start in range(0, len(chains), group):
        kept, rewards, task = [], [], next(tasks)
        for chain, row in zip(chains[start : start + group], scores[start : start + group], strict=True):
            missing = [score for score in row if isinstance(score, Abstained)]
            if missing:
                rollout.abstained[missing[0].cause] += 1
            else:
                kept.append(chain)
                rewards.append(tuple(score for score in row if not isinstance(score, Abstained)))
        if len(kept) >= fewest:
            rollout.groups.append(Group(kept[0].prompt, tuple(kept), tuple(rewards), task.kind))
        else:
            rollout.lost_groups += 1


# ---------------------------------------------------------------------------------------- figures


def chain_figures(chains: Sequence[Scored], limit: int, right: float = RIGHT) -> dict[str, float]:
    """Means over ``chains``: rewards of first and final drafts, verdicts, rounds, fixed and broken.

    A draft is right from a reward of ``right`` on.
    """
    first = np.array([c.rewards[0] for c in chains])
    final = np.array([c.rewards[-1] for c in chains])
    triggered = np.array([len(c.rewards) > 1 for c in chains])
    told = [truth for c in chains for truth in c.reasons if truth is not None]
    said = np.concatenate([c.verdicts for c in chains]) >= RIGHT
    true = np.concatenate([c.rewards for c in chains]) >= right
    return {
        "reward_draw": float(np.mean([drawing_return(c.rewards, limit) for c in chains])) / limit,
        "reward_judge": float(np.mean([judging_return(c.agreement, limit) for c in chains])) / limit,
        "first_right": float(np.mean(first >= right)),
        "final_right": float(np.mean(final >= right)),
        "verdicts_right": float(np.mean(said == true)),
        "rounds": float(np.mean([len(c.rewards) for c in chains])),
        "triggered": float(np.mean(triggered)),
        "fixed": _share(final >= right, triggered & (first < right)),
        "broken": _share(final < right, triggered & (first >= right)),
        **({"reasons_true": float(np.mean(told))} if told else {}),
    }


def rollout_figures(
    rollout: Rollout, groups: Sequence[Sequence[Scored]], limit: int, right: float = RIGHT
) -> dict[str, float]:
    """:func:`chain_figures`, and how the rollout itself went. ``groups`` are its chains as credited."""
    return {
        **chain_figures([chain for group in groups for chain in group], limit, right),
        "no_spread": float(np.mean([not has_spread(group) for group in groups])),
        "abstained": float(sum(rollout.abstained.values())),
        "images_per_second": rollout.images / max(1e-9, rollout.seconds_drawing + rollout.seconds_waiting),
        "seconds_drawing": rollout.seconds_drawing,
        "seconds_waiting": rollout.seconds_waiting,
    }


def abstentions(counts: Counter[str]) -> dict[str, float]:
    """Chains by "abstained: CAUSE", for every cause that any process met; means over processes. Collective."""
    everywhere = gather_object([counts])
    causes = sorted({cause for own in everywhere for cause in own})
    return {f"abstained: {cause}": sum(own[cause] for own in everywhere) / len(everywhere) for cause in causes}


def told_figures(groups: Sequence[Group], right: float = RIGHT) -> dict[str, float]:
    """What rewards tell of claims, and tasks of their families: ``claims_first`` and ``claims_final``, the mean share
    of a draft's claims that hold; then ``final_right/FAMILY``, ``reward/FAMILY`` and ``claims_final/FAMILY``.

    Of this process's groups; which families there are differs between processes.
    """
    told: dict[str, list[float]] = {}
    for group in groups:
        for rewards in group.rewards:
            own = {"reward": float(rewards[-1]), "final_right": float(rewards[-1] >= right)}
            claims = {"claims_first": _holding(rewards[0]), "claims_final": _holding(rewards[-1])}
            known = {name: share for name, share in claims.items() if share is not None}
            of_family = {**own, **{name: share for name, share in known.items() if name == "claims_final"}}
            named = {f"{name}/{group.family}": value for name, value in of_family.items()} if group.family else {}
            for name, value in (known | named).items():
                told.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in told.items()}


def _holding(reward: float) -> float | None:
    """The share of a draft's claims that hold; None where its reward tells none."""
    claims = claims_of(reward)
    return sum(score >= RIGHT for _, score in claims) / len(claims) if claims else None


def _share(what: np.ndarray, among: np.ndarray) -> float:
    """NaN where there is nothing to take a share of."""
    return float(np.mean(what[among])) if among.any() else float("nan")


# ------------------------------------------------------------------------------------ what is kept


def write_journal(path: Path, step: int, groups: Sequence[Group]) -> None:
    """Append groups of a rollout to a file to read, with what the model said and was paid."""
    with path.open("a", encoding="utf-8") as file:
        for group in groups:
            file.write(json.dumps({"step": step, **_record(group)}, ensure_ascii=False) + "\n")


def _record(group: Group) -> dict[str, Any]:
    chains = []
    for chain, rewards in zip(group.chains, group.rewards, strict=True):
        verdicts = [{"text": r.verdict.text, "p_yes": round(r.verdict.p_yes, 4)} for r in chain.rounds]
        chains.append([{**v, "reward": round(reward, 4)} for v, reward in zip(verdicts, rewards, strict=True)])
    return {"prompt": group.prompt, "chains": chains}


def write_candidates(folder: Path, rollout: int, rank: int, groups: Sequence[Group], first_id: int) -> None:
    """A rollout as candidates, which ``train sft`` reads: rejection sampling on the very drafts of a run.

    A part a rollout and process: a resumed run writes its last ones again. ``first_id`` numbers the first group's
    prompt; those of all rollouts and processes must differ.
    """
    kept = [candidate for i, group in enumerate(groups) for candidate in candidates(group, first_id + i)]
    images = [round_.pixels for group in groups for chain in group.chains for round_ in chain.rounds]
    write_part(folder / f"part_{rollout:06d}_{rank:03d}", kept, np.stack(images))


def candidates(group: Group, prompt_id: int) -> list[Candidate]:
    """Every draft of a group, chain by chain."""
    return [
        Candidate(prompt_id, group.prompt, r.ids, float(reward), true_reason(r.verdict, reward), f"round {number}")
        for chain, rewards in zip(group.chains, group.rewards, strict=True)
        for number, (r, reward) in enumerate(zip(chain.rounds, rewards, strict=True), 1)
    ]


def true_reason(verdict: Verdict, reward: float) -> str:
    """The verdict's text where SFT's thresholds find its word true, else nothing: such a draft serves drawing alone."""
    agrees = reward >= YES_THRESHOLD if verdict.accepted else reward < NO_THRESHOLD
    return verdict.text if agrees else ""
