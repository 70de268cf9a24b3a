"""Stage 1 of a from-scratch model: draw from captions, edit, describe and answer questions about images.

Stands in for Janus-Pro's own pretraining. Every step sees fresh scenes, so nothing is memorised;
images are encoded by the trained tokenizer as they are rendered.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers.models.janus.modeling_janus import JanusVQVAE

from janus_r1.data.edit_examples import WorldEdits
from janus_r1.data.seeing import Seeing, SeeingRecipe
from janus_r1.errors import UserError
from janus_r1.layout import EDIT_REQUEST, REGENERATE, SELF_CHECK, Row
from janus_r1.model.janus import Janus, from_uint8
from janus_r1.model.loading import load, save
from janus_r1.model.presets import random_model, tiny_config
from janus_r1.model.tokenizer import train_tokenizer
from janus_r1.train.loop import RunOptions, Stage, run, share
from janus_r1.train.objective import NextToken
from janus_r1.train.optim import muon_and_adamw
from janus_r1.train.prepare import prepare
from janus_r1.train.preview import chain_sheet
from janus_r1.worlds.shapes.edit_cases import train_edits
from janus_r1.worlds.shapes.mistakes import side_effects
from janus_r1.worlds.shapes.prompts import Prompt, train_prompts
from janus_r1.worlds.shapes.questions import ask
from janus_r1.worlds.shapes.render import render
from janus_r1.worlds.shapes.scene import Scene, sample_scene
from janus_r1.worlds.shapes.verify import verify
from janus_r1.worlds.shapes.verify_edit import verify_edit


@dataclass
class PretrainRecipe:
    """Recipe of ``janus-r1 train pretrain``."""

    run: RunOptions = field(default_factory=lambda: RunOptions(out="runs/base", steps=6000))
    vq: str = "runs/vq/vq"
    """Folder of the trained image tokenizer, for a model from nothing."""
    model: str | None = None
    """Go on from this model instead; then ``vq``, the tokenizer and the sizes below are the model's."""
    draw_rows: int = 80
    """Caption -> image rows a step."""
    see_rows: int = 24
    """Rows about a picture a step: questions, and verdicts on whether it is what a prompt asks for."""
    edit_rows: int = 0
    """Rows a step from a source image and an instruction to the edited image. The text tokenizer of a model
    from nothing then learns the words of edits, too."""
    seeing: SeeingRecipe = field(default_factory=SeeingRecipe)
    """What ``see_rows`` are made of."""
    text_weight: float = 0.3
    """Weight of the text loss beside the image loss."""
    train_vision: bool = True
    """Also train the understanding encoder and its aligner; not after ``train vision`` has taught them."""
    caption_dropout: float = 0.1
    """Share of drawing and editing rows whose prompt or instruction is replaced by pads, for guidance."""
    lr: float = 3e-3
    weight_decay: float = 0.01
    compile: bool = False
    """Compile the language model (needs a C++ compiler): 30 % faster steps after a minute or two."""
    vocab_size: int = 640
    """Largest text vocabulary; the world's words need about 530."""
    tokenizer_prompts: int = 2500
    """Prompts whose texts the text tokenizer is trained on."""
    hidden: int = 256
    layers: int = 5
    intermediate: int = 640


def tokenizer_corpus(count: int, seed: int = 0, edits: bool = False) -> list[str]:
    """Texts of the world: prompts, answers, reasons, and the fixed strings of the layout; those of ``edits``, too."""
    rng = random.Random(seed)
    texts = []
    for prompt in itertools.islice(train_prompts(rng), count):
        scene = sample_scene(prompt.description, rng)
        question, answer = ask(scene, prompt, rng)
        other = next(train_prompts(rng))
        reason = verify(render(scene), other.description).reason
        texts += [f": {prompt.text}\n\n", f"\n{question}\n\n", f" {answer}", f"No, {reason}.", f"Yes, {reason}."]
    texts += [SELF_CHECK, REGENERATE, "Yes, the image matches the prompt."] * 50
    return texts + _editing_corpus(count, rng) if edits else texts


