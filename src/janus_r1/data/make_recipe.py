"""What can be said of ``janus-r1 data make``, what cannot be meant, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from janus_r1.errors import require
from janus_r1.fields import AtLeast0, Checked, Count, Positive
from janus_r1.rewards.score import RewardRecipe

NEEDS = {"janus": ("model",), "diffusers": ("model",), "server": ("url", "model"), "store": ("folder",)}
HERE = ("janus", "diffusers")  # drawn in this process


@dataclass
class DrawerRecipe(Checked):
    """One drawer of a recipe's list."""

    kind: Literal["janus", "diffusers", "server", "store"]
    """janus: a Janus model in this process; diffusers: a pipeline in this process (pip install 'janus-r1[diffusers]');
    server: an OpenAI-compatible images server; store: images that exist."""
    model: str = ""
    """janus: a folder, an embedded model or a Hub id; diffusers: a folder or a Hub id; server: the name that it
    knows."""
    url: str = ""
    """server: base address; of several replicas with commas between them."""
    folder: str = ""
    """store: of ``data import``; its images of the same prompts are taken."""
    images: Positive = 1
    """Of every prompt."""
    name: str = ""
    """Becomes the source of its images; the model or the folder by default."""
    api_key_env: str | None = None
    """server: the environment variable that holds the API key."""
    size: str = ""
    """server: 384x384 and the like; empty: its own."""
    concurrency: Positive = 8
    """server: calls at once."""
    tries: Positive = 5
    """server: of every call."""
    timeout_s: AtLeast0 = 120.0
    backoff_s: AtLeast0 = 1.0
    """server: wait after the first failure; doubles, with jitter."""
    guidance: AtLeast0 = 5.0
    """janus: classifier-free guidance; the paper uses 5, the tiny models 1.5."""
    temperature: AtLeast0 = 1.0
    """janus: of the draft."""
    dtype: str = "auto"
    device: str = "cpu"
    """janus, diffusers: cpu, cuda, cuda:1, ..."""
    options: dict[str, Any] = field(default_factory=dict)
    """diffusers: further arguments of the pipeline, such as {num_inference_steps: 28, guidance_scale: 3.5}."""
    batch: Positive = 4
    """diffusers: images drawn at once."""

    @property
    def source(self) -> str:
        return self.name or self.model or Path(self.folder).name


@dataclass
class WriterRecipe(Checked):
    """A language model that writes prompts longer."""

    url: str = ""
    """Base address of an OpenAI-compatible server; empty: prompts stay as they are."""
    model: str = ""
    api_key_env: str | None = None


@dataclass
class MakeRecipe(Checked):
    """Recipe of ``janus-r1 data make``."""

    prompts: str = ""
    """A file with a prompt a line, JSONL with "prompt", or - for standard input."""
    out: str = ""
    """Folder of the store."""
    drawers: list[DrawerRecipe] = field(default_factory=list)
    """Who draws."""
    rewards: list[RewardRecipe] = field(default_factory=list)
    """Who judges; several are averaged by weight. None: images stay without a score."""
    reasons: bool = True
    """Ask the first reward that can for a reason, which doubles its calls."""
    writer: WriterRecipe = field(default_factory=WriterRecipe)
    """Writes the prompts longer before they are drawn."""
    undecided: bool = True
    """Keep images scored from 0.5 up to 0.7, which are neither accepted nor rejected."""
    licence: str = ""
    """Of all images, as the store shall say it."""
    image_price: AtLeast0 = 0.0
    """Of one image of a server, for the estimate and the report."""
    call_price: AtLeast0 = 0.0
    """Of one question to a judge."""
    part: Positive = 64
    """Prompts a shard."""
    processes: Positive = 1
    """How many share the prompts; each makes a store of its own, and training takes all of them."""
    process: Count = 0
    """Which of them this one is."""
    seed: Count = 0


@dataclass
class Cost:
    """What a build took; of parts made earlier, too."""

    images: int = 0
    """Drawn by servers and models, not taken from stores."""
    server_images: int = 0
    questions: int = 0
    """Asked of judges and answered; remembered answers are free."""
    failed_tries: int = 0
    tokens: int = 0
    seconds: float = 0.0
    missing: dict[str, int] = field(default_factory=dict)
    """What is not in the store, by cause: images that were not drawn, scores that nobody gave, what was filtered."""

    def add(self, other: dict[str, Any]) -> None:
        for name in ("images", "server_images", "questions", "failed_tries", "tokens", "seconds"):
            setattr(self, name, getattr(self, name) + other[name])
        for cause, count in other["missing"].items():
            self.missing[cause] = self.missing.get(cause, 0) + count


def check(recipe: MakeRecipe) -> None:
    """Raises UserError for what cannot be meant, before anything is read or asked."""
    require(bool(recipe.prompts), "there are no prompts: name a file under prompts")
    require(bool(recipe.out), "out is empty: name a folder for the store")
    require(bool(recipe.drawers), "there is no drawer: list at least one under drawers, such as {kind: janus, ...}")
    require(recipe.process < recipe.processes, f"process must be below processes, {recipe.processes}")
    for index, drawer in enumerate(recipe.drawers):
        needs = NEEDS[drawer.kind]
        for key in needs:
            require(bool(getattr(drawer, key)), f"drawers[{index}] of the kind {drawer.kind} needs a {key}")
    names = [drawer.source for drawer in recipe.drawers]
    require(len(set(names)) == len(names), f"two drawers have one name ({', '.join(names)}): give each a name")


def estimate(recipe: MakeRecipe, prompts: int) -> Cost:
    """What a build takes at most: every image drawn, every question asked once, nothing failing."""
    kinds = (*HERE, "server")
    drawn = {kind: prompts * sum(d.images for d in recipe.drawers if d.kind == kind) for kind in kinds}
    judged = prompts * sum(drawer.images for drawer in recipe.drawers)
    asked = [reward for reward in recipe.rewards if reward.kind == "endpoint"]
    explained = recipe.reasons and bool(asked)
    questions = judged * (len(asked) + explained) + (prompts if recipe.writer.url else 0)
    return Cost(sum(drawn.values()), drawn["server"], questions)


def price(recipe: MakeRecipe, cost: Cost) -> float:
    return cost.server_images * recipe.image_price + cost.questions * recipe.call_price
