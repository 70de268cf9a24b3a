"""Sizes of models that are built from nothing.

Every preset has the architecture of Janus-Pro (SigLIP, Llama, VQ-16's layout, two-layer
aligners, untied text head); only the numbers differ. ``1b`` and ``7b`` are Janus-Pro's own sizes;
``100m`` is what a CPU can still draw 576 ids an image with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import JanusConfig, JanusForConditionalGeneration, LlamaConfig
from transformers.models.janus import JanusVisionConfig, JanusVQVAEConfig

from janus_r1.errors import UserError

PRESETS = ("100m", "1b", "7b")


def janus_config(text: LlamaConfig, vision: JanusVisionConfig, vq: JanusVQVAEConfig) -> JanusConfig:
    """The three parts as one model, both aligners as wide as its language model; the text head is untied."""
    vision.projection_dim = vq.projection_dim = vq.image_token_embed_dim = text.hidden_size
    return JanusConfig(text_config=text, vision_config=vision, vq_config=vq, tie_word_embeddings=False)


def llama_config(
    vocab_size: int, hidden: int, intermediate: int, layers: int, heads: int, positions: int
) -> LlamaConfig:
    """The language model, as Janus-Pro has it: no grouped heads, the text head untied."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=positions,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
    )


def pro_config(
    hidden: int,
    intermediate: int,
    layers: int,
    heads: int,
    vocab_size: int = 102_400,
    vision: JanusVisionConfig | None = None,
    base_channels: int = 128,
) -> JanusConfig:
    """Janus-Pro: 384x384 pixels, 576 ids of 16,384 codes, SigLIP-L/16 unless ``vision`` says otherwise."""
    text = llama_config(vocab_size, hidden, intermediate, layers, heads, positions=16_384)
    return janus_config(text, vision or JanusVisionConfig(), JanusVQVAEConfig(base_channels=base_channels))


def preset_config(name: str, vocab_size: int) -> JanusConfig:
    """``100m``, ``1b`` or ``7b``; ``vocab_size`` is that of the tokenizer.

    Janus-Pro's own vocabulary is larger than its tokenizer's, so 1b and 7b keep 102,400 rows.

    Raises:
        UserError: for another name.
    """
    if name == "100m":  # 85 M in the layers, 13 M in text embeddings and head
        vision = JanusVisionConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=6)
        return pro_config(768, 2048, 12, 12, max(vocab_size, 8192), vision, base_channels=64)
    if name == "1b":
        return pro_config(2048, 5632, 24, 16)
    if name == "7b":
        return pro_config(4096, 11_008, 30, 32)
    raise UserError(f"no preset {name!r}: use one of {', '.join(PRESETS)}")


def random_model(
    config: JanusConfig, seed: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> JanusForConditionalGeneration:
    """Untrained weights that depend on the seed only, made on ``device`` in ``dtype`` without a wider copy.

    The image tokenizer is float32 as in every loaded model.
    """
    with torch.random.fork_rng(), _default_dtype(dtype), torch.device(device):
        torch.manual_seed(seed)
        core = JanusForConditionalGeneration(config)
    core.model.vqmodel.float()
    return core


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
