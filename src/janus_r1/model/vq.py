"""The VQ tokenizer as DeepSeek defines it: latents and codes are compared at unit length.

transformers' port compares them raw (and so disagrees with the original on most ids of a codebook
that is not of unit length) and lets no gradient reach its encoder. Both are put right here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from transformers.models.janus.modeling_janus import JanusVQVAE

DECODE_CHUNK = 16


def latents(vq: JanusVQVAE, pixels_BCHW: torch.Tensor) -> torch.Tensor:
    """Unit-length latents [B, grid, grid, code_dim] of pixels in [-1, 1]."""
    return F.normalize(vq.quant_conv(vq.encoder(pixels_BCHW)).float().permute(0, 2, 3, 1), dim=-1)


def unit_codebook(vq: JanusVQVAE) -> torch.Tensor:
    """The codes at unit length: [num_codes, code_dim], float32."""
    return F.normalize(vq.quantize.embedding.weight.float(), dim=-1)


def nearest_codes(latents_BHWD: torch.Tensor, codebook_KD: torch.Tensor) -> torch.Tensor:
    """Ids [B, grid * grid] of the nearest codes, in raster order."""
    scores = latents_BHWD.flatten(1, 2) @ codebook_KD.T  # nearest on the sphere = largest cosine
    return scores.argmax(-1)


@contextmanager
def whole_float32() -> Iterator[None]:
    """Float32 means float32 in a GPU's convolutions, too: some ids, and p_yes by 0.001, would come out otherwise."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@torch.no_grad()
def encode(vq: JanusVQVAE, pixels_BCHW: torch.Tensor) -> torch.Tensor:
    """Pixels in [-1, 1] -> ids [B, grid * grid].

    Always float32: in bfloat16 several per cent of the ids come out wrong.
    """
    with whole_float32(), torch.autocast(pixels_BCHW.device.type, enabled=False):
        return nearest_codes(latents(vq, pixels_BCHW.float()), unit_codebook(vq))


@torch.no_grad()
def decode(vq: JanusVQVAE, ids_BS: torch.Tensor, half: bool = False) -> torch.Tensor:
    """Ids [B, grid * grid] -> pixels [B, 3, H, W], about in [-1, 1].

    ``half`` computes in bfloat16, which is harmless here: no id depends on it. Chunks keep the
    full-size activations of a few images, not of all, in the processor's cache.
    """
    with whole_float32(), torch.autocast(ids_BS.device.type, torch.bfloat16, enabled=half):
        return torch.cat([vq.decode(part).float() for part in ids_BS.split(DECODE_CHUNK)])


def decode_latents(vq: JanusVQVAE, latents_BHWD: torch.Tensor) -> torch.Tensor:
    """As :func:`decode` from (straight-through) latents, with gradients."""
    return vq.decoder(vq.post_quant_conv(latents_BHWD.permute(0, 3, 1, 2)))
