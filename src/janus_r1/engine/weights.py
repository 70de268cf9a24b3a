"""The Llama weights as the decoder reads them: one matrix for q, k, v and one for gate, up.

Fusing keeps a single copy: transformers' own parameters become views of the fused matrices, so
training them, or loading new values in place, is seen by the decoder at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import LlamaModel


@dataclass(frozen=True)
class LayerWeights:
    norm1: torch.Tensor
    qkv: torch.Tensor
    out: torch.Tensor
    norm2: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


def fuse(*linears: nn.Linear) -> torch.Tensor:
    """The weights of ``linears`` below each other; the linears become views of the result.

    A second call finds them fused and copies nothing.
    """
    first = linears[0].weight
    size = sum(linear.weight.numel() for linear in linears)
    if _already_fused(linears):
        rows = size // first.shape[1]
        return first.detach().as_strided((rows, first.shape[1]), (first.shape[1], 1))
    fused = torch.cat([linear.weight.detach() for linear in linears])
    start = 0
    for linear in linears:
        rows = linear.weight.shape[0]
        linear.weight.data = fused[start : start + rows]
        start += rows
    return fused


def _already_fused(linears: tuple[nn.Linear, ...]) -> bool:
    expected = linears[0].weight.data_ptr()
    for linear in linears:
        if linear.weight.data_ptr() != expected:
            return False
        expected += linear.weight.numel() * linear.weight.element_size()
    storages = {linear.weight.untyped_storage().data_ptr() for linear in linears}
    return len(storages) == 1


def layer_weights(model: LlamaModel) -> list[LayerWeights]:
    """Fused weights of every layer.

    Raises:
        ValueError: for a Llama with biases, which no Janus has, or with adapters, which would go unread.
    """
    layers = []
    for layer in model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        if not all(isinstance(m, nn.Linear) for m in (*attention.children(), *mlp.children()) if hasattr(m, "weight")):
            raise ValueError("the decoder reads plain matrices: generate with a copy that holds the merged weights")
        if attention.q_proj.bias is not None or mlp.gate_proj.bias is not None:
            raise ValueError("the decoder does not support biases in the language model")
        layers.append(
            LayerWeights(
                norm1=layer.input_layernorm.weight,
                qkv=fuse(attention.q_proj, attention.k_proj, attention.v_proj),
                out=attention.o_proj.weight,
                norm2=layer.post_attention_layernorm.weight,
                gate_up=fuse(mlp.gate_proj, mlp.up_proj),
                down=mlp.down_proj.weight,
            )
        )
    return layers
