"""Models in DeepSeek's layout, for the tests: written from a transformers model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import JanusConfig
from transformers.models.janus import JanusVisionConfig, JanusVQVAEConfig

from janus_r1.model.original import (
    LLAMA_DEFAULTS,
    MODEL_TYPE,
    POSITIONS,
    VISION_DEFAULTS,
    VISION_TOWERS,
    VQ_DEFAULTS,
    Block,
    targets,
)
from janus_r1.model.tokenizer import PAD

UNUSED = {
    "vision_model.vision_tower.attn_pool.latent": torch.zeros(1, 1, 32),
    "gen_vision_model.quantize.codebook_used": torch.zeros(65536),
}


def to_original(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict of transformers' Janus -> one with the original names and shapes.

    The tensors that nothing uses (:data:`DROPPED`) are gone for good: a strict load by the official
    code would miss them.

    Raises:
        KeyError: for a name that no Janus model has.
    """
    original: dict[str, torch.Tensor] = {}
    for name, filled in targets(state).items():
        parts = [state[part] for part in filled]
        fused = torch.cat(parts) if len(parts) > 1 else parts[0]
        original[name] = fused[None] if name == POSITIONS else fused
    return original


def to_original_config(config: JanusConfig) -> Block:
    """The ``config.json`` that DeepSeek's layout has for this model (small models keep their numbers in params)."""
    text, vision, vq = config.text_config, config.vision_config, config.vq_config
    width = text.hidden_size
    mlp = {"projector_type": "mlp_gelu", "n_embed": width}
    language = {key: getattr(text, key) for key in (*LLAMA_DEFAULTS, "num_key_value_heads")}
    language["rope_theta"] = text.rope_parameters["rope_theta"]
    return {
        "model_type": MODEL_TYPE,
        "architectures": ["MultiModalityCausalLM"],
        "vision_config": _block("CLIPVisionTower", "vision", _vision_params(vision)),
        "aligner_config": _block("MlpProjector", "aligner", mlp | _mlp_params(vision.depth, vision.hidden_size)),
        "gen_vision_config": _block("VQ-16", "gen_vision", _vq_params(vq)),
        "gen_aligner_config": _block(
            "MlpProjector", "gen_aligner", mlp | _mlp_params(vq.num_hidden_layers, vq.embed_dim)
        ),
        "gen_head_config": _block(
            "vision_head",
            "gen_head",
            {"image_token_embed": width, "image_token_size": vq.num_embeddings, "n_embed": width},
        ),
        "language_config": {"model_type": "llama"} | language,
    }


def _block(cls: str, model_type: str, params: Block) -> Block:
    return {"cls": cls, "model_type": model_type, "params": params}


def _mlp_params(depth: int, inputs: int) -> Block:
    return {"depth": depth, "input_dim": inputs}


def _vision_params(vision: JanusVisionConfig) -> Block:
    numbers = {
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "width": vision.hidden_size,
        "layers": vision.num_hidden_layers,
        "heads": vision.num_attention_heads,
        "mlp_ratio": vision.mlp_ratio,
    }
    standard = VISION_TOWERS["siglip_large_patch16_384"]
    changed = {key: value for key, value in numbers.items() if value != standard[key]}
    return VISION_DEFAULTS | {"image_size": vision.image_size} | changed


def _vq_params(vq: JanusVQVAEConfig) -> Block:
    numbers = {
        "image_token_size": vq.num_embeddings,
        "n_embed": vq.embed_dim,
        "ch": vq.base_channels,
        "ch_mult": list(vq.channel_multiplier),
        "num_res_blocks": vq.num_res_blocks,
        "z_channels": vq.latent_channels,
    }
    always = ("image_token_size", "n_embed")
    return {key: value for key, value in numbers.items() if key in always or value != VQ_DEFAULTS[key]}


def write_tokenizer(janus, folder: Path) -> None:
    """As Janus-Pro's files are: Llama's class in the config, a null pad token, the pad in the map only."""
    janus.tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True, "pad_token": None, "legacy": True}
    path.write_text(json.dumps(config), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": PAD}), encoding="utf-8")


def write_original(janus, folder: Path, form: str = "bin", shards: int = 1, index: bool = True) -> Path:
    """A model folder in DeepSeek's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(to_original_config(janus.core.config)))
    write_tokenizer(janus, folder)
    state = to_original(janus.core.state_dict()) | UNUSED
    stem, suffix = {"bin": ("pytorch_model", "bin"), "safetensors": ("model", "safetensors")}[form]
    names, weight_map = sorted(state), {}
    for i in range(shards):
        file = f"{stem}.{suffix}" if shards == 1 else f"{stem}-{i + 1:05}-of-{shards:05}.{suffix}"
        shard = {name: state[name].contiguous() for name in names[i::shards]}
        save_file(shard, folder / file) if form == "safetensors" else torch.save(shard, folder / file)
        weight_map |= dict.fromkeys(shard, file)
    if shards > 1 and index:
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@torch.no_grad()
def logits(janus) -> list[torch.Tensor]:
    """Of the three streams: text, drawn and seen images; and decoded pixels."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
    ids = torch.randint(0, 96, (2, 64), generator=generator)
    text = janus.embed_text(torch.randint(0, 400, (2, 9), generator=generator))
    drawn = janus.hidden(torch.cat([text, janus.embed_drawn(ids)], 1))
    seen = janus.hidden(torch.cat([text, janus.embed_seen(pixels)], 1))
    decoded = torch.from_numpy(janus.decode_image(ids)).float()
    return [janus.text_logits(janus.hidden(text)), janus.image_logits(drawn), janus.text_logits(seen), decoded]
