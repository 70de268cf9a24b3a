"""Stage 3: reinforcement learning on whole chains (paper section 3.2; docs/rl.md).

:func:`rl` is the loop. A rollout draws, judges and redraws exactly as inference does; its rewards become advantages
(:mod:`credit`), its tokens are scored again under the current weights, and the clipped objective with an optional KL
to a frozen reference (:mod:`policy`) is climbed for one or more steps.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from janus_r1.chain import Chain
from janus_r1.data.tasks import Stream, tasks
from janus_r1.errors import UserError, require
from janus_r1.fields import width
from janus_r1.files import write_json
from janus_r1.model.janus import Janus
from janus_r1.model.loading import load, save
from janus_r1.reading import read_json_object
from janus_r1.rewards.build import build_rewards
from janus_r1.rewards.score import Ensemble, weakest_claim
from janus_r1.rewards.world import true_reasons
from janus_r1.train.credit import (
    CREDITS,
    Credit,
    Scored,
    Trajectory,
    balanced,
    has_spread,
    image_tokens,
    listed,
    reasoned,
    text_tokens,
)
from janus_r1.train.log import forget_after
from janus_r1.train.loop import running
from janus_r1.train.lora import Adapters
from janus_r1.train.optim import adamw, muon_and_adamw
from janus_r1.train.policy import Policy, Rows, rescored, rows_of, token_loss
from janus_r1.train.prepare import Replica, chain_sheet, prepare
from janus_r1.train.processes import most, sharded, this_process
from janus_r1.train.repairing import alike, branch_figures, branch_out, token_marks, varied, wrong_drafts
from janus_r1.train.rl_recipe import RlRecipe, check
from janus_r1.train.rollout import (
    Group,
    Rollout,
    abstentions,
    chain_figures,
    roll_out,
    rollout_figures,
    told_figures,
    write_candidates,
    write_journal,
)
from janus_r1.train.stability import Guard
from janus_r1.worlds.base import world

KINDS = ("image", "text")
HEADLINE = (
    *("reward_draw", "reward_judge", "first_right", "final_right", "verdicts_right", "reasons_true"),
    *("rounds", "fixed", "broken", "repair_fixed", "repair_gain"),
    *("kl_image", "clipped_image", "gap_image", "gap_text", "no_spread", "abstained", "images_per_second"),
    *("seconds_drawing", "seconds_waiting", "seconds_learning", "eval_first_right", "eval_final_right"),
)
TOO_FEW = 0.5  # a rollout that keeps a smaller share of its groups is drawn again
ATTEMPTS = 3
PATIENCE = 20  # rollouts in a row without any spread before the run stops
READ = 2  # groups of a rollout that are written to be read


# -------------------------------------------------------------------------------------- the loop


def rl(recipe: RlRecipe, resume: bool = False) -> Path:
    """Reinforce whole chains by rewards for drawing and judging.

    ``<out>/model`` then holds the last weights, ``<out>/best`` those that evaluated best.

    With LoRA both are merged, and ``<out>/adapter`` holds the adapters in peft's format.
    """
    parts, out = Parts(recipe), Path(recipe.run.out)
    with running(
        recipe,
        parts.policy,
        parts.optimizers,
        resume=resume,
        reloads_frozen=True,
        headline=HEADLINE,
        every=recipe.updates,
    ) as run:
        guard = Guard(recipe.stability, run.trained, parts.reference, out)
        guard.restore(run.stage_state)
        _forget_journal(out, run.done)
        without_spread = 0
        for step in run.steps():
            if step % recipe.updates == 0:
                guard.keep_beginning(step)
                rollout = draw_rollout(parts, step // recipe.updates)
                branches = draw_branches(parts, rollout, step // recipe.updates)
                groups = [credited(parts, group) for group in rollout.groups]
                repairs = [credited(parts, group) for group in branches.groups]
                without_spread = rollouts_alike([*groups, *repairs], without_spread)
                _keep(recipe, out, step, rollout, branches)
                minibatches = dealt([*groups, *repairs], recipe.minibatches)
                figures = rollout_figures(rollout, _scored_of(groups), recipe.limit, recipe.right)
                figures |= branch_figures(branches, recipe.right)
                told = told_figures(rollout.groups, recipe.right)
                told |= abstentions(rollout.abstained + branches.abstained)
                reward, kl, learning_since = figures["reward_draw"], 0.0, time.monotonic()
            run.lr_scale = guard.lr_scale
            batches, loss = minibatch(parts, minibatches, step % recipe.minibatches)
            figures = run.update(batches, loss, figures) | told
            kl = max(kl, figures.get("kl_image", 0.0))
            if (step + 1) % recipe.updates == 0:
                figures["seconds_learning"] = time.monotonic() - learning_since
                guard.after_rollout(step, reward, kl)
                figures |= {"lr_scale": guard.lr_scale} if recipe.stability.enabled else {}
            if recipe.eval_every and (step + 1) % recipe.eval_every == 0:
                figures |= evaluate(parts, out, step)
            run.end_step(figures, partial(_preview, parts), guard.state())
            figures, told = {}, {}  # of the rollout: logged once
    if parts.adapters:
        parts.adapters.save(out / "adapter")
    return parts.replica.save(out / "model")


class Parts:
    """What a run works with: its models, rewards and tasks. Raises UserError as :func:`check` does."""

    def __init__(self, recipe: RlRecipe) -> None:
        check(recipe)
        self.recipe = recipe
        self.rewards: Ensemble = build_rewards(recipe.rewards, str(this_process().device))
        self.tasks: Stream = tasks(
            recipe.task,
            recipe.prompts,
            recipe.edits,
            recipe.eval_prompts,
            recipe.edit_share,
            recipe.edit_families,
            recipe.world,
            recipe.prompt_families,
        )
        self.janus = self._load(recipe.lora.base_dtype if recipe.lora.rank else "float32", recipe.recompute)
        mends = self.janus.format == "repair"
        require(mends or not recipe.branches, "branches are for models of the format repair: leave them at 0")
        require(mends or recipe.credit != "decisions", "credit decisions is for models of the format repair")
        self.adapters = Adapters(self.janus, recipe.lora, recipe.model, recipe.run.seed) if recipe.lora.rank else None
        self.policy = Policy(self.janus, recipe.settings(0), recipe.policy)
        self.replica = Replica(self.janus, recipe.model, recipe.rollout_dtype, self.adapters)
        self.reference: Policy | None = None
        if recipe.kl and not self.adapters:
            frozen = self._load(recipe.reference_dtype)
            self.reference = Policy(frozen, recipe.settings(0), recipe.policy).requires_grad_(False)
        make = muon_and_adamw if recipe.optimizer == "muon" else adamw
        self.optimizers = make(self.janus, recipe.lr, recipe.weight_decay)

    def _load(self, dtype: str, recompute: bool = False) -> Janus:
        janus = load(self.recipe.model, dtype, str(this_process().device))
        prepare(janus, train_vision=False, compile_model=self.recipe.compile, recompute=recompute)
        return janus


# --------------------------------------------------------------------------- rollouts and credit


def draw_rollout(parts: Parts, index: int) -> Rollout:
    """This process's share of rollout ``index``; drawn again when too few rewards arrive.

    Raises:
        UserError: when most rewards are missing again and again.
    """
    recipe, rank = parts.recipe, this_process().process_index
    share = recipe.prompts_per_step // this_process().num_processes
    model = parts.replica.refresh()
    for attempt in range(ATTEMPTS):
        seed = recipe.run.seed_of(index) * ATTEMPTS + attempt
        asked = parts.tasks.step(recipe.prompts_per_step, recipe.run.seed, index * ATTEMPTS + attempt)
        rollout = roll_out(
            model,
            asked[rank * share : (rank + 1) * share],
            recipe.group,
            replace(recipe.settings(seed), rounds=recipe.limit),
            parts.rewards,
            max_batch=recipe.max_batch,
            first_row=rank * share * recipe.group,
            window=width(recipe.window),
        )
        if len(rollout.groups) >= max(1, TOO_FEW * share):
            return rollout
    cause = rollout.abstained.most_common(1)[0][0]
    raise UserError(f"most rewards were missing in {ATTEMPTS} rollouts in a row; the commonest cause: {cause}")


def draw_branches(parts: Parts, rollout: Rollout, index: int) -> Rollout:
    """Repairs of one wrong draft of each prompt, as many as the recipe says."""
    recipe = parts.recipe
    if not recipe.branches:
        return Rollout([])
    seed = recipe.run.seed_of(index)
    begun = wrong_drafts(rollout.groups, recipe.right, random.Random(seed))
    share = recipe.prompts_per_step // this_process().num_processes
    return branch_out(
        parts.replica.model,
        begun,
        recipe.branches,
        recipe.settings(seed * ATTEMPTS + 1),
        parts.rewards,
        max_batch=recipe.max_batch,
        first_row=(recipe.prompts_per_step * recipe.group) + this_process().process_index * share * recipe.branches,
    )


def credited(parts: Parts, group: Group) -> list[Trajectory]:
    """The chains of a group with the advantages of their drafts and verdicts."""
    recipe, chains = parts.recipe, group.chains
    if recipe.policy != "guided" and recipe.guidance > 1:  # the sampler's log-probs are of another policy
        whole = parts.policy  # where it is cut up, the copy instead: groups may be unequally many
        if sharded():
            whole = Policy(parts.replica.model, recipe.settings(0), recipe.policy)
        chains = tuple(rescored(whole, chains))
    truths = [_truth(r, recipe.judge_claims, recipe.judge_threshold) for r in group.rewards]
    scored = [_scored(*of_one) for of_one in zip(chains, group.rewards, truths, strict=True)]
    if recipe.judge_balanced:
        scored = balanced(scored)
    if recipe.reason_weight:
        scored = [replace(s, reasons=true_reasons(c, recipe.world)) for s, c in zip(scored, chains, strict=True)]
    earned = varied(scored, chains, recipe.variety) if recipe.variety else scored
    credits = CREDITS[recipe.credit](earned, recipe.limit, recipe.draw_weight, recipe.judge_weight)
    credits = reasoned(credits, scored, recipe.reason_weight)
    if parts.janus.format == "repair":
        credits = _of_lists(parts, credits, chains, group.rewards)
    return [Trajectory(*of_one) for of_one in zip(chains, scored, credits, strict=True)]


def _of_lists(
    parts: Parts, credits: Sequence[Credit], chains: Sequence[Chain], rewards: Sequence[Sequence[float]]
) -> list[Credit]:
    """Marks by their own truth where decisions are credited, else the list as the word."""
    if parts.recipe.credit != "decisions":
        return alike(credits, chains)
    its = world(parts.recipe.world)
    truths = [token_marks(parts.janus.layout, chain, its, own) for chain, own in zip(chains, rewards, strict=True)]
    return listed(credits, chains, truths, parts.recipe.judge_weight)


def _truth(rewards: Sequence[float], by_claims: bool, threshold: float | None) -> tuple[float, ...]:
    """What verdicts are held to, one number a draft."""
    values = [weakest_claim(reward) if by_claims else reward for reward in rewards]
    return tuple(value if threshold is None else float(value >= threshold) for value in values)


def _scored(chain: Chain, rewards: tuple[float, ...], truth: tuple[float, ...]) -> Scored:
    verdicts = [r.verdict for r in chain.rounds]
    return Scored(rewards, tuple(float(v.accepted) for v in verdicts), tuple(v.p_yes for v in verdicts), truth)


def _scored_of(groups: Sequence[Sequence[Trajectory]]) -> list[list[Scored]]:
    return [[t.scored for t in group] for group in groups]


def rollouts_alike(groups: Sequence[Sequence[Trajectory]], before: int) -> int:
    """How many rollouts in a row have had no spread. Raises UserError when the run can learn nothing any more."""
    alike = 0 if any(has_spread(group) for group in _scored_of(groups)) else before + 1
    if alike == PATIENCE:
        reward = groups[0][0].scored.rewards[0]
        raise UserError(
            f"{PATIENCE} rollouts in a row earned the same reward ({reward:.3g}) for every draft of a prompt: "
            "nothing can be learnt; check the reward, or raise the temperature or the group"
        )
    return alike


def dealt(groups: Sequence[Sequence[Trajectory]], count: int) -> list[list[Trajectory]]:
    """``count`` minibatches of whole groups; in each alike lengths side by side."""
    shares = [[t for group in groups[i::count] for t in group] for i in range(count)]
    return [sorted(part, key=lambda t: t.chain.tokens) for part in shares]


# --------------------------------------------------------------------------------------- learning


def minibatch(parts: Parts, minibatches: Sequence[list[Trajectory]], index: int) -> tuple[list[list[Trajectory]], Any]:
    """Micro-batches of a minibatch, and their loss; chains that teach nothing are left out.

    Empty ones make their number the same in all processes.
    """
    learnt = [t for t in minibatches[index] if not t.credit.idle]
    tokens = {
        "image": max(1, sum(len(r.logprobs) for t in learnt for r in t.chain.rounds)),
        "text": max(1, sum(r.verdict.tokens for t in learnt for r in t.chain.rounds)),
    }
    size = parts.recipe.micro_batch
    count = max(1, most(-(-len(learnt) // size)))
    batches = [learnt[i * size : (i + 1) * size] for i in range(count)]
    stand_in = next(t for part in minibatches for t in part)
    return batches, partial(chain_loss, parts=parts, tokens=tokens, stand_in=stand_in)


def chain_loss(
    module: torch.nn.Module,
    batch: list[Trajectory],
    *,
    parts: Parts,
    tokens: dict[str, int],
    stand_in: Trajectory,
) -> tuple[torch.Tensor, dict[str, float]]:
    """The objective of a micro-batch, negated, as its share of the minibatch's mean over chains.

    ``tokens`` are the minibatch's, of which figures are means. An empty batch takes ``stand_in``, without weight, to
    join the other processes.
    """
    recipe, weight = parts.recipe, float(bool(batch))
    batch = batch or [stand_in]
    rows = rows_of(parts.janus.layout, [t.chain for t in batch])
    flats = (image_tokens(batch, recipe.credit), text_tokens(batch, recipe.credit))
    chains = recipe.prompts_per_step * recipe.group / recipe.minibatches / this_process().num_processes
    total = torch.zeros((), device=parts.janus.device)
    figures: dict[str, float] = {}
    for kind, now, fixed, flat in zip(KINDS, module(rows), reference_logprobs(parts, rows), flats, strict=True):
        loss, watched = token_loss(now, flat.to(now.device), fixed, recipe.clip, recipe.kl)
        total = total + weight * loss / chains
        share = weight * len(now) / tokens[kind]
        figures |= {f"{name}_{kind}": value * share for name, value in watched.items()}
    return total, figures


@torch.no_grad()
def reference_logprobs(parts: Parts, rows: Rows) -> Sequence[torch.Tensor | None]:
    """Those of the frozen policy: it embeds the same ids with its own weights."""
    if parts.adapters and parts.recipe.kl:
        with parts.adapters.off():
            return parts.policy(rows)
    if parts.reference is None:
        return None, None
    half = parts.recipe.run.precision == "bf16"  # as accelerate computes the policy
    with torch.autocast(this_process().device.type, torch.bfloat16, enabled=half):
        return parts.reference(rows)


# -------------------------------------------------------------------------- evaluation, what is kept


def evaluate(parts: Parts, out: Path, step: int) -> dict[str, float]:
    """On fixed tasks that are not trained on, the likeliest verdicts; the model that does best is kept in ``out``."""
    recipe = parts.recipe
    settings = replace(recipe.settings(seed=0), text_temperature=0.0)
    model = parts.replica.refresh()
    rollout = roll_out(model, parts.tasks.held_out, 1, settings, parts.rewards, max_batch=64, fewest=1)
    scored = [_scored(c, r, r) for g in rollout.groups for c, r in zip(g.chains, g.rewards, strict=True)]
    if not scored:
        return {}
    figures = {f"eval_{k}": v for k, v in chain_figures(scored, recipe.rounds, recipe.right).items()}
    if this_process().is_main_process:
        keep_best(model, out, step, figures["eval_final_right"])
    return figures


def keep_best(janus: Janus, out: Path, step: int, score: float) -> None:
    """``<out>/best`` holds the model that scored highest, ``<out>/best.json`` its step and score."""
    record = out / "best.json"
    if not record.exists() or read_json_object(record)["score"] < score:
        save(janus, out / "best", torch.bfloat16)
        write_json(record, {"step": step, "score": score})


def _keep(recipe: RlRecipe, out: Path, step: int, rollout: Rollout, branches: Rollout) -> None:
    """Some groups of a rollout to read, and all of it as candidates where the recipe wants them."""
    rank, index = this_process().process_index, step // recipe.updates
    if this_process().is_main_process:
        write_journal(out / "rollouts.jsonl", step, [*rollout.groups[:READ], *branches.groups[:READ]])
    if recipe.keep_candidates:
        share = recipe.prompts_per_step // this_process().num_processes
        first_id = index * recipe.prompts_per_step + rank * share
        write_candidates(out / "candidates", index, rank, rollout.groups, first_id)


def _forget_journal(out: Path, step: int) -> None:
    """What a killed run wrote beyond its checkpoint."""
    if this_process().is_main_process and (out / "rollouts.jsonl").exists():
        forget_after(out / "rollouts.jsonl", step)


def _preview(parts: Parts) -> np.ndarray:
    return chain_sheet(
        parts.replica.model,
        parts.recipe.rounds,
        edits=0 if parts.recipe.task == "draw" else 3,
        world_name=parts.recipe.world,
    )
