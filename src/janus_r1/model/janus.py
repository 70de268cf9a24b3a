"""One thin wrapper around transformers' Janus modules: all that the rest of the code needs of them.

Nothing outside this room knows what a module of transformers' is called (``tests/test_architecture.py`` holds it).

Shapes: B rows, L positions, D hidden width, S ids an image, V text vocabulary, K image codes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import JanusConfig, JanusForConditionalGeneration, LlamaModel, PreTrainedTokenizerBase

from janus_r1.layout import Layout
from janus_r1.model import vq
from janus_r1.segments import Drawn, Row, Seen, Source, Text, row_length

ENCODED_AT_ONCE = 16  # full-size activations of a few images at a time


class Janus(nn.Module):
    """Embeds text, seen images and drawn images; runs the language model; reads both heads."""

    def __init__(self, core: JanusForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.core = core
        self.tokenizer = tokenizer
        self.image_tokens = core.config.vision_config.num_image_tokens
        self.image_size = int(core.config.vision_config.image_size)
        self.layout = Layout(tokenizer, self.image_tokens)
        self.cache_dtype: torch.dtype | None = None  # of cached keys and values; None: the model's own

    @property
    def device(self) -> torch.device:
        return self.core.device

    @property
    def dtype(self) -> torch.dtype:
        return self.core.dtype

    @property
    def language(self) -> LlamaModel:
        """transformers' Llama, without its heads."""
        return self.core.model.language_model

    @property
    def vision(self) -> nn.Module:
        """The understanding encoder, SigLIP."""
        return self.core.model.vision_model

    @property
    def aligner(self) -> nn.Module:
        """What makes the understanding encoder's features as wide as the language model."""
        return self.core.model.aligner

    @property
    def config(self) -> JanusConfig:
        return self.core.config

    @property
    def codes(self) -> int:
        """Different ids that an image may have (K)."""
        return self.core.config.vq_config.num_embeddings

    @property
    def positions(self) -> int:
        """Tokens that a row may have."""
        return self.language.config.max_position_embeddings

    @property
    def format(self) -> str:
        """How its chains are laid out: ``paper`` or ``repair`` (docs/architecture.md), as its config says."""
        return getattr(self.core.config, "introspection", "paper")

    @format.setter
    def format(self, name: str) -> None:
        self.core.config.introspection = name

    def weights(self) -> dict[str, torch.Tensor]:
        """All weights under the names of their checkpoint; the model's own memory, not a copy."""
        return self.core.state_dict()

    def to(self, *args: Any, **kwargs: Any) -> Janus:
        """As any module, but the image tokenizer stays in float32: else several per cent of its ids come out wrong."""
        super().to(*args, **kwargs)
        self.core.model.vqmodel.float()
        return self

    # ----------------------------------------------------------------------------------- training

    def freeze(self, vision: bool) -> None:
        """The image tokenizer never trains with the language model; with ``vision``, nor does SigLIP."""
        self.core.model.vqmodel.requires_grad_(False)
        self.core.model.vqmodel.eval()
        self.vision.requires_grad_(not vision)

    def attend_plainly(self) -> None:
        """Without fused attention; on a CPU that is twice as fast backwards at our lengths."""
        self.core.set_attn_implementation("eager")

    def image_tokenizer_hash(self) -> str:
        """Of all that VQ ids depend on: the image tokenizer's weights and the image size; 16 hexadecimal digits."""
        return self._hash_of(self.core.model.vqmodel)

    def understanding_hash(self) -> str:
        """Of all that the understanding encoder's features depend on, as :meth:`image_tokenizer_hash`."""
        return self._hash_of(self.vision)

    def _hash_of(self, part: nn.Module) -> str:
        digest = hashlib.sha256(f"{self.image_size} {self.image_tokens}".encode())
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def unknown_words(self, text: str) -> list[str]:
        """Words of a prompt that the model's language lacks, where its config lists its words (``prompt_words``).

        A model of a small world draws something for any text, and may say Yes to it.
        """
        known = getattr(self.core.config, "prompt_words", None)
        if not known:
            return []
        said = dict.fromkeys(re.findall(r"[^\W\d_]+|\d+", text.lower()))
        return [word for word in said if word not in known]

    # --------------------------------------------------------------------------------- embedding

    def embed_text(self, ids: torch.Tensor) -> torch.Tensor:
        """Text ids [...] -> [..., D]."""
        return self.language.embed_tokens(ids)

    def embed_drawn(self, ids: torch.Tensor) -> torch.Tensor:
        """VQ ids [...] -> [..., D]."""
        return self.core.prepare_embeddings_for_image_generation(ids)

    def embed_seen(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Pixels in [-1, 1] -> SigLIP features through the aligner, [B, S, D]."""
        with vq.whole_float32():
            return self.core.model.get_image_features(pixels_BCHW.to(self.dtype)).pooler_output

    # --------------------------------------------------------------------------- language and heads

    def hidden(self, embeddings_BLD: torch.Tensor) -> torch.Tensor:
        """Final hidden states [B, L, D] of right-padded rows, without a cache."""
        language = self.language
        plain = language.config._attn_implementation == "eager"
        mask = _causal(embeddings_BLD) if plain else None  # the other kernels know causality
        output = language(inputs_embeds=embeddings_BLD, attention_mask=mask, use_cache=False)
        return output.last_hidden_state

    def text_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.core.lm_head(hidden)

    def word_logits(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Logits of a few text tokens in float32: in bfloat16 P(Yes) would move in steps of 0.03."""
        with torch.autocast(hidden.device.type, enabled=False):
            return torch.nn.functional.linear(hidden.float(), self.core.lm_head.weight[ids].float())

    def image_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.core.model.generation_head(hidden)

    # -------------------------------------------------------------------------------------- pixels

    def encode_image(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Pixels in [-1, 1] -> VQ ids [B, S], in float32 whatever the model's dtype."""
        return vq.encode(self.core.model.vqmodel, pixels_BCHW)

    def decode_image(self, ids_BS: torch.Tensor, half: bool = False) -> np.ndarray:
        """VQ ids [B, S] -> uint8 [B, H, W, 3]; in bfloat16 where that is the model's dtype, or with ``half``."""
        half = half or self.dtype == torch.bfloat16
        return to_uint8(vq.decode(self.core.model.vqmodel, ids_BS, half))

    def sources(self, images_BHWC: Sequence[np.ndarray]) -> list[Source]:
        """Images to be edited, uint8 of the model's size, with their VQ ids; equal ones are encoded once."""
        distinct = {image.tobytes(): image for image in images_BHWC}
        ids: dict[bytes, tuple[int, ...]] = {}
        for start in range(0, len(distinct), ENCODED_AT_ONCE):
            part = dict(list(distinct.items())[start : start + ENCODED_AT_ONCE])
            encoded = self.encode_image(from_uint8(np.stack(list(part.values()))).to(self.device))
            ids |= dict(zip(part, map(tuple, encoded.tolist()), strict=True))
        return [Source(ids[image.tobytes()], image) for image in images_BHWC]

    # ---------------------------------------------------------------------------------------- rows

    def embed_rows(self, rows: list[Row]) -> torch.Tensor:
        """Rows of segments -> right-padded embeddings [B, L, D]; every encoder runs once."""
        segments = [segment for row in rows for segment in row]
        text = [i for s in segments if isinstance(s, Text) for i in s.ids]
        drawn = [i for s in segments if isinstance(s, Drawn) for i in s.ids]
        seen = [s.pixels for s in segments if isinstance(s, Seen)]
        parts = [self.embed_text(torch.tensor(text, dtype=torch.long, device=self.device))]
        if drawn:
            parts.append(self.embed_drawn(torch.tensor(drawn, device=self.device)).to(parts[0].dtype))
        if seen:
            features = self.embed_seen(from_uint8(np.stack(seen)).to(self.device))
            parts.append(features.flatten(0, 1).to(parts[0].dtype))
        parts.append(torch.zeros_like(parts[0][:1]))  # what padding points at
        order = _gather_order(rows, len(text), len(drawn), sum(len(p) for p in parts) - 1)
        return torch.nn.functional.embedding(order.to(self.device), torch.cat(parts))


def _gather_order(rows: list[Row], num_text: int, num_drawn: int, padding: int) -> torch.Tensor:
    """Index [B, L] into the concatenation of text, drawn and seen embeddings."""
    cursor = {Text: 0, Drawn: num_text, Seen: num_text + num_drawn}
    longest = max(map(row_length, rows))
    order = np.full((len(rows), longest), padding, dtype=np.int64)
    for b, row in enumerate(rows):
        position = 0
        for segment in row:
            start = cursor[type(segment)]
            order[b, position : position + len(segment)] = np.arange(start, start + len(segment))
            cursor[type(segment)] = start + len(segment)
            position += len(segment)
    return torch.from_numpy(order)


def from_uint8(images: np.ndarray) -> torch.Tensor:
    """uint8 [B, H, W, 3] -> pixels in [-1, 1], [B, 3, H, W]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(pixels_BCHW: torch.Tensor) -> np.ndarray:
    """Pixels about in [-1, 1] -> uint8 [B, H, W, 3], clipped and truncated as DeepSeek does."""
    scaled = ((pixels_BCHW.float().clamp(-1, 1) + 1) * 127.5).to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).cpu().numpy()


def _causal(embeddings_BLD: torch.Tensor) -> torch.Tensor:
    """What plain attention adds to its scores, [1, 1, L, L].

    transformers would make it, too, but from positions and inside the compiled graph, where every layer and head
    compares them anew: a quarter of a training step on a CPU.
    """
    length, dtype = embeddings_BLD.shape[1], embeddings_BLD.dtype
    forbidden = torch.full((length, length), torch.finfo(dtype).min, dtype=dtype, device=embeddings_BLD.device)
    return forbidden.triu(1)[None, None]