def _editing_corpus(count: int, rng: random.Random) -> list[str]:
    """Instructions, the string behind them, and what a verifier says about edits that went wrong."""
    texts = [f"{EDIT_REQUEST}\n\n", "Yes, the edit is made and everything else is unchanged."] * 50
    for case in itertools.islice(train_edits(rng), count):
        source, result = render(case.source), render(next(iter(side_effects(case, rng).values())))
        texts += [case.instruction.text, verify_edit(source, result, case.instruction.edits).verdict]
        texts.append(verify_edit(source, source, case.instruction.edits).verdict)
    return texts


def from_nothing(recipe: PretrainRecipe) -> Janus:
    """An untrained tiny model around the trained image tokenizer, with a text tokenizer of its own.

    Raises:
        UserError: if there is no image tokenizer.
    """
    try:
        vq = JanusVQVAE.from_pretrained(recipe.vq)
    except OSError:
        raise UserError(f"no image tokenizer in {recipe.vq}: run janus-r1 train vq first, or set vq") from None
    corpus = tokenizer_corpus(recipe.tokenizer_prompts, edits=recipe.edit_rows > 0)
    words = train_tokenizer(corpus, recipe.vocab_size)
    config = tiny_config(len(words), vq.config.num_embeddings, recipe.hidden, recipe.layers, recipe.intermediate)
    core = random_model(config, recipe.run.seed)
    core.model.vqmodel.load_state_dict(vq.state_dict())
    return Janus(core, words)


class PretrainStage(Stage):
    def __init__(self, recipe: PretrainRecipe) -> None:
        self.recipe = recipe
        self.janus = load(recipe.model) if recipe.model else from_nothing(recipe)
        prepare(self.janus, recipe.train_vision, recipe.compile)
        self.janus.core.model.aligner.requires_grad_(recipe.train_vision)
        self.module = NextToken(self.janus)
        self.optimizers = muon_and_adamw(self.janus, recipe.lr, recipe.weight_decay)

    def batches(self, step: int) -> list[list[Row]]:
        rng = random.Random(self.recipe.run.seed_of(step))
        seen = Seeing(self.janus.layout, self.recipe.seeing).rows
        rows = [*share(self._draw_rows(rng)), *share(seen(self.recipe.see_rows, rng))]
        edits = WorldEdits(self.janus).draw(self.recipe.edit_rows, rng, self.recipe.caption_dropout)
        return [[*rows, *share(edits)]]

    def _draw_rows(self, rng: random.Random) -> list[Row]:
        prompts, scenes = _scenes(self.recipe.draw_rows, rng)
        images = from_uint8(np.stack([render(scene) for scene in scenes]))
        ids = self.janus.encode_image(images.to(self.janus.device)).tolist()
        dropped = [rng.random() < self.recipe.caption_dropout for _ in prompts]
        return [
            self.janus.layout.draw(p.text, tuple(i), drop) for p, i, drop in zip(prompts, ids, dropped, strict=True)
        ]

    def loss(self, module, batch: list[Row], step: int):
        image, text = module(batch)
        figures = {"image_loss": float(image.detach()), "text_loss": float(text.detach())}
        return image + self.recipe.text_weight * text, figures

    def preview(self, step: int) -> np.ndarray:
        """Drafts; the base model's verdicts on them mean little yet."""
        return chain_sheet(self.janus, rounds=1, edits=3 if self.recipe.edit_rows else 0)


def _scenes(count: int, rng: random.Random) -> tuple[list[Prompt], list[Scene]]:
    prompts = list(itertools.islice(train_prompts(rng), count))
    return prompts, [sample_scene(prompt.description, rng) for prompt in prompts]


def pretrain(recipe: PretrainRecipe, resume: bool = False) -> Path:
    """Train the base model; ``<out>/model`` then holds it in transformers' layout."""
    stage = PretrainStage(recipe)
    out = run(stage, recipe, recipe.run, resume)
    save(stage.janus, out / "model", torch.bfloat16)
    return out / "model"
