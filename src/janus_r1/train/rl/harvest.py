"""Rollouts as candidates, which ``train sft`` reads: rejection sampling on the very drafts of a run.

A draft's score is its reward. Its verdict stays where SFT's thresholds find it true, and is left out elsewhere: such a
draft serves drawing alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from janus_r1.chain import Verdict
from janus_r1.data.candidates import Candidate, write_part
from janus_r1.data.examples import NO_THRESHOLD, YES_THRESHOLD
from janus_r1.train.rl.rollout import Group


class Harvest:
    """Writes a part a rollout and process into ``<out>/candidates``; a resumed run writes its last ones again."""

    def __init__(self, out: Path, rank: int) -> None:
        self.folder, self.rank = out / "candidates", rank

    def write(self, rollout: int, groups: Sequence[Group], first_id: int) -> None:
        """``first_id`` numbers the first group's prompt; those of all rollouts and processes must differ."""
        kept = [candidate for i, group in enumerate(groups) for candidate in candidates(group, first_id + i)]
        images = [round_.pixels for group in groups for chain in group.chains for round_ in chain.rounds]
        write_part(self.folder / f"part_{rollout:06d}_{self.rank:03d}", kept, np.stack(images))


def candidates(group: Group, prompt_id: int) -> list[Candidate]:
    """Every draft of a group, chain by chain."""
    return [
        Candidate(prompt_id, group.prompt, r.ids, reward, true_reason(r.verdict, reward), f"round {number}")
        for chain, rewards in zip(group.chains, group.rewards, strict=True)
        for number, (r, reward) in enumerate(zip(chain.rounds, rewards, strict=True), 1)
    ]


def true_reason(verdict: Verdict, reward: float) -> str:
    """The verdict's text if its word agrees with the reward, else nothing."""
    agrees = reward >= YES_THRESHOLD if verdict.accepted else reward < NO_THRESHOLD
    return verdict.text if agrees else ""
