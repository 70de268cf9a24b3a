"""What can be said of a run of reinforcement learning, and what cannot be meant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from janus_r1.chain import Settings
from janus_r1.data.tasks import OF_WORLD, TaskName, check_families
from janus_r1.errors import require
from janus_r1.fields import Above0, AtLeast0, Checked, Count, Positive, Range, Share, Window
from janus_r1.rewards.score import RewardRecipe
from janus_r1.train.credit import RIGHT
from janus_r1.train.loop import RunOptions
from janus_r1.train.lora import LoraRecipe
from janus_r1.train.policy import PolicyName
from janus_r1.train.processes import this_process
from janus_r1.train.stability import StabilityRecipe
from janus_r1.worlds.base import DEFAULT


@dataclass
class RlRecipe(Checked):
    """Recipe of ``janus-r1 train rl``."""

    run: RunOptions = field(default_factory=lambda: RunOptions(out="runs/rl", steps=1000))
    model: str = "runs/sft/model"
    """Model to start from: a folder, an embedded model or a Hub id."""
    world: str = DEFAULT
    """Where tasks come from: shapes, a Python file with a world of your own, or module:name."""
    prompts: str = "world"
    """``world`` (its training prompts), or a file: a prompt a line, or JSONL with "prompt"."""
    prompt_families: list[str] = field(default_factory=list)
    """Families of the world's prompts, each as often as it is named. All, in the world's shares, when empty."""
    task: TaskName = "draw"
    """``edit``: edits instead of prompts; ``both``: some of each. A copied source earns most of an edit's reward
    (0.67 by the paper's weights): let judge_threshold be 0.99, or verdicts are paid for praising copies."""
    edit_share: Annotated[float, Range(gt=0, lt=1)] = 0.5
    """Share of edits where the task is both."""
    edits: str = "world"
    """``world`` (its training edits), or a JSONL file with "instruction" and "source"."""
    edit_families: list[str] = field(default_factory=list)
    """Families of the world's edits, each as often as it is named: what a model is worst at can come more often. All
    when empty."""
    rewards: list[RewardRecipe] = field(default_factory=lambda: [RewardRecipe(kind="world")])
    """What scores a draft in [0, 1]; several are averaged by weight."""
    prompts_per_step: Positive = 16
    """Prompts a rollout, over all processes."""
    group: Annotated[int, Range(ge=2)] = 8
    """Chains of every prompt (G; paper: 7)."""
    rounds: Positive = 3
    """Largest number of drafts (T)."""
    guidance: Annotated[float, Range(ge=1)] = 1.5
    temperature: Above0 = 1.0
    top_k: Count = 0
    text_temperature: Above0 = 1.0
    text_top_k: Count = 0
    max_reason_tokens: Positive = 40
    max_list_tokens: Positive = 120
    """Format repair: of a list."""
    history: Literal["full", "last"] = "full"
    branches: Count = 0
    """Format repair: looks and repairs that go on from one wrong draft of every prompt, a group of their own; the
    prompt's chains are then of one draft. 0 lets chains run on to ``rounds``."""
    variety: AtLeast0 = 0.0
    """What a first draft may earn more, as a share of its reward, for looking unlike the others of its group: without
    it the drawings of a prompt become alike."""
    credit: Literal["chain", "segment", "direct", "calibrated", "decisions"] = "direct"
    """Which tokens a reward is credited to: ``chain`` (paper: one advantage for all tokens),
    ``segment`` (official code: each draft and verdict by itself), ``direct`` (ours: each decision by
    what follows from it), ``calibrated`` (so, and verdicts by their log score, which does not pay for being sure),
    ``decisions`` (format repair: so, repairs by what they improve, and marks by the log score of their truth: of the
    claim of the same words that the reward tells, else of what the world knows)."""
    policy: PolicyName = "guided"
    """How an image token's log-prob is taken: ``guided`` (the sampler's), ``tempered`` (official
    code), ``conditional`` (no guidance, half the cost)."""
    draw_weight: AtLeast0 = 1.0
    """Weight of the reward for drawing well (R_gen); 0 leaves it out."""
    judge_weight: AtLeast0 = 1.0
    """Weight of the reward for judging truly (R_comp); 0 leaves it out."""
    reason_weight: AtLeast0 = 0.0
    """Weight of the reward for true reasons of a No, which the world's verifier alone can tell; without it they are
    paid by the next draft (paper), and soon say the same of every one."""
    judge_threshold: Share | None = None
    """Rewards from here on count as 1, below as 0, when verdicts are credited; null takes them as they
    are (paper)."""
    judge_claims: bool = False
    """Hold verdicts to the weakest claim that a reward tells of a draft, since a Yes says that all of them hold; the
    reward itself, which is their mean, still pays the drawing. Where it tells none, to the reward."""
    judge_balanced: bool = False
    """Whether the right and the wrong drafts of a prompt count alike for the judge; as they come (paper), it is also
    paid for knowing which prompts are mostly drawn well."""
    clip: Above0 = 0.2
    kl: AtLeast0 = 0.0
    """Weight of the KL to the reference (beta; paper: 0.05); 0 needs no reference."""
    minibatches: Positive = 1
    """Optimizer steps a pass over a rollout, each on its own share of the groups."""
    passes: Positive = 1
    """Passes over a rollout; beyond the first the ratio and its clip act."""
    micro_batch: Positive = 32
    """Chains that go through the model together in training; sets the memory."""
    max_batch: Positive = 128
    """Chains that are drawn together."""
    window: Window = "auto"
    """Image tokens drawn in one forward pass, for the same image; auto: as many as pay."""
    rollout_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the drawing model; another than the trained one's makes a copy of it."""
    reference_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the frozen copy that the KL is measured against; LoRA needs none."""
    lora: LoraRecipe = field(default_factory=LoraRecipe)
    """Train adapters in place of all weights."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: Above0 = 1e-6
    weight_decay: AtLeast0 = 0.0
    compile: bool = False
    recompute: bool = False
    """Recompute the layers' activations backwards: a third more work for a fraction of the memory."""
    stability: StabilityRecipe = field(default_factory=StabilityRecipe)
    """Roll back or move the reference when the run goes wrong."""
    eval_every: Count = 50
    """Steps between evaluations on fixed prompts that are not trained on; 0 for none."""
    eval_prompts: Count = 128
    keep_candidates: bool = False
    """Keep every draft with its reward in ``<out>/candidates``, for ``train sft`` on the same rollouts (rejection
    sampling); a draft of 64 x 64 pixels takes 12 kB."""

    @property
    def updates(self) -> int:
        """Optimizer steps a rollout."""
        return self.minibatches * self.passes

    @property
    def limit(self) -> int:
        """Largest number of drafts of a rollout's chains: repairs have groups of their own where there are branches."""
        return 1 if self.branches else self.rounds

    @property
    def right(self) -> float:
        """A right draft's least reward."""
        return self.judge_threshold or RIGHT

    def settings(self, seed: int) -> Settings:
        """How chains are sampled: by the keys that the recipe has in common with :class:`Settings`."""
        return Settings.among({**vars(self), "seed": seed})


def check(recipe: RlRecipe) -> None:
    """Raises UserError for values that cannot be meant, before anything is loaded."""
    processes = this_process().num_processes
    require(recipe.prompts_per_step % processes == 0, f"prompts_per_step must be a multiple of {processes} processes")
    check_families(recipe.world, recipe.edit_families)
    check_families(recipe.world, recipe.prompt_families, "draw")
    share = recipe.prompts_per_step // processes
    require(recipe.minibatches <= share, f"minibatches must be at most the {share} prompts of a process")
    updates = recipe.updates
    require(recipe.run.save_every % updates == 0, f"run.save_every must be a multiple of {updates} (updates a rollout)")
    asked = [*([recipe.prompts] * (recipe.task != "edit")), *([recipe.edits] * (recipe.task != "draw"))]
    ours = all(source == OF_WORLD for source in asked)
    require(not recipe.reason_weight or ours, "reason_weight needs prompts and edits of the world")
    require(recipe.task == "draw" or not recipe.keep_candidates, "keep_candidates is for the task draw alone")
    require(recipe.branches != 1, "branches must be 0 or at least 2: a repair is compared with others of its draft")
    recipe.settings(0)
