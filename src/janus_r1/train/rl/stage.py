"""Stage 3: reinforcement learning on whole chains (paper section 3.2, design section 7).

A rollout draws, judges and redraws exactly as inference does; its rewards become advantages
(``credit``), its tokens are scored again under the current weights (``policy``), and the clipped
objective with an optional KL to a frozen reference is climbed for one or more steps.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from janus_r1.chain import Chain
from janus_r1.errors import UserError
from janus_r1.model.janus import Janus
from janus_r1.model.loading import load, save
from janus_r1.rewards.build import build_rewards
from janus_r1.rewards.reasons import true_reasons
from janus_r1.train.loop import Stage, run
from janus_r1.train.lora import Adapters
from janus_r1.train.optim import adamw, muon_and_adamw
from janus_r1.train.prepare import prepare
from janus_r1.train.preview import chain_sheet
from janus_r1.train.processes import most, sharded, this_process
from janus_r1.train.replica import Replica
from janus_r1.train.rl import trajectory
from janus_r1.train.rl.best import Best
from janus_r1.train.rl.credit import CREDITS, Scored, balanced, has_spread, reasoned
from janus_r1.train.rl.edit_prompts import tasks
from janus_r1.train.rl.figures import RIGHT, chain_figures, rollout_figures
from janus_r1.train.rl.grpo import token_loss
from janus_r1.train.rl.guard import Guard
from janus_r1.train.rl.harvest import Harvest
from janus_r1.train.rl.journal import Journal
from janus_r1.train.rl.policy import Policy, rescored
from janus_r1.train.rl.recipe import RlRecipe, check
from janus_r1.train.rl.rollout import Group, Rollout, roll_out
from janus_r1.train.rl.trajectory import Rows, Trajectory

KINDS = ("image", "text")
HEADLINE = (
    *("reward_draw", "reward_judge", "first_right", "final_right", "verdicts_right", "reasons_true"),
    *("rounds", "fixed", "broken"),
    *("kl_image", "clipped_image", "gap_image", "gap_text", "no_spread", "abstained", "images_per_second"),
    *("seconds_drawing", "seconds_waiting", "seconds_learning", "eval_first_right", "eval_final_right"),
)
TOO_FEW = 0.5  # a rollout that keeps a smaller share of its groups is drawn again
ATTEMPTS = 3
PATIENCE = 20  # rollouts in a row without any spread before the run stops


class RlStage(Stage):
    headline = HEADLINE

    def __init__(self, recipe: RlRecipe) -> None:
        check(recipe)
        self.recipe = recipe
        self.process = this_process()
        self.rewards = build_rewards(recipe.rewards, str(self.process.device))
        self.prompts = tasks(
            recipe.task, recipe.prompts, recipe.edits, recipe.eval_prompts, recipe.edit_share, recipe.edit_families
        )
        self.janus = self._load(recipe.lora.base_dtype if recipe.lora.rank else "float32", recipe.recompute)
        self.adapters = Adapters(self.janus, recipe.lora, recipe.model, recipe.run.seed) if recipe.lora.rank else None
        self.module = self._policy(self.janus)
        self.reloads_frozen = True  # SigLIP, the image tokenizer, and the base under LoRA
        self.replica = Replica(self.janus, recipe.model, recipe.rollout_dtype, self.adapters)
        self.reference = None
        if recipe.kl and not self.adapters:
            self.reference = self._policy(self._load(recipe.reference_dtype)).requires_grad_(False)
        make = muon_and_adamw if recipe.optimizer == "muon" else adamw
        self.optimizers = make(self.janus, recipe.lr, recipe.weight_decay)
        self.journal = Journal(Path(recipe.run.out))
        self.harvest = Harvest(Path(recipe.run.out), self.process.process_index)
        self.best = Best(Path(recipe.run.out))
        self.guard = Guard(self, recipe.stability, Path(recipe.run.out))
        self.parts: list[list[Trajectory]] = []
        self.figures: dict[str, float] = {}
        self.tokens: dict[str, int] = {}
        self.without_spread = 0
        self.reward, self.kl, self.learning_since = 0.0, 0.0, 0.0

    def _load(self, dtype: str, recompute: bool = False) -> Janus:
        janus = load(self.recipe.model, dtype, str(self.process.device))
        prepare(janus, train_vision=False, compile_model=self.recipe.compile, recompute=recompute)
        return janus

    def _policy(self, janus: Janus) -> Policy:
        return Policy(janus, self.recipe.settings(0), self.recipe.policy)

    # ---------------------------------------------------------------------------------- rollouts

    def batches(self, step: int) -> list[list[Trajectory]]:
        """Micro-batches of a minibatch of the current rollout; chains that teach nothing are left out.

        Empty ones make their number the same in all processes.
        """
        if step % self.recipe.updates == 0:
            self.parts = self._minibatches(step)
        part = self.parts[step % self.recipe.minibatches]
        learnt = [t for t in part if not t.credit.idle]
        self.tokens = {
            "image": max(1, sum(len(r.ids) for t in learnt for r in t.chain.rounds)),
            "text": max(1, sum(len(r.verdict.ids) for t in learnt for r in t.chain.rounds)),
        }
        size = self.recipe.micro_batch
        count = max(1, most(-(-len(learnt) // size)))
        return [learnt[i * size : (i + 1) * size] for i in range(count)]

    def _minibatches(self, step: int) -> list[list[Trajectory]]:
        """A new rollout, credited and dealt out; alike lengths side by side."""
        index = step // self.recipe.updates
        self.guard.before_updates(step)
        rollout = self._roll_out(index)
        groups = [self._credited(group) for group in rollout.groups]
        self._watch(groups)
        if self.process.is_main_process:
            self.journal.write(step, rollout.groups)
        if self.recipe.keep_candidates:
            first = index * self.recipe.prompts_per_step + self.process.process_index * self._share
            self.harvest.write(index, rollout.groups, first)
        scored = [[t.scored for t in group] for group in groups]
        self.figures = rollout_figures(rollout, scored, self.recipe.rounds, self.recipe.judge_threshold or RIGHT)
        self.reward, self.kl, self.learning_since = self.figures["reward_draw"], 0.0, time.monotonic()
        share = range(self.recipe.minibatches)
        dealt = [[t for group in groups[i :: self.recipe.minibatches] for t in group] for i in share]
        return [sorted(part, key=lambda t: t.chain.tokens) for part in dealt]

    @property
    def _share(self) -> int:
        """Prompts of a rollout that are this process's."""
        return self.recipe.prompts_per_step // self.process.num_processes

    def _roll_out(self, index: int) -> Rollout:
        """This process's share of rollout ``index``; drawn again when too few rewards arrive."""
        recipe, rank, share = self.recipe, self.process.process_index, self._share
        model = self.replica.refresh()
        for attempt in range(ATTEMPTS):
            seed = recipe.run.seed_of(index) * ATTEMPTS + attempt
            prompts = self.prompts.step(recipe.prompts_per_step, recipe.run.seed, index * ATTEMPTS + attempt)
            rollout = roll_out(
                model,
                prompts[rank * share : (rank + 1) * share],
                recipe.group,
                recipe.settings(seed),
                self.rewards,
                max_batch=recipe.max_batch,
                first_row=rank * share * recipe.group,
            )
            if len(rollout.groups) >= max(1, TOO_FEW * share):
                return rollout
        cause = rollout.abstained.most_common(1)[0][0]
        raise UserError(f"most rewards were missing in {ATTEMPTS} rollouts in a row; the commonest cause: {cause}")

    def _credited(self, group: Group) -> list[Trajectory]:
        recipe = self.recipe
        chains = group.chains
        if recipe.policy != "guided" and recipe.guidance > 1:  # the sampler's log-probs are of another policy
            whole = self._policy(self.replica.model) if sharded() else self.module  # groups may be unequally many
            chains = tuple(rescored(whole, chains))
        scored = [_scored(c, r, recipe.judge_threshold) for c, r in zip(chains, group.rewards, strict=True)]
        if recipe.judge_balanced:
            scored = balanced(scored)
        if recipe.reason_weight:
            scored = [replace(s, reasons=true_reasons(c)) for s, c in zip(scored, chains, strict=True)]
        credits = CREDITS[recipe.credit](scored, recipe.rounds, recipe.draw_weight, recipe.judge_weight)
        credits = reasoned(credits, scored, recipe.reason_weight)
        return [Trajectory(*parts) for parts in zip(chains, scored, credits, strict=True)]

    def _watch(self, groups: list[list[Trajectory]]) -> None:
        """A run that can learn nothing any more says so."""
        spread = any(has_spread([t.scored for t in group]) for group in groups)
        self.without_spread = 0 if spread else self.without_spread + 1
        if self.without_spread == PATIENCE:
            reward = groups[0][0].scored.rewards[0]
            raise UserError(
                f"{PATIENCE} rollouts in a row earned the same reward ({reward:.3g}) for every draft of a prompt: "
                "nothing can be learnt; check the reward, or raise the temperature or the group"
            )

    # ---------------------------------------------------------------------------------- learning

    def loss(self, module, batch: list[Trajectory], step: int):
        recipe, counts = self.recipe, float(bool(batch))
        batch = batch or next([t] for part in self.parts for t in part)  # without weight, to join the others
        rows = trajectory.rows(self.janus.layout, [t.chain for t in batch])
        flats = (trajectory.image_tokens(batch, recipe.credit), trajectory.text_tokens(batch, recipe.credit))
        chains = recipe.prompts_per_step * recipe.group / recipe.minibatches / self.process.num_processes
        total = torch.zeros((), device=self.janus.device)
        figures, self.figures = self.figures, {}  # of the rollout: logged once
        for kind, now, fixed, flat in zip(KINDS, module(rows), self._fixed(rows), flats, strict=True):
            loss, watched = token_loss(now, flat.to(now.device), fixed, recipe.clip, recipe.kl)
            total = total + counts * loss / chains
            share = counts * len(now) / self.tokens[kind]
            figures |= {f"{name}_{kind}": value * share for name, value in watched.items()}
        self.kl = max(self.kl, figures.get("kl_image", 0.0))
        return total, figures

    @torch.no_grad()
    def _fixed(self, rows: Rows) -> Sequence[torch.Tensor | None]:
        """The reference's log-probs: it embeds the same ids with its own weights."""
        if self.adapters and self.recipe.kl:
            with self.adapters.off():
                return self.module(rows)
        if self.reference is None:
            return None, None
        half = self.recipe.run.precision == "bf16"  # as accelerate computes the policy
        with torch.autocast(self.process.device.type, torch.bfloat16, enabled=half):
            return self.reference(rows)

    def after_step(self, step: int) -> dict[str, float]:
        recipe = self.recipe
        figures = {}
        if (step + 1) % recipe.updates == 0:
            figures["seconds_learning"] = time.monotonic() - self.learning_since
            figures |= self.guard.after_rollout(step, self.reward, self.kl)
        if recipe.eval_every and (step + 1) % recipe.eval_every == 0:
            figures |= self._evaluate(step)
        return figures

    def _evaluate(self, step: int) -> dict[str, float]:
        """On fixed prompts that are not trained on, the likeliest verdicts; the best model is kept."""
        settings = replace(self.recipe.settings(seed=0), text_temperature=0.0)
        prompts = self.prompts.held_out
        rollout = roll_out(self.replica.refresh(), prompts, 1, settings, self.rewards, max_batch=64, fewest=1)
        scored = [_scored(c, r, None) for g in rollout.groups for c, r in zip(g.chains, g.rewards, strict=True)]
        if not scored:
            return {}
        right = self.recipe.judge_threshold or RIGHT
        figures = {f"eval_{k}": v for k, v in chain_figures(scored, self.recipe.rounds, right).items()}
        if self.process.is_main_process:
            self.best.offer(self.replica.model, step, figures["eval_final_right"])
        return figures

    def state(self) -> dict[str, Any]:
        return self.guard.state()

    def restore(self, state: dict[str, Any]) -> None:
        self.guard.restore(state)

    def preview(self, step: int) -> np.ndarray:
        return chain_sheet(self.replica.model, self.recipe.rounds, edits=0 if self.recipe.task == "draw" else 3)


def _scored(chain: Chain, rewards: tuple[float, ...], threshold: float | None) -> Scored:
    truth = rewards if threshold is None else tuple(float(r >= threshold) for r in rewards)
    verdicts = [r.verdict for r in chain.rounds]
    return Scored(rewards, tuple(float(v.accepted) for v in verdicts), tuple(v.p_yes for v in verdicts), truth)


def rl(recipe: RlRecipe, resume: bool = False) -> Path:
    """Reinforce whole chains by rewards for drawing and judging.

    ``<out>/model`` then holds the last weights, ``<out>/best`` those that evaluated best.

    With LoRA both are merged, and ``<out>/adapter`` holds the adapters in peft's format.
    """
    stage = RlStage(recipe)
    out = run(stage, recipe, recipe.run, resume)
    model = stage.replica.refresh()
    if stage.process.is_main_process:
        save(model, out / "model", torch.bfloat16)
    if stage.adapters:
        stage.adapters.save(out / "adapter")
    return out / "model"
