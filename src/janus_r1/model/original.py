"""DeepSeek's own Janus checkpoints: how their config and each of their tensors become transformers'.

Tensors: one table (:data:`RENAMES`) leads from transformers' names to the original ones; reading an original checkpoint
turns it around, so the two directions cannot disagree. The names are an interface: those of the files of Janus-Pro 1B
and 7B, of Janus-Pro-R1, and of the state dict that its finetuning saves.

Config: DeepSeek's nested ``config.json`` (``model_type: multi_modality``) names its parts
(``siglip_large_patch16_384``, ``VQ-16``) where transformers' ``JanusConfig`` writes numbers down. A block is ``{cls,
model_type, params}``; numbers in ``params`` win over those of the name, which is how a small copy of the same
architecture is described.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch
from transformers import JanusConfig, LlamaConfig
from transformers.models.janus import JanusVisionConfig, JanusVQVAEConfig

from janus_r1.errors import UserError

POSITIONS = "vision_model.vision_tower.pos_embed"  # [1, N, D] there, [N, D] here

# First match wins; \g<n> carries block numbers over. The decoder counts its blocks from the lowest
# resolution in both layouts, so numbers never change (transformers only calls the list "up").
RENAMES: tuple[tuple[str, str], ...] = (
    (r"lm_head\.", r"language_model.lm_head."),
    (r"model\.language_model\.", r"language_model.model."),
    (r"model\.generation_embeddings\.", r"gen_embed."),
    (r"model\.generation_head\.proj_out\.", r"gen_head.output_mlp_projector."),
    (r"model\.generation_head\.vision_head\.", r"gen_head.vision_head."),
    (r"model\.vision_model\.embeddings\.patch_embedding\.", r"vision_model.vision_tower.patch_embed.proj."),
    (r"model\.vision_model\.embeddings\.position_embedding\.weight", POSITIONS),
    (r"model\.vision_model\.post_layernorm\.", r"vision_model.vision_tower.norm."),
    (r"model\.vision_model\.encoder\.layers\.(\d+)\.layer_norm(\d)\.", r"vision_model.vision_tower.blocks.\1.norm\2."),
    (
        r"model\.vision_model\.encoder\.layers\.(\d+)\.self_attn\.[qkv]_proj\.",
        r"vision_model.vision_tower.blocks.\1.attn.qkv.",
    ),
    (
        r"model\.vision_model\.encoder\.layers\.(\d+)\.self_attn\.projection_layer\.",
        r"vision_model.vision_tower.blocks.\1.attn.proj.",
    ),
    (r"model\.vision_model\.encoder\.layers\.(\d+)\.mlp\.", r"vision_model.vision_tower.blocks.\1.mlp."),
    (
        r"model\.vqmodel\.(encoder|decoder)\.(?:down|up)\.(\d+)\.block\.",
        r"gen_vision_model.\1.conv_blocks.\2.res.",
    ),
    (r"model\.vqmodel\.(encoder|decoder)\.(?:down|up)\.(\d+)\.", r"gen_vision_model.\1.conv_blocks.\2."),
    (r"model\.vqmodel\.(encoder|decoder)\.mid\.block_1\.", r"gen_vision_model.\1.mid.0."),
    (r"model\.vqmodel\.(encoder|decoder)\.mid\.attn_1\.", r"gen_vision_model.\1.mid.1."),
    (r"model\.vqmodel\.(encoder|decoder)\.mid\.block_2\.", r"gen_vision_model.\1.mid.2."),
    (r"model\.vqmodel\.", r"gen_vision_model."),
)
ALIGNER = re.compile(r"model\.(aligner|generation_aligner)\.(?:fc1|hidden_layers\.(\d+))\.(.+)")

# In every original checkpoint, used by none of its computations: SigLIP's pooling head, the VQ's count
# of used codes, and the rotation tables that old versions of transformers saved.
DROPPED = re.compile(
    r"vision_model\.vision_tower\.attn_pool\..+"
    r"|gen_vision_model\.quantize\.codebook_used"
    r"|language_model\.model\..*rotary_emb\.inv_freq"
)


def original_name(name: str) -> str:
    """The original name of a tensor of transformers' Janus; q, k and v of SigLIP share one.

    Raises:
        KeyError: for a name that no Janus model has.
    """
    if found := ALIGNER.fullmatch(name):
        prefix = {"aligner": "aligner", "generation_aligner": "gen_aligner"}[found[1]]
        # The original is one Sequential in which every second layer is a GELU.
        layer = 0 if found[2] is None else 2 * (int(found[2]) + 1)
        return f"{prefix}.layers.{layer}.{found[3]}"
    for pattern, replacement in RENAMES:
        if found := re.match(pattern, name):
            return found.expand(replacement) + name[found.end() :]
    raise KeyError(name)


def targets(names: Iterable[str]) -> dict[str, list[str]]:
    """transformers' names -> {original name: the names that it fills, q before k before v}."""
    table: dict[str, list[str]] = {}
    for name in names:
        table.setdefault(original_name(name), []).append(name)
    for filled in table.values():
        filled.sort(key=lambda name: "qkv".find(name.rsplit(".", 2)[1][0]) if len(filled) > 1 else 0)
    return table


