"""Sizes of models that are built from nothing. ``tiny`` is trained here on a laptop.

Every preset has the architecture of Janus-Pro (SigLIP, Llama, VQ-16's layout, two-layer
aligners, untied text head); only the numbers differ.
"""

from __future__ import annotations

import torch
from transformers import JanusConfig, JanusForConditionalGeneration, LlamaConfig
from transformers.models.janus import JanusVisionConfig, JanusVQVAEConfig


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
    vq = tiny_vq_config(num_embeddings)
    vq.projection_dim = vq.image_token_embed_dim = hidden
    return JanusConfig(
        text_config=LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=max(1, hidden // 64),
            num_key_value_heads=max(1, hidden // 64),
            max_position_embeddings=1024,
            rms_norm_eps=1e-6,
            tie_word_embeddings=False,
        ),
        vision_config=JanusVisionConfig(
            hidden_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=64,
            patch_size=8,
            num_image_tokens=64,
            projection_dim=hidden,
        ),
        vq_config=vq,
        tie_word_embeddings=False,
    )


def random_model(config: JanusConfig, seed: int) -> JanusForConditionalGeneration:
    """Untrained weights that depend on the seed only."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return JanusForConditionalGeneration(config)
