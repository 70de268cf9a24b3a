"""One token a row through all layers, by the GPU's kernels: all it reads has a fixed address, so it can be captured.

Shapes: R rows, D hidden width.
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
    from janus_r1.engine.graph import Steps


def available(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this machine can run the kernels, which are for bfloat16 alone: float32 is for exactness."""
    return device.type == "cuda" and dtype == torch.bfloat16 and importlib.util.find_spec("triton") is not None


def forward(decoder: Decoder, cache: Cache, x_RD: torch.Tensor, lengths_R: torch.Tensor) -> torch.Tensor:
    """Final hidden states [R, D] of new tokens behind ``lengths_R`` cached ones; the cache's own lengths stay."""
    from janus_r1.engine.kernels import add_norm, attend, gate

    x, delta, eps = x_RD.clone(), None, decoder.eps
    for layer, keys, values in zip(decoder.layers, cache.keys, cache.values, strict=True):
        qkv = _product(add_norm(x, delta, layer.norm1, eps), layer.qkv)
        attended = _product(attend(qkv, decoder.cos, decoder.sin, lengths_R, keys, values), layer.out)
        inner = _product(add_norm(x, attended, layer.norm2, eps), layer.gate_up)
        delta = _product(gate(inner), layer.down)
    return add_norm(x, delta, decoder.norm, eps)


def _product(x: torch.Tensor, weight: Matrix) -> torch.Tensor:
    from janus_r1.engine import kernels

    if isinstance(weight, Coded):
        return kernels.multiply(x, *weight)
    if isinstance(weight, torch.Tensor) and len(x) <= kernels.FEW:
        return kernels.multiply(x, weight)
    return linear(x, weight)


def sample(steps: Steps, logits_RV: torch.Tensor, table_VD: torch.Tensor) -> torch.Tensor:
    """The ids at the steps' index, written down there; what is embedded next, [R, D]."""
    from janus_r1.engine import kernels

    how, guidance = steps.how, steps.how.guidance if steps.guided else None
    written = (steps.uniform_BS, steps.index, table_VD, steps.ids_BS, steps.logprobs_BS)
    return kernels.sample(logits_RV, *written, guidance, how.temperature, how.top_k)