def split(name: str, tensor: torch.Tensor, parts: int) -> list[torch.Tensor]:
    """An original tensor -> views of it, as transformers stores them.

    Fused qkv [3D, ...] -> three [D, ...]; position table [1, N, D] -> [N, D]; anything else as it is.
    """
    if name == POSITIONS and tensor.ndim == 3 and tensor.shape[0] == 1:
        return [tensor[0]]
    return list(tensor.chunk(parts)) if parts > 1 else [tensor]


# ------------------------------------------------------------------------------------------ the config

MODEL_TYPE = "multi_modality"  # what DeepSeek's config.json calls the model
Block = dict[str, Any]

VISION_TOWERS: dict[str, Block] = {
    "siglip_large_patch16_384": {
        "image_size": 384,
        "patch_size": 16,
        "width": 1024,
        "layers": 24,
        "heads": 16,
        "mlp_ratio": 4,
    },
}
VISION_DEFAULTS: Block = {"model_name": "siglip_large_patch16_384", "select_feature": "same", "select_layer": -1}
VQ_DEFAULTS: Block = {
    "image_token_size": 16384,
    "n_embed": 8,
    "ch": 128,
    "ch_mult": [1, 1, 2, 2, 4],
    "num_res_blocks": 2,
    "z_channels": 256,
}
MLP_DEFAULTS: Block = {"projector_type": "mlp_gelu", "depth": 2, "input_dim": None, "n_embed": None}
HEAD_DEFAULTS: Block = {"image_token_embed": None, "image_token_size": None, "n_embed": None}

# What Janus-Pro-7B's language_config leaves out, because Llama-7B has it.
LLAMA_DEFAULTS: Block = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
}
LLAMA_OPTIONAL = ("num_key_value_heads", "head_dim", "rope_theta", "rope_scaling", "attention_bias", "mlp_bias")


def from_original(config: Block) -> JanusConfig:
    """The same model as transformers describes it.

    Raises:
        UserError: for a part, a tower or a number that this package does not know, or numbers that contradict
            each other.
    """
    if config.get("model_type") != MODEL_TYPE:
        raise UserError(f"not an original Janus config: model_type is {config.get('model_type')!r}")
    text = _language(config)
    vision = _vision(config, text.hidden_size)
    vq = _vq(config, text.hidden_size)
    if vision.patch_size != 2 ** (len(vq.channel_multiplier) - 1):
        raise UserError(
            f"the config contradicts itself: SigLIP patches of {vision.patch_size} pixels, "
            f"VQ patches of {2 ** (len(vq.channel_multiplier) - 1)}"
        )
    # Untied: the original's text head and embeddings are two matrices, and transformers' default is one.
    return JanusConfig(text_config=text, vision_config=vision, vq_config=vq, tie_word_embeddings=False)


