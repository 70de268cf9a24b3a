"""Names of DeepSeek's own Janus checkpoints, and how each tensor of theirs becomes one of transformers'.

One table (:data:`RENAMES`) leads from transformers' names to the original ones; reading an original
checkpoint turns it around, so the two directions cannot disagree. The names are an interface: those of
the files of Janus-Pro 1B and 7B, of Janus-Pro-R1, and of the state dict that its finetuning saves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch

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
