"""The automatic stability recipe: what it takes for a drop, for a decline, and what it does then."""

from __future__ import annotations

import json
import random

import pytest
import torch

from by_hand import figures_of
from janus_r1.errors import UserError
from janus_r1.train.checkpoint import Trained
from janus_r1.train.rl import Parts
from janus_r1.train.stability import Guard, StabilityRecipe, Watch, trend
from test_rl import small


def acts(rewards, kls=None, **changes) -> list[tuple[int, str]]:
    watch = Watch(StabilityRecipe(enabled=True, **changes))
    pairs = zip(rewards, kls or [0.0] * len(rewards), strict=True)
    return [(i, act.kind) for i, (reward, kl) in enumerate(pairs) if (act := watch.observe(reward, kl))]


def noisy(means, scatter=0.03):
    rng = random.Random(0)
    return [mean + rng.gauss(0, scatter) for mean in means]


def test_a_sharp_drop_rolls_back_once_and_halves_the_rate():
    assert acts(noisy([0.6] * 20 + [0.2] * 10)) == [(23, "rollback")]
    watch = Watch(StabilityRecipe(enabled=True))
    for reward in [0.6] * 10 + [0.1] * 5:
        watch.observe(reward, 0.0)
    assert watch.rollbacks == 1 and watch.lr_scale == 0.5


def test_noise_and_progress_trigger_nothing():
    assert acts(noisy([0.5] * 200)) == []
    assert acts(noisy([0.3 + i / 400 for i in range(200)])) == []


def test_a_slow_decline_moves_the_reference():
    falling = noisy([0.6] * 40 + [0.6 - 0.002 * i for i in range(60)], scatter=0.01)
    kinds = [kind for _, kind in acts(falling)]
    assert kinds and set(kinds) == {"move_reference"}


def test_a_limit_on_the_divergence_acts_at_once():
    assert acts([0.5] * 3, [0.01, 0.5, 0.01], kl_limit=0.1) == [(1, "rollback")]


def test_trend_by_hand():
    slope, scatter = trend([1.0, 2.0, 3.0])
    assert slope == pytest.approx(1.0) and scatter == pytest.approx(0.0)
    assert trend([0.0, 1.0, 0.0])[1] == pytest.approx((2 / 9) ** 0.5)


def test_a_state_is_taken_up_again():
    watch, other = Watch(StabilityRecipe(enabled=True)), Watch(StabilityRecipe(enabled=True))
    for reward in [0.6] * 12:
        watch.observe(reward, 0.0)
    other.restore(json.loads(json.dumps(watch.state())))
    assert other.observe(0.0, 0.0) == watch.observe(0.0, 0.0) and other.best == watch.best


class Collapses:
    """Pays well for the first ``good`` pictures, then badly; of any two one better, so that groups have spread."""

    name = "collapses"

    def __init__(self, good: int) -> None:
        self.good, self.seen = good, 0

    def score(self, items):
        numbers = range(self.seen, self.seen + len(items))
        self.seen += len(items)
        return [(0.5 + 0.5 * (number % 2)) * (1.0 if number < self.good else 0.1) for number in numbers]


@pytest.mark.parametrize(("good_rollouts", "proven"), [(3, 0), (4, 2), (5, 2)])
def test_a_collapsing_run_returns_to_weights_whose_rollouts_were_good(tiny_folder, tmp_path, good_rollouts, proven):
    """Weights after two updates are proven by the rollouts 3 and 4; until then there is only the start."""
    recipe = small(tiny_folder, tmp_path, kl=0.1, rounds=1, group=4)
    recipe.stability = StabilityRecipe(enabled=True, window=2, acts=1)
    parts, guard = guarded(recipe, tmp_path)
    parts.rewards = Collapses(good=good_rollouts * 8)
    start = parts.janus.core.lm_head.weight.detach().clone()
    for step in range(good_rollouts + 1):
        guard.keep_beginning(step)
        reward = figures_of(parts, step)["reward_draw"]
        with torch.no_grad():
            parts.janus.core.lm_head.weight += 1.0
        guard.after_rollout(step, reward, 0.0)
    assert guard.lr_scale == 0.5
    moved = parts.janus.core.lm_head.weight - start
    assert moved.mean().item() == pytest.approx(proven)
    assert not (tmp_path / "unproven").exists()
    record = json.loads((tmp_path / "acts.jsonl").read_text())
    assert record["act"] == "rollback" and "fell from" in record["reason"]


def test_a_run_that_keeps_collapsing_stops(tiny_folder, tmp_path):
    recipe = small(tiny_folder, tmp_path, kl=0.1, rounds=1, group=4)
    recipe.stability = StabilityRecipe(enabled=True, window=1, kl_limit=1e-9, acts=1)
    _, guard = guarded(recipe, tmp_path)
    guard.keep_beginning(0)
    guard.after_rollout(0, 0.5, kl=0.0)
    guard.after_rollout(1, 0.5, kl=1.0)
    with pytest.raises(UserError, match="broke down 2 times"):
        guard.after_rollout(2, 0.5, kl=1.0)


def guarded(recipe, out) -> tuple[Parts, Guard]:
    parts = Parts(recipe)
    return parts, Guard(recipe.stability, Trained(parts.policy, parts.optimizers, True), parts.reference, out)
