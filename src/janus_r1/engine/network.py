"""The language model as the decoder runs it: its matrices, laid out for few rows, and one forward over new tokens.

:class:`Network` reads the model that it is given and changes nothing of it. Matrices that are multiplied together (q, k
and v; gate and up) are one matrix here. Where they stand side by side in memory, as in a loaded model
(:func:`janus_r1.model.matrices.adjoin`), that is a view of them; else it is a copy.

Shapes: R cached rows, T new tokens, D hidden width, H heads, E head width, K image codes.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlamaModel

from janus_r1.engine.cache import Cache, Placement
from janus_r1.model.janus import Janus
from janus_r1.model.matrices import Coded, Int8Linear, product, side_by_side

# Bytes: a model whose matrices take more is not worth a second copy of them on a CPU. Blocked for bfloat16 they also
# serve one of 170 MB (a token in 0.6 of the time); by columns in float32 they make that one slower.
COPIED = {torch.bfloat16: 512 * 2**20, torch.float32: 64 * 2**20}
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


class Network:
    """Runs one model's language model, with the weights that it has now.

    ``kernels`` runs one token a row through the GPU's kernels (:mod:`janus_r1.engine.kernels`).
    """

    def __init__(self, model: Janus, kernels: bool = False) -> None:
        self.model, self.kernels = model, kernels
        language = model.language
        joined = layer_weights(language)
        self.layers = joined if kernels else laid_out(joined)
        self.norm = language.norm.weight
        self.eps = language.config.rms_norm_eps
        self.epsilon = torch.tensor(self.eps, device=model.device)  # again, as addcmul takes it
        self.heads = language.config.num_attention_heads
        self.kv_heads = language.config.num_key_value_heads
        self.width = language.layers[0].self_attn.head_dim
        self.limit = model.positions
        with torch.inference_mode():
            self.drawn_table = model.embed_drawn(torch.arange(model.codes, device=model.device))  # [K, D]
            self.cos, self.sin = self._rotation(language.rotary_emb)

    def cache(self, rows: int, room: int) -> Cache:
        """An empty one for ``rows`` of up to ``room`` tokens."""
        dtype = self.model.cache_dtype or self.norm.dtype
        return Cache(len(self.layers), rows, self.kv_heads, self.width, room, dtype, self.model.device)

    def make_room(self, cache: Cache, tokens: int) -> None:
        """For as many more in every row.

        Raises:
            ValueError: where the longest row would have more than the model's positions.
        """
        longest = max(cache.lengths) + tokens
        if longest > self.limit:
            raise ValueError(f"a chain of {longest} tokens exceeds the model's {self.limit} positions")
        cache.reserve(tokens)

    def image_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [..., K]."""
        return self.model.image_logits(hidden)

    # ----------------------------------------------------------------------------------- one forward

    def append(self, cache: Cache, x_RTD: torch.Tensor, counts: list[int]) -> torch.Tensor:
        """Final hidden states [R, T, D]; keys and values are appended, ``counts`` tokens a row."""
        new = x_RTD.shape[1]
        self.make_room(cache, new)
        hidden = self.forward(cache, x_RTD, Placement.of(cache, new, self.norm))
        cache.extend(counts)
        return hidden

    def forward(self, cache: Cache, x_RTD: torch.Tensor, place: Placement) -> torch.Tensor:
        """All layers on new tokens at ``place``: final hidden states [R, T, D]. Tensors in, tensors out."""
        cos, sin = self.cos[place.positions].unsqueeze(2), self.sin[place.positions].unsqueeze(2)
        x = x_RTD.to(self.norm.dtype)
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            x = x + self._attend(layer, keys, values, self._rms(x, layer.norm1), place, cos, sin)
            gate, up = linear(self._rms(x, layer.norm2), layer.gate_up).chunk(2, -1)
            x = x + linear(F.silu(gate).mul_(up), layer.down)
        return self._rms(x, self.norm)

    def token(self, cache: Cache, x_RD: torch.Tensor, lengths_R: torch.Tensor) -> torch.Tensor:
        """By the GPU's kernels: final hidden states [R, D] of one new token a row behind ``lengths_R`` cached ones.

        All it reads has a fixed address, so it can be captured; the cache's own lengths stay.
        """
        from janus_r1.engine.kernels import add_norm, attend, gate

        x, delta, eps = x_RD.clone(), None, self.eps
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            qkv = _by_kernel(add_norm(x, delta, layer.norm1, eps), layer.qkv)
            attended = _by_kernel(attend(qkv, self.cos, self.sin, lengths_R, keys, values), layer.out)
            inner = _by_kernel(add_norm(x, attended, layer.norm2, eps), layer.gate_up)
            delta = _by_kernel(gate(inner), layer.down)
        return add_norm(x, delta, self.norm, eps)

    def _attend(
        self,
        layer: LayerWeights,
        keys_RSHE: torch.Tensor,
        values_RSHE: torch.Tensor,
        x_RTD: torch.Tensor,
        place: Placement,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> torch.Tensor:
        rows, new, _ = x_RTD.shape
        qkv = linear(x_RTD, layer.qkv).view(rows, new, self.heads + 2 * self.kv_heads, self.width)
        qk, v = qkv.split((self.heads + self.kv_heads, self.kv_heads), dim=2)
        qk = torch.addcmul(qk * cos, qk.roll(self.width // 2, -1), sin)
        q, k = qk.split((self.heads, self.kv_heads), dim=2)
        place.write(keys_RSHE, k)
        place.write(values_RSHE, v)
        attended = F.scaled_dot_product_attention(
            (q if place.repeats == 1 else q.repeat(1, place.repeats, 1, 1)).transpose(1, 2),
            keys_RSHE[:, : place.end].to(q.dtype).transpose(1, 2),
            values_RSHE[:, : place.end].to(q.dtype).transpose(1, 2),
            attn_mask=place.mask,
            is_causal=place.causal,
            enable_gqa=self.heads != self.kv_heads,
        )
        return linear(attended.transpose(1, 2)[:, :new].reshape(rows, new, -1).contiguous(), layer.out)

    def _rms(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """RMS norm; on a CPU a third of the time of torch's own, which is fused on a GPU alone."""
        if x.is_cuda:
            return F.rms_norm(x, (x.shape[-1],), weight, self.eps)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = torch.addcmul(self.epsilon, norm, norm, value=1 / x.shape[-1]).rsqrt()
        return (x * scale.to(x.dtype)).mul_(weight)

    def _rotation(self, rotary: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines, and sines whose first half is negated: x cos + roll(x) sin is then the rotation."""
        positions = torch.arange(self.limit, device=self.norm.device)
        cos, sin = rotary(self.norm[:1], positions.unsqueeze(0))
        half = self.width // 2
        return cos[0], torch.cat((-sin[0, :, :half], sin[0, :, half:]), dim=-1)


def has_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this machine can run the kernels, which are for bfloat16 alone: float32 is for exactness."""
    return device.type == "cuda" and dtype == torch.bfloat16 and importlib.util.find_spec("triton") is not None


# ---------------------------------------------------------------------------------------------- matrices


def layer_weights(language: LlamaModel) -> list[LayerWeights]:
    """The matrices of every layer of a Llama, joined.

    Raises:
        ValueError: for a Llama with biases, which no Janus has, or with adapters, which would go unread.
    """
    layers = []
    for layer in language.layers:
        attention, mlp = layer.self_attn, layer.mlp
        matrices = [m for m in (*attention.children(), *mlp.children()) if hasattr(m, "weight")]
        if not all(isinstance(m, (nn.Linear, Int8Linear)) for m in matrices):
            raise ValueError("the decoder reads plain matrices: generate with a copy that holds the merged weights")
        if any(m.bias is not None for m in (attention.q_proj, mlp.gate_proj) if isinstance(m, nn.Linear)):
            raise ValueError("the decoder does not support biases in the language model")
        layers.append(
            LayerWeights(
                norm1=layer.input_layernorm.weight,
                qkv=_joined(attention.q_proj, attention.k_proj, attention.v_proj),
                out=_joined(attention.o_proj),
                norm2=layer.post_attention_layernorm.weight,
                gate_up=_joined(mlp.gate_proj, mlp.up_proj),
                down=_joined(mlp.down_proj),
            )
        )
    return layers


def _joined(*linears: nn.Linear | Int8Linear) -> Matrix:
    rounded = tuple(m for m in linears if isinstance(m, Int8Linear))
    if rounded and hasattr(rounded[0], "packed"):
        return rounded
    weights = [linear.weight.detach() for linear in linears]
    whole = side_by_side(weights)
    if whole is None:
        whole = torch.cat(weights)
    return Coded(whole, torch.cat([m.scales for m in rounded])) if rounded else whole


def laid_out(layers: list[LayerWeights]) -> list[LayerWeights]:
    """A small CPU model's matrices once more, as the kernels for few rows read them; :func:`linear` reads these.

    In bfloat16 (where oneDNN has kernels for it) blocked as oneDNN wants them, which it does anew in every
    product otherwise; else column by column, which is a quarter faster with MKL. Other models stay as they are.
    """
    like = layers[0].qkv
    if not isinstance(like, torch.Tensor) or like.device.type != "cpu" or _size(layers) > COPIED.get(like.dtype, 0):
        return layers
    copy = _blocked if like.dtype == torch.bfloat16 and has_blocked() else _by_columns
    return [replace(layer, **{name: copy(getattr(layer, name)) for name in MATRICES}) for layer in layers]


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


def _size(layers: list[LayerWeights]) -> int:
    return sum(getattr(layer, name).nbytes for layer in layers for name in MATRICES)


def _blocked(weight: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, None)


def _by_columns(weight: torch.Tensor) -> torch.Tensor:
    return weight.t().contiguous().t()


def _by_kernel(x: torch.Tensor, weight: Matrix) -> torch.Tensor:
    from janus_r1.engine import kernels

    if isinstance(weight, Coded):
        return kernels.multiply(x, *weight)
    if isinstance(weight, torch.Tensor) and len(x) <= kernels.FEW:
        return kernels.multiply(x, weight)
    return linear(x, weight)
