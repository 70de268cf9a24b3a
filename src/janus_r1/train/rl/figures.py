"""What a rollout is watched by: rewards, verdicts, rounds. Pure functions of scored chains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from janus_r1.train.rl.credit import Scored, drawing_return, has_spread, judging_return
from janus_r1.train.rl.rollout import Rollout

RIGHT = 0.5  # a right draft's least reward, unless the run says otherwise; of verdicts, what counts as Yes


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


def _share(what: np.ndarray, among: np.ndarray) -> float:
    """NaN where there is nothing to take a share of."""
    return float(np.mean(what[among])) if among.any() else float("nan")
