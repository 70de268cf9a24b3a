"""The language model's matrices as they lie in memory: those that read the same input side by side, or all in 8 bits.

8 bits are for generating: half the bytes of bfloat16 to read a token. Weights are scaled row by row, once. On a CPU
activations are, too, before every product, so that a chain does not depend on the batch it is drawn in, and oneDNN
multiplies the 8-bit numbers. On a GPU they stay in bfloat16 (:mod:`janus_r1.engine.kernels`). Heads, embeddings and
encoders stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import LlamaModel

from janus_r1.errors import UserError, require

LARGEST = 127
OFFSET = 128  # of unsigned codes
TINY = 1e-12  # instead of dividing a row of zeros by zero


# ------------------------------------------------------------------------------------ side by side


def adjoin(language: LlamaModel) -> LlamaModel:
    """The same model, with the matrices that are multiplied together side by side in memory: q, k, v; gate, up.

    Whatever changes them in place later leaves them there, so a decoder reads them as one, and copies nothing.
    """
    for group in adjoined_groups(language):
        weights = [linear.weight.detach() for linear in group if hasattr(linear, "weight")]
        if not weights or side_by_side(weights) is not None:  # int8 on a CPU has packed ones, and no weight
            continue
        for linear, part in zip(group, torch.cat(weights).split([len(w) for w in weights]), strict=True):
            linear.weight.data = part
    return language


def adjoined_groups(language: LlamaModel) -> Iterator[tuple[Any, ...]]:
    """The linear maps of every layer that read the same input: q, k, v; gate, up."""
    for layer in language.layers:
        attention, mlp = layer.self_attn, layer.mlp
        yield attention.q_proj, attention.k_proj, attention.v_proj
        yield mlp.gate_proj, mlp.up_proj


def side_by_side(weights: list[torch.Tensor]) -> torch.Tensor | None:
    """The matrix that these [N, K] are below each other, as a view of their memory; None where they do not lie so."""
    first, end = weights[0], weights[0].data_ptr()
    for weight in weights:
        if weight.data_ptr() != end or not weight.is_contiguous():
            return None
        end += weight.nbytes
    if len({weight.untyped_storage().data_ptr() for weight in weights}) > 1:
        return None
    return first.as_strided((sum(map(len, weights)), first.shape[1]), (first.shape[1], 1))


# -------------------------------------------------------------------------------------- in 8 bits


def has_unsigned() -> bool:
    """Whether this processor multiplies 8-bit numbers fast only if one of them is unsigned: with VNNI, without AMX.

    Signed numbers oneDNN then multiplies by its reference, 500 times as slow. With neither, unsigned ones may overflow.
    """
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("avx512_vnni") or known.get("avx_vnni")) and not known.get("amx_int8")


UNSIGNED = has_unsigned()


class Coded(NamedTuple):
    """A matrix on a GPU: int8 codes [N, K], each row times its scale [N]."""

    codes: torch.Tensor
    scales: torch.Tensor


class Int8Linear(nn.Module):
    """``nn.Linear`` without a bias and without gradients; its weights are not part of a state dict."""

    def __init__(self, weight_NK: torch.Tensor) -> None:
        super().__init__()
        self.scales, self.weight = coded(weight_NK.detach())
        if weight_NK.device.type == "cpu":
            self.zeros = torch.zeros(len(weight_NK), dtype=torch.int32)
            self.packed = torch.ops.onednn.qlinear_prepack(self.weight, None)
            del self.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return product(x, [self] if hasattr(self, "packed") else Coded(self.weight, self.scales))


def coded(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of rows [M, K]: float32 scales [M] and int8 codes [M, K], whose product they are but for rounding."""
    largest = rows.abs().amax(-1, keepdim=True).float().clamp_min(TINY)
    codes = (rows * (LARGEST / largest)).round_().to(torch.int8)
    return largest[:, 0] / LARGEST, codes


def product(x: torch.Tensor, stacked: Sequence[Int8Linear] | Coded) -> torch.Tensor:
    """x [..., K] by several matrices below each other: [..., N], in the dtype of x."""
    if isinstance(stacked, Coded):
        whole = torch.nn.functional.linear(x, stacked.codes.to(x.dtype))
        return whole.float().mul_(stacked.scales).to(x.dtype)
    scales, codes = coded(x.reshape(-1, x.shape[-1]))
    if UNSIGNED:
        codes = codes.view(torch.uint8).bitwise_xor(OFFSET)  # adds OFFSET: two's complement
    zero = OFFSET if UNSIGNED else 0
    parts = [
        torch.ops.onednn.qlinear_pointwise(
            codes, 1.0, zero, m.packed, m.scales, m.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        for m in stacked
    ]
    whole = torch.cat(parts, -1) if len(parts) > 1 else parts[0]
    return whole.mul_(scales[:, None]).to(x.dtype).view(*x.shape[:-1], -1)


def quantize(language: LlamaModel) -> LlamaModel:
    """The same model with its matrices in 8 bits; each frees its original.

    Raises:
        UserError: on another device than a CPU or an NVIDIA GPU, or where this torch has no oneDNN.
    """
    kind = language.device.type
    require(kind in ("cpu", "cuda"), f"int8 is for a CPU or an NVIDIA GPU: on {kind} pass --dtype bfloat16")
    known = kind == "cuda" or hasattr(torch.ops.onednn, "qlinear_pointwise")
    require(known, "this torch multiplies no int8: pass --dtype bfloat16")
    for layer in language.layers:
        for block in (layer.self_attn, layer.mlp):
            for name, linear in list(block.named_children()):
                if isinstance(linear, nn.Linear):
                    setattr(block, name, Int8Linear(linear.weight))
    return language


def refuse(model: nn.Module) -> None:
    """Raises UserError for a model whose weights are rounded: neither saved nor trained."""
    if any(isinstance(module, Int8Linear) for module in model.modules()):
        raise UserError("a model in int8 only generates: load it with dtype bfloat16 or float32 to save it")
