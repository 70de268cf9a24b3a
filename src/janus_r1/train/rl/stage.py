"""Stage 3: reinforcement learning on whole chains (paper section 3.2, design section 7).

A rollout draws, judges and redraws exactly as inference does; its rewards become advantages
(``credit``), its tokens are scored again under the current weights (``policy``), and the clipped
objective with an optional KL to a frozen reference is climbed for one or more steps.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from janus_r1.chain import Chain, Settings
from janus_r1.errors import UserError, require
from janus_r1.model.janus import Janus
from janus_r1.model.loading import load, save
from janus_r1.reward.build import RewardRecipe, build_rewards
from janus_r1.train.loop import RunOptions, Stage, run
from janus_r1.train.lora import Adapters, LoraRecipe
from janus_r1.train.optim import adamw, muon_and_adamw
from janus_r1.train.prepare import prepare
from janus_r1.train.preview import chain_sheet
from janus_r1.train.processes import most, sharded, this_process
from janus_r1.train.replica import Replica
from janus_r1.train.rl import trajectory
from janus_r1.train.rl.best import Best
from janus_r1.train.rl.credit import CREDITS, Scored, has_spread
from janus_r1.train.rl.edit_prompts import TaskName, tasks
from janus_r1.train.rl.figures import RIGHT, chain_figures, rollout_figures
from janus_r1.train.rl.grpo import clipped_objective, k3
from janus_r1.train.rl.guard import Guard
from janus_r1.train.rl.harvest import Harvest
from janus_r1.train.rl.journal import Journal
from janus_r1.train.rl.policy import Policy, PolicyName, rescored
from janus_r1.train.rl.rollout import Group, Rollout, roll_out
from janus_r1.train.rl.stability import StabilityRecipe
from janus_r1.train.rl.trajectory import Flat, Rows, Trajectory

KINDS = ("image", "text")
HEADLINE = (
    *("reward_draw", "reward_judge", "first_right", "final_right", "verdicts_right", "rounds", "fixed", "broken"),
    *("kl_image", "clipped_image", "gap_image", "gap_text", "no_spread", "abstained", "images_per_second"),
    *("seconds_drawing", "seconds_waiting", "seconds_learning", "eval_first_right", "eval_final_right"),
)
TOO_FEW = 0.5  # a rollout that keeps a smaller share of its groups is drawn again
ATTEMPTS = 3
PATIENCE = 20  # rollouts in a row without any spread before the run stops


@dataclass
class RlRecipe:
    """Recipe of ``janus-r1 train rl``."""

    run: RunOptions = field(default_factory=lambda: RunOptions(out="runs/rl", steps=1000))
    model: str = "runs/sft/model"
    """Model to start from: a folder, an embedded model or a Hub id."""
    prompts: str = "shapes"
    """``shapes`` (the world's training prompts), or a file: a prompt a line, or JSONL with "prompt"."""
    task: TaskName = "draw"
    """``edit``: edits instead of prompts; ``both``: half of each. A copied source earns most of an edit's reward
    (0.67 by the paper's weights): let judge_threshold be 0.99, or verdicts are paid for praising copies."""
    edits: str = "shapes"
    """``shapes`` (the world's training edits), or a JSONL file with "instruction" and "source"."""
    rewards: list[RewardRecipe] = field(default_factory=lambda: [RewardRecipe(kind="world")])
    """What scores a draft in [0, 1]; several are averaged by weight."""
    prompts_per_step: int = 16
    """Prompts a rollout, over all processes."""
    group: int = 8
    """Chains of every prompt (G; paper: 7)."""
    rounds: int = 3
    """Largest number of drafts (T)."""
    guidance: float = 1.5
    temperature: float = 1.0
    top_k: int = 0
    text_temperature: float = 1.0
    text_top_k: int = 0
    max_reason_tokens: int = 40
    history: Literal["full", "last"] = "full"
    credit: Literal["chain", "segment", "direct"] = "direct"
    """Which tokens a reward is credited to: ``chain`` (paper: one advantage for all tokens),
    ``segment`` (official code: each draft and verdict by itself), ``direct`` (ours: each decision by
    what follows from it)."""
    policy: PolicyName = "guided"
    """How an image token's log-prob is taken: ``guided`` (the sampler's), ``tempered`` (official
    code), ``conditional`` (no guidance, half the cost)."""
    draw_weight: float = 1.0
    """Weight of the reward for drawing well (R_gen); 0 leaves it out."""
    judge_weight: float = 1.0
    """Weight of the reward for judging truly (R_comp); 0 leaves it out."""
    judge_threshold: float | None = None
    """Rewards from here on count as 1, below as 0, when verdicts are credited; null takes them as they
    are (paper)."""
    clip: float = 0.2
    kl: float = 0.0
    """Weight of the KL to the reference (beta; paper: 0.05); 0 needs no reference."""
    minibatches: int = 1
    """Optimizer steps a pass over a rollout, each on its own share of the groups."""
    passes: int = 1
    """Passes over a rollout; beyond the first the ratio and its clip act."""
    micro_batch: int = 32
    """Chains that go through the model together in training; sets the memory."""
    max_batch: int = 128
    """Chains that are drawn together."""
    rollout_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the drawing model; another than the trained one's makes a copy of it."""
    reference_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the frozen copy that the KL is measured against; LoRA needs none."""
    lora: LoraRecipe = field(default_factory=LoraRecipe)
    """Train adapters in place of all weights."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: float = 1e-6
    weight_decay: float = 0.0
    compile: bool = False
    recompute: bool = False
    """Recompute the layers' activations backwards: a third more work for a fraction of the memory."""
    stability: StabilityRecipe = field(default_factory=StabilityRecipe)
    """Roll back or move the reference when the run goes wrong."""
    eval_every: int = 50
    """Steps between evaluations on fixed prompts that are not trained on; 0 for none."""
    eval_prompts: int = 128
    keep_candidates: bool = False
    """Keep every draft with its reward in ``<out>/candidates``, for ``train sft`` on the same rollouts (rejection
    sampling); a draft of 64 x 64 pixels takes 12 kB."""

    @property
    def updates(self) -> int:
        """Optimizer steps a rollout."""
        return self.minibatches * self.passes

    def settings(self, seed: int) -> Settings:
        """How chains are sampled: by the keys that the recipe has in common with :class:`Settings`."""
        return Settings.among({**vars(self), "seed": seed})


class RlStage(Stage):
    headline = HEADLINE

    def __init__(self, recipe: RlRecipe) -> None:
        check(recipe)
        self.recipe = recipe
        self.process = this_process()
        self.rewards = build_rewards(recipe.rewards, str(self.process.device))
        self.prompts = tasks(recipe.task, recipe.prompts, recipe.edits, recipe.eval_prompts)
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
        credits = CREDITS[recipe.credit](scored, recipe.rounds, recipe.draw_weight, recipe.judge_weight)
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


def token_loss(
    now: torch.Tensor, flat: Flat, fixed: torch.Tensor | None, clip: float, kl: float
) -> tuple[torch.Tensor, dict[str, float]]:
    """Weighted sum over tokens of -objective + kl k3, and what to watch (means over tokens)."""
    objective, acted = clipped_objective(now, flat.old, flat.advantages, clip)
    loss = -(flat.weights * objective).sum()
    gap = (now.detach() - flat.old).abs()
    watched = {"clipped": float(acted.float().mean()), "gap": float(gap.mean())}
    if fixed is not None:
        divergence = k3(now, fixed)
        loss = loss + kl * (flat.weights * divergence).sum()
        watched["kl"] = float(divergence.detach().mean())
    return loss, watched


def _scored(chain: Chain, rewards: tuple[float, ...], threshold: float | None) -> Scored:
    truth = rewards if threshold is None else tuple(float(r >= threshold) for r in rewards)
    verdicts = [r.verdict for r in chain.rounds]
    return Scored(rewards, tuple(float(v.accepted) for v in verdicts), tuple(v.p_yes for v in verdicts), truth)


def check(recipe: RlRecipe) -> None:
    """Raises UserError for values that cannot be meant, before anything is loaded."""
    processes = this_process().num_processes
    require(recipe.group >= 2, "group must be at least 2: chains of a prompt are compared with each other")
    require(recipe.prompts_per_step % processes == 0, f"prompts_per_step must be a multiple of {processes} processes")
    require(recipe.minibatches >= 1 and recipe.passes >= 1, "minibatches and passes must be at least 1")
    share = recipe.prompts_per_step // processes
    require(recipe.minibatches <= share, f"minibatches must be at most the {share} prompts of a process")
    updates = recipe.updates
    require(recipe.run.save_every % updates == 0, f"run.save_every must be a multiple of {updates} (updates a rollout)")
    sampled = recipe.temperature > 0 and recipe.text_temperature > 0
    require(sampled, "temperature and text_temperature must be above 0: rollouts are sampled")
    require(recipe.task == "draw" or not recipe.keep_candidates, "keep_candidates is for the task draw alone")
    recipe.settings(0)


def rl(recipe: RlRecipe, resume: bool = False) -> Path:
    """Train; ``<out>/model`` then holds the last weights, ``<out>/best`` those that evaluated best.

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
