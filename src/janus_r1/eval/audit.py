"""Where a judge errs: accepted drafts that are wrong, rejected ones that are right, by family and by kind of mistake.

Judged are the first drafts of the model itself, so this also shows what reinforcement learning made of them: whether
it learnt to draw, or to draw what its judge lets pass.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from janus_r1.chain import Chain
from janus_r1.eval.balance import in_turn
from janus_r1.eval.drafts import Sampler, Verifier
from janus_r1.eval.statistics import Figure, figure
from janus_r1.eval.world import EvalOptions, choose_prompts
from janus_r1.worlds.shapes.questions import KINDS, OTHER, failure_kind
from janus_r1.worlds.shapes.verifier import verify

ERRORS = ("accepted_wrong", "rejected_right")


@dataclass(frozen=True)
class Judged:
    """A first draft with what is true of it."""

    chain: Chain
    prompt: int
    family: str
    why: str
    """What the verifier says."""
    failed: tuple[str, ...]
    """The facts that do not hold, in the verifier's words; none for a right draft."""

    @property
    def right(self) -> bool:
        return not self.failed

    @property
    def explained(self) -> bool:
        """Whether what the model says is one of the facts that do not hold."""
        return self.chain.rounds[0].verdict.reason in self.failed

    @property
    def accepted(self) -> bool:
        return self.chain.rounds[0].verdict.accepted

    @property
    def error(self) -> str | None:
        """One of :data:`ERRORS`, or None for a true verdict."""
        if self.accepted == self.right:
            return None
        return "accepted_wrong" if self.accepted else "rejected_right"

    @property
    def kind(self) -> str:
        """Of the mistake in a wrong draft; of the mistake that the model sees in a right one."""
        return failure_kind(self.chain.rounds[0].verdict.reason if self.right else self.why)


def judged_drafts(sample: Sampler, options: EvalOptions, verifier: Verifier = verify) -> list[Judged]:
    """First drafts with their verdicts; of ``options``, rounds and controls mean nothing here."""
    prompts = choose_prompts(options.split, options.limit)
    numbers = [number for number in range(len(prompts)) for _ in range(options.samples)]
    chains = sample([prompts[number].text for number in numbers], replace(options.settings, rounds=1))
    judged = []
    for chain, number in zip(chains, numbers, strict=True):
        found = verifier(chain.rounds[0].pixels, prompts[number].description)
        judged.append(Judged(chain, number, prompts[number].family, found.reason, found.failed))
    return judged


def audit(sample: Sampler, options: EvalOptions) -> tuple[dict[str, Any], list[Judged]]:
    """Figures, ready for JSON, and the drafts behind them."""
    start = time.perf_counter()
    drafts = judged_drafts(sample, options)
    seconds = time.perf_counter() - start
    wrong, right = ([draft for draft in drafts if draft.right is truth] for truth in (False, True))
    mistaken = [draft for draft in right if not draft.accepted]
    found_out = [draft for draft in wrong if not draft.accepted]
    record = {key: value for key, value in asdict(options).items() if key not in ("rounds", "controls")}
    result = {
        "run": {"benchmark": "audit", **record},
        "cost": {"seconds": seconds, "images": len(drafts)},
        "right": _share(drafts, lambda draft: draft.right),
        "accepted_wrong": {
            "of_wrong": _share(wrong, lambda draft: draft.accepted),
            "families": _by(wrong, lambda draft: draft.family, lambda draft: draft.accepted),
            "kinds": _by(wrong, lambda draft: draft.kind, lambda draft: draft.accepted),
        },
        "rejected_right": {
            "of_right": _share(right, lambda draft: not draft.accepted),
            "families": _by(right, lambda draft: draft.family, lambda draft: not draft.accepted),
            "claims": {kind: _of_kind(mistaken, kind) for kind in (*KINDS, OTHER)},
        },
        "rejected_wrong": {
            "explained": _share(found_out, lambda draft: draft.explained),
            "kinds": _by(found_out, lambda draft: draft.kind, lambda draft: draft.explained),
        },
    }
    return result, drafts


def _share(drafts: list[Judged], what: Callable[[Judged], bool]) -> Figure | None:
    """None where there is nothing to take a share of."""
    if not drafts:
        return None
    return figure([what(draft) for draft in drafts], [draft.prompt for draft in drafts])


def _of_kind(drafts: list[Judged], kind: str) -> Figure | None:
    return _share(drafts, lambda draft: draft.kind == kind)


def _by(drafts: list[Judged], key: Callable[[Judged], str], what: Callable[[Judged], bool]) -> dict[str, Figure | None]:
    """Shares within the drafts of one key each, the commonest key first."""
    keys = [name for name, _ in Counter(map(key, drafts)).most_common()]
    return {name: _share([draft for draft in drafts if key(draft) == name], what) for name in keys}


def examples(drafts: list[Judged], error: str, most: int = 12) -> list[Chain]:
    """Up to ``most`` chains with this error, one of each kind of mistake in turn; prompts carry the verifier's view."""
    shown = in_turn((draft for draft in drafts if draft.error == error), lambda draft: draft.kind)[:most]
    return [replace(draft.chain, prompt=f"{draft.chain.prompt} | verifier: {draft.why}") for draft in shown]
