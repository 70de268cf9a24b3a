"""One token a row through all layers, by the GPU's kernels: all it reads has a fixed address, so it can be captured.

Few rows go through our own products, which norm and sum on the way; many through the library's, which are as fast
there. Shapes: R rows, D hidden width.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import torch

from janus_r1.engine.cache import Cache
from janus_r1.engine.weights import Matrix, linear
from janus_r1.model.int8 import Coded

if TYPE_CHECKING:
    from janus_r1.engine.decoder import Decoder

FEW = 16  # rows up to which a bfloat16 matrix streams faster through our product than through the library's


def available(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this machine can run the kernels, which are for bfloat16 alone: float32 is for exactness."""
    return device.type == "cuda" and dtype == torch.bfloat16 and importlib.util.find_spec("triton") is not None


def forward(decoder: Decoder, cache: Cache, x_RD: torch.Tensor, lengths_R: torch.Tensor) -> torch.Tensor:
    """Final hidden states [R, D] of new tokens behind ``lengths_R`` cached ones; the cache's own lengths stay."""
    coded = isinstance(decoder.layers[0].qkv, Coded)
    through = _few if len(x_RD) <= FEW or coded else _many
    return through(decoder, cache, x_RD, lengths_R)


def _few(decoder: Decoder, cache: Cache, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    from janus_r1.engine.kernels import add_norm, multiply

    eps = decoder.eps
    for index, layer in enumerate(decoder.layers):
        qkv = multiply(x, *_matrix(layer.qkv), norm_K=layer.norm1, eps=eps)
        x = multiply(_attend(decoder, cache, index, qkv, lengths), *_matrix(layer.out), residual_RN=x)
        inner = multiply(x, *_matrix(layer.gate_up), norm_K=layer.norm2, eps=eps, gated=True)
        x = multiply(inner, *_matrix(layer.down), residual_RN=x)
    return add_norm(x, None, decoder.norm, eps)


def _many(decoder: Decoder, cache: Cache, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    from janus_r1.engine.kernels import add_norm, gate

    x, delta, eps = x.clone(), None, decoder.eps
    for index, layer in enumerate(decoder.layers):
        qkv = linear(add_norm(x, delta, layer.norm1, eps), layer.qkv)
        attended = linear(_attend(decoder, cache, index, qkv, lengths), layer.out)
        inner = linear(add_norm(x, attended, layer.norm2, eps), layer.gate_up)
        delta = linear(gate(inner), layer.down)
    return add_norm(x, delta, decoder.norm, eps)


def _attend(decoder: Decoder, cache: Cache, index: int, qkv: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    from janus_r1.engine.kernels import attend

    return attend(qkv, decoder.cos, decoder.sin, lengths, cache.keys[index], cache.values[index])


def _matrix(weight: Matrix) -> tuple[torch.Tensor, torch.Tensor | None]:
    """And its rows' scales, if it has any."""
    if isinstance(weight, Coded):
        return weight
    assert isinstance(weight, torch.Tensor)  # int8 of a CPU comes nowhere near a GPU
    return weight, None
