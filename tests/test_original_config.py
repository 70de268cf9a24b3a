"""DeepSeek's config and names against what is published of Janus-Pro-7B."""

from __future__ import annotations

import json

import pytest
from accelerate import init_empty_weights
from transformers import JanusForConditionalGeneration

from janus_r1.errors import UserError
from janus_r1.model.original import from_original, original_name
from originals import to_original_config

JANUS_PRO_7B = {  # as published, without housekeeping
    "model_type": "multi_modality",
    "vision_config": {
        "cls": "CLIPVisionTower",
        "model_type": "vision",
        "params": {
            "image_size": 384,
            "model_name": "siglip_large_patch16_384",
            "select_feature": "same",
            "select_layer": -1,
        },
    },
    "aligner_config": {
        "cls": "MlpProjector",
        "model_type": "aligner",
        "params": {"depth": 2, "input_dim": 1024, "n_embed": 4096, "projector_type": "mlp_gelu"},
    },
    "gen_vision_config": {
        "cls": "VQ-16",
        "model_type": "gen_vision",
        "params": {"image_token_size": 16384, "n_embed": 8},
    },
    "gen_aligner_config": {
        "cls": "MlpProjector",
        "model_type": "gen_aligner",
        "params": {"depth": 2, "input_dim": 8, "n_embed": 4096, "projector_type": "mlp_gelu"},
    },
    "gen_head_config": {
        "cls": "vision_head",
        "model_type": "gen_head",
        "params": {"image_token_embed": 4096, "image_token_size": 16384, "n_embed": 4096},
    },
    "language_config": {
        "max_position_embeddings": 16384,
        "model_type": "llama",
        "num_hidden_layers": 30,
        "torch_dtype": "bfloat16",
        "vocab_size": 102400,
    },
}


def test_the_published_7b_config():
    config = from_original(JANUS_PRO_7B)
    text, vision, vq = config.text_config, config.vision_config, config.vq_config
    assert (text.hidden_size, text.intermediate_size, text.num_attention_heads) == (4096, 11008, 32)
    assert (text.num_hidden_layers, text.num_key_value_heads, text.vocab_size) == (30, 32, 102400)
    assert (text.rms_norm_eps, text.rope_parameters["rope_theta"]) == (1e-6, 10000)
    assert (vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads) == (1024, 24, 16)
    assert (vision.num_image_tokens, vision.projection_dim, vq.num_patches) == (576, 4096, 24)
    assert not config.tie_word_embeddings and not text.tie_word_embeddings
    assert from_original(to_original_config(config)).to_dict() == config.to_dict()


def test_the_published_7b_has_the_published_names_and_parameters():
    """7,420,368,523 in all, of which the tensors that are dropped; counted on empty weights."""
    with init_empty_weights(include_buffers=False):
        core = JanusForConditionalGeneration(from_original(JANUS_PRO_7B))
    names = {original_name(name) for name, _ in core.named_parameters()}
    assert "vision_model.vision_tower.blocks.23.attn.qkv.weight" in names
    assert "gen_vision_model.encoder.conv_blocks.4.attn.1.proj_out.weight" in names
    assert "gen_vision_model.decoder.conv_blocks.3.upsample.conv.bias" in names
    pooling = 1024 + 3 * 1024 * 1024 + 3 * 1024 + 1024 * 1024 + 1024 + 2 * 1024 + 2 * 4096 * 1024 + 4096 + 1024
    assert sum(p.numel() for p in core.parameters()) + pooling == 7_420_368_523


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("vision_config", {"model_name": "siglip_giant"}, "unknown vision tower 'siglip_giant'"),
        ("vision_config", {"widht": 3}, "unknown names widht"),
        ("gen_head_config", {"n_embed": 7}, "gen_head_config.params.n_embed is 7"),
        ("gen_vision_config", {"ch_mult": [1, 1]}, "contradicts itself"),
    ],
)
def test_an_odd_config_is_one_clear_error(part, change, said):
    config = json.loads(json.dumps(JANUS_PRO_7B))
    config[part]["params"] |= change
    with pytest.raises(UserError, match=said):
        from_original(config)