# ------------------------------------------------------------------------------------- reading parts


def _params(config: Block, part: str, cls: str, defaults: Block) -> Block:
    """``defaults`` with what the part's params say.

    Raises:
        UserError: for a missing part, another class, or a name that ``defaults`` lacks.
    """
    block = config.get(part)
    if not isinstance(block, dict) or not isinstance(block.get("params"), dict):
        raise UserError(f"the config lacks {part}.params: it is not one of Janus-Pro")
    if block.get("cls") != cls:
        raise UserError(f"{part}.cls is {block.get('cls')!r}: only {cls!r} is known")
    if unknown := [key for key in block["params"] if key not in defaults]:
        raise UserError(f"{part}.params has the unknown names {', '.join(unknown)} (known: {', '.join(defaults)})")
    return defaults | block["params"]


def _vision(config: Block, width: int) -> JanusVisionConfig:
    name = config.get("vision_config", {}).get("params", {}).get("model_name", VISION_DEFAULTS["model_name"])
    if name not in VISION_TOWERS:
        raise UserError(f"unknown vision tower {name!r} (known: {', '.join(VISION_TOWERS)})")
    params = _params(config, "vision_config", "CLIPVisionTower", VISION_DEFAULTS | VISION_TOWERS[name])
    if params["select_feature"] != "same" or params["select_layer"] != -1:
        raise UserError("vision_config selects other features than the last layer's: that is no Janus-Pro")
    return JanusVisionConfig(
        hidden_size=params["width"],
        num_hidden_layers=params["layers"],
        num_attention_heads=params["heads"],
        mlp_ratio=params["mlp_ratio"],
        image_size=params["image_size"],
        patch_size=params["patch_size"],
        num_image_tokens=(params["image_size"] // params["patch_size"]) ** 2,
        projection_dim=width,
        depth=_mlp_depth(config, "aligner_config", params["width"], width),
    )


def _vq(config: Block, width: int) -> JanusVQVAEConfig:
    params = _params(config, "gen_vision_config", "VQ-16", VQ_DEFAULTS)
    head = _params(config, "gen_head_config", "vision_head", HEAD_DEFAULTS)
    _same("gen_head_config", head, {"n_embed": width, "image_token_size": params["image_token_size"]})
    return JanusVQVAEConfig(
        embed_dim=params["n_embed"],
        num_embeddings=params["image_token_size"],
        base_channels=params["ch"],
        channel_multiplier=list(params["ch_mult"]),
        num_res_blocks=params["num_res_blocks"],
        latent_channels=params["z_channels"],
        projection_dim=head["image_token_embed"] or width,
        image_token_embed_dim=width,
        num_hidden_layers=_mlp_depth(config, "gen_aligner_config", params["n_embed"], width),
    )


def _mlp_depth(config: Block, part: str, inputs: int, outputs: int) -> int:
    params = _params(config, part, "MlpProjector", MLP_DEFAULTS)
    _same(part, params, {"projector_type": "mlp_gelu", "input_dim": inputs, "n_embed": outputs})
    return params["depth"]


def _same(part: str, params: Block, expected: Block) -> None:
    """Numbers that the original repeats must agree; one left out (None) does."""
    for key, value in expected.items():
        if params[key] not in (None, value):
            raise UserError(f"the config contradicts itself: {part}.params.{key} is {params[key]}, not {value}")


def _language(config: Block) -> LlamaConfig:
    """Names beyond these are the housekeeping that transformers writes into every config."""
    language = config.get("language_config")
    if not isinstance(language, dict) or language.get("model_type", "llama") != "llama":
        raise UserError("the config lacks a language_config of model_type 'llama'")
    known = {key: language[key] for key in (*LLAMA_DEFAULTS, *LLAMA_OPTIONAL) if language.get(key) is not None}
    return LlamaConfig(**(LLAMA_DEFAULTS | known), tie_word_embeddings=False)
