"""The Llama weights as the decoder reads them: one matrix for q, k, v and one for gate, up.

Fusing keeps a single copy: transformers' own parameters become views of the fused matrices, so
training them, or loading new values in place, changes these too. :func:`laid_out` copies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlamaModel

from janus_r1.model.int8 import Coded, Int8Linear, product
from janus_r1.model.memory import COPIED

MATRICES = ("qkv", "out", "gate_up", "down")
Matrix = torch.Tensor | tuple[Int8Linear, ...] | Coded  # in 8 bits: on a CPU those below each other


@dataclass(frozen=True)
class LayerWeights:
    norm1: torch.Tensor
    qkv: Matrix
    out: Matrix
    norm2: torch.Tensor
    gate_up: Matrix
    down: Matrix


def fuse(*linears: nn.Linear | Int8Linear) -> torch.Tensor:
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


def _already_fused(linears: tuple[nn.Linear | Int8Linear, ...]) -> bool:
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
        matrices = [m for m in (*attention.children(), *mlp.children()) if hasattr(m, "weight")]
        if not all(isinstance(m, (nn.Linear, Int8Linear)) for m in matrices):
            raise ValueError("the decoder reads plain matrices: generate with a copy that holds the merged weights")
        if any(m.bias is not None for m in (attention.q_proj, mlp.gate_proj) if isinstance(m, nn.Linear)):
            raise ValueError("the decoder does not support biases in the language model")
        layers.append(
            LayerWeights(
                norm1=layer.input_layernorm.weight,
                qkv=_stacked(attention.q_proj, attention.k_proj, attention.v_proj),
                out=_stacked(attention.o_proj),
                norm2=layer.post_attention_layernorm.weight,
                gate_up=_stacked(mlp.gate_proj, mlp.up_proj),
                down=_stacked(mlp.down_proj),
            )
        )
    return layers


def _stacked(*linears: nn.Linear | Int8Linear) -> Matrix:
    rounded = tuple(m for m in linears if isinstance(m, Int8Linear))
    if not rounded:
        return fuse(*linears)
    if hasattr(rounded[0], "packed"):
        return rounded
    return Coded(fuse(*rounded), torch.cat([m.scales for m in rounded]))


def laid_out(layers: list[LayerWeights]) -> list[LayerWeights]:
    """A small CPU model's matrices once more, as the kernels for few rows read them; :func:`linear` reads these.

    In bfloat16 (where oneDNN has kernels for it) blocked as oneDNN wants them, which it does anew in every
    product otherwise; else column by column, which is a quarter faster with MKL. Other models stay as they are.
    """
    like = layers[0].qkv
    if isinstance(like, tuple) or like.device.type != "cpu" or _matrix_bytes(layers) > COPIED.get(like.dtype, 0):
        return layers
    copy = _blocked if like.dtype == torch.bfloat16 and has_blocked() else _by_columns
    return [replace(layer, **{name: copy(getattr(layer, name).detach()) for name in MATRICES}) for layer in layers]


def linear(x: torch.Tensor, weight: Matrix) -> torch.Tensor:
    """x W^T, however :func:`laid_out` keeps W."""
    if isinstance(weight, tuple):
        return product(x, weight)
    if weight.is_mkldnn:
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return F.linear(x, weight)


def has_blocked() -> bool:
    """Whether this torch, on this processor, multiplies bfloat16 by blocked matrices."""
    ops = torch.ops.mkldnn
    known = hasattr(ops, "_reorder_linear_weight") and hasattr(ops, "_linear_pointwise")
    return known and torch.backends.mkldnn.is_available() and ops._is_mkldnn_bf16_supported()


def _blocked(weight: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, None)


def _by_columns(weight: torch.Tensor) -> torch.Tensor:
    return weight.t().contiguous().t()


def _matrix_bytes(layers: list[LayerWeights]) -> int:
    return sum(getattr(layer, name).nbytes for layer in layers for name in MATRICES)
