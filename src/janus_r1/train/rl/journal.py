"""rollouts.jsonl: a few groups of every rollout to read, with what the model said and was paid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from janus_r1.train.log import forget_after
from janus_r1.train.rl.rollout import Group


class Journal:
    """Appends ``groups`` groups of every rollout; forgets what a killed run wrote beyond its checkpoint."""

    def __init__(self, out: Path, groups: int = 2) -> None:
        self.path, self.groups = out / "rollouts.jsonl", groups
        self.open = False

    def write(self, step: int, groups: Sequence[Group]) -> None:
        if not self.open and self.path.exists():
            forget_after(self.path, step)
        self.open = True
        with self.path.open("a", encoding="utf-8") as file:
            for group in groups[: self.groups]:
                file.write(json.dumps({"step": step, **_record(group)}, ensure_ascii=False) + "\n")


def _record(group: Group) -> dict[str, Any]:
    chains = []
    for chain, rewards in zip(group.chains, group.rewards, strict=True):
        verdicts = [{"text": r.verdict.text, "p_yes": round(r.verdict.p_yes, 4)} for r in chain.rounds]
        chains.append([{**v, "reward": round(reward, 4)} for v, reward in zip(verdicts, rewards, strict=True)])
    return {"prompt": group.prompt, "chains": chains}
