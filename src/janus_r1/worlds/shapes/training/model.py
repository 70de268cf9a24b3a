"""The tiny model before it has learnt anything: its sizes, its text tokenizer, and the texts that this is trained on.

It has the architecture of Janus-Pro (SigLIP, Llama, VQ-16's layout, two-layer aligners, untied text head); only the
numbers differ.
"""

from __future__ import annotations

import itertools
import random
import re

from transformers import JanusConfig
from transformers.models.janus import JanusVisionConfig, JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from janus_r1.errors import UserError
from janus_r1.layout import EDIT_REQUEST, REGENERATE, SELF_CHECK
from janus_r1.model.janus import Janus
from janus_r1.model.presets import janus_config, llama_config, random_model
from janus_r1.model.tokenizer import train_tokenizer
from janus_r1.worlds.shapes.edit_cases import train_edits
from janus_r1.worlds.shapes.mistakes import side_effects
from janus_r1.worlds.shapes.prompts import train_prompts
from janus_r1.worlds.shapes.questions import ask
from janus_r1.worlds.shapes.scene import render, sample_scene
from janus_r1.worlds.shapes.verifier import verify
from janus_r1.worlds.shapes.verify_edit import verify_edit


def tiny_vq_config(num_embeddings: int = 2048) -> JanusVQVAEConfig:
    """64x64 pixels <-> 8x8 ids. One resolution step less than VQ-16, so a patch is 8 pixels."""
    return JanusVQVAEConfig(
        embed_dim=8,
        num_embeddings=num_embeddings,
        latent_channels=64,
        base_channels=64,
        channel_multiplier=[1, 1, 1, 1],
        num_res_blocks=0,
        num_patches=8,
        projection_dim=256,
        image_token_embed_dim=256,
    )


def tiny_config(
    vocab_size: int, num_embeddings: int = 2048, hidden: int = 256, layers: int = 5, intermediate: int = 640
) -> JanusConfig:
    """The ``tiny`` preset; about 4 M parameters in the language model."""
    vision = JanusVisionConfig(
        hidden_size=128, num_hidden_layers=3, num_attention_heads=4, image_size=64, patch_size=8, num_image_tokens=64
    )
    text = llama_config(vocab_size, hidden, intermediate, layers, heads=max(1, hidden // 64), positions=1024)
    return janus_config(text, vision, tiny_vq_config(num_embeddings))


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


def from_nothing(
    tokenizer: str, corpus: list[str], vocab_size: int, hidden: int, layers: int, intermediate: int, seed: int
) -> Janus:
    """An untrained tiny model around the trained image ``tokenizer`` (a folder), with a text tokenizer of its own,
    which learns its words from ``corpus``.

    Raises:
        UserError: if there is no image tokenizer.
    """
    try:
        vq = JanusVQVAE.from_pretrained(tokenizer)
    except OSError:
        raise UserError(f"no image tokenizer in {tokenizer}: run janus-r1 train vq first, or set vq") from None
    words = train_tokenizer(corpus, vocab_size)
    core = random_model(tiny_config(len(words), vq.config.num_embeddings, hidden, layers, intermediate), seed)
    core.model.vqmodel.load_state_dict(vq.state_dict())
    core.config.prompt_words = known_words()
    return Janus(core, words)


def known_words() -> list[str]:
    """The words of the world's prompts and instructions, sorted; a prompt with others is met with a warning."""
    rng = random.Random(0)
    texts = [prompt.text for prompt in itertools.islice(train_prompts(rng), 8000)]
    texts += [case.instruction.text for case in itertools.islice(train_edits(rng), 2000)]
    texts += [text.replace("colour", "color") for text in texts]
    return sorted({word for text in texts for word in re.findall(r"[a-z]+", text.lower())})
