"""How much memory a model and a batch of chains take, from a config alone: nothing is loaded or run.

An upper bound on what the engine allocates: reasons are taken at their longest, and no chain stops before
its last round. S is the number of ids an image, D the hidden width, I that of the MLP.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import JanusConfig

from janus_r1.chain import Settings
from janus_r1.engine.cache import READ
from janus_r1.engine.network import COPIED
from janus_r1.engine.window import WIDEST
from janus_r1.layout import MAX_CAPTION_TOKENS, MAX_INSTRUCTION_TOKENS
from janus_r1.model.presets import random_model
from janus_r1.model.vq import DECODE_CHUNK

ROLES = 8  # tokens of a prompt beside its caption
EDIT_FRAME = 30  # tokens around the source image and behind the instruction of an edit
LEAD_INS = 40  # tokens of the self-check and the regeneration string together, in any tokenizer
RESERVED = 0.05  # of the free memory, for what nobody counts
VQ_TENSORS = 5  # full-size float32 activations alive at once in the VQ decoder
FORWARD_MLP, FORWARD_HIDDEN = 4, 6  # activations alive at once in a layer, in I and in D
SIGLIP_WIDTHS = 16  # activations alive at once in a SigLIP block, in widths of it
LOGITS = 6  # float32 copies of a row of logits alive at once while it is sampled


@dataclass(frozen=True)
class Memory:
    """Bytes that generating or judging takes; see :func:`estimate`."""

    weights: int
    tables: int
    """What the decoder computes once: every image id embedded, rotations, a small model's matrices laid out anew."""
    caches: int
    """Keys and values of one chain, in all of its streams."""
    working: int
    """Largest temporary of one chain that grows with the batch."""
    pixels: int
    """Decoding one image; at most ``DECODE_CHUNK`` are decoded at once."""

    def of(self, batch: int) -> int:
        """Peak for ``batch`` chains at once."""
        temporary = max(batch * self.working, min(batch, DECODE_CHUNK) * self.pixels)
        return self.weights + self.tables + batch * self.caches + temporary

    def fits(self, batch: int, free: int) -> bool:
        return self.of(batch) <= free * (1 - RESERVED)

    def largest_batch(self, free: int, at_most: int) -> int:
        """Chains that fit into ``free`` bytes; 0 if not even one does."""
        return bisect_right(range(1, at_most + 1), free * (1 - RESERVED), key=self.of)


def estimate(
    config: JanusConfig,
    dtype: torch.dtype,
    settings: Settings,
    drawing: bool = True,
    caption: int = MAX_CAPTION_TOKENS,
    edit: bool = False,
    kv: torch.dtype | None = None,
) -> Memory:
    """What chains under ``settings`` take; without ``drawing``, what judging a given image takes.

    ``caption`` is the most tokens of one; a caption has no more tokens than bytes. With ``edit`` it is an
    instruction, and a source image stands before it. ``kv`` is the cache's dtype, where it is another.
    """
    source = config.vision_config.num_image_tokens + EDIT_FRAME if edit else 0
    prompt = min(caption, MAX_CAPTION_TOKENS) + ROLES + source
    streams = _streams(config, settings, drawing, prompt, prompt if edit else 0)
    token = kv_bytes(config, kv or dtype)
    return Memory(
        weights=weight_bytes(config, dtype),
        tables=_table_bytes(config, dtype),
        caches=token * sum(copies * room for copies, room, _ in streams),
        working=max(_moving(streams, token), *_activations(config, dtype, streams)),
        pixels=_pixel_bytes(config) if drawing else 0,
    )


# ------------------------------------------------------------------------------------ the model itself


def weight_bytes(config: JanusConfig, dtype: torch.dtype) -> int:
    """Of all parameters: the image tokenizer in float32, the rest in ``dtype``."""
    return sum(parameter.nbytes for parameter in random_model(config, 0, dtype, "meta").parameters())


def kv_bytes(config: JanusConfig, dtype: torch.dtype) -> int:
    """Keys and values of one token of one row, over all layers."""
    text = config.text_config
    return 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * dtype.itemsize


def step_bytes(
    config: JanusConfig,
    dtype: torch.dtype,
    rows: int,
    context: int,
    int8: bool = False,
    kv: torch.dtype | None = None,
) -> int:
    """What one image token of ``rows`` rows must read: layers, image head, and ``context`` cached tokens a row.

    With ``int8`` the layers' matrices are in 8 bits (:mod:`janus_r1.model.matrices`); ``kv`` as in :func:`estimate`.
    """
    head = config.vq_config.projection_dim * (config.text_config.hidden_size + config.vq_config.num_embeddings)
    return (
        layer_bytes(config, torch.int8 if int8 else dtype)
        + head * dtype.itemsize
        + rows * context * kv_bytes(config, kv or dtype)
    )


def layer_bytes(config: JanusConfig, dtype: torch.dtype) -> int:
    """The matrices of all layers of the language model."""
    text = config.text_config
    attention = 2 * text.hidden_size * text.head_dim * (text.num_attention_heads + text.num_key_value_heads)
    layer = attention + 3 * text.hidden_size * text.intermediate_size
    return text.num_hidden_layers * layer * dtype.itemsize


def _table_bytes(config: JanusConfig, dtype: torch.dtype) -> int:
    text = config.text_config
    rotations = 2 * text.max_position_embeddings * text.head_dim
    matrices = layer_bytes(config, dtype)
    copied = matrices if matrices <= COPIED.get(dtype, 0) else 0
    return (config.vq_config.num_embeddings * text.hidden_size + rotations) * dtype.itemsize + copied


# ------------------------------------------------------------------------------------------- one chain

Stream = tuple[int, int, int]  # rows a chain, cached tokens a row, most tokens fed at once


def _streams(config: JanusConfig, settings: Settings, drawing: bool, prompt: int, again: int) -> list[Stream]:
    """The drawing stream (twice its rows under guidance) and the seeing stream, as introspect grows them.

    ``again`` is what is asked once more before every later draft.
    """
    image = config.vision_config.num_image_tokens
    said = LEAD_INS + settings.max_reason_tokens + 1
    look = prompt + image + said
    said += again
    if not drawing:
        return [(1, _capacity(prompt + image, [look]), image + LEAD_INS)]
    rows, later = 2 if settings.guidance > 1 else 1, range(1, settings.rounds)
    if getattr(config, "introspection", "paper") == "repair":  # every draft has streams of its own
        mending = MAX_INSTRUCTION_TOKENS + image + EDIT_FRAME if later else 0
        opening, look = max(prompt, mending), prompt + image + LEAD_INS + settings.max_list_tokens
        look += settings.max_reason_tokens + 1
        return [(rows, _capacity(opening + image, []), opening), (1, _capacity(prompt, [look]), image + LEAD_INS)]
    if settings.history == "full":
        seeing = [look + i * (image + said) for i in range(settings.rounds)]
        redraws = [prompt + image + i * (image + said) for i in later]
        fed = said
    else:
        seeing, redraws, fed = [look], [prompt + 2 * image + said for _ in later], image + said
    return [
        (rows, _capacity(prompt + image, redraws), fed if later else prompt),
        (1, _capacity(prompt + image, seeing), image + said),
    ]


def _capacity(room: int, lengths: list[int]) -> int:
    """Of a cache that must hold these lengths one after another, as :meth:`Cache.reserve` grows it."""
    room = _rounded(room + WIDEST)
    for length in lengths:
        if length + WIDEST > room:
            room = _rounded(max(length + WIDEST, room * 5 // 4))
    return room


def _rounded(tokens: int) -> int:
    return -(-tokens // READ) * READ


def _moving(streams: list[Stream], token: int) -> int:
    """Keys (or values) of the largest stream twice, while it grows or rows leave it."""
    return token // 2 * max(rows * room for rows, room, _ in streams)


def _activations(config: JanusConfig, dtype: torch.dtype, streams: list[Stream]) -> tuple[int, int, int]:
    """Of a layer over what is fed at once, of SigLIP, and of sampling."""
    text, vision = config.text_config, config.vision_config
    token = FORWARD_MLP * text.intermediate_size + FORWARD_HIDDEN * text.hidden_size
    layer = max(rows * fed for rows, _, fed in streams) * token * dtype.itemsize
    seen = vision.num_image_tokens * SIGLIP_WIDTHS * vision.hidden_size * dtype.itemsize
    logits = max(2 * config.vq_config.num_embeddings, text.vocab_size) * LOGITS * torch.float32.itemsize
    return layer, seen, logits


def _pixel_bytes(config: JanusConfig) -> int:
    vq = config.vq_config
    channels = vq.base_channels * max(vq.channel_multiplier[:2])
    return VQ_TENSORS * config.vision_config.image_size**2 * channels * torch.float32.itemsize


# --------------------------------------------------------------------------------------- this machine


def free_bytes(device: str) -> int | None:
    """Memory that may still be taken on ``device``; None where nothing tells."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if torch.device(device).type != "cpu":
        return None
    info = Path("/proc/meminfo")
    if info.exists():
        line = next(line for line in info.read_text().splitlines() if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024
    names = ("SC_AVPHYS_PAGES", "SC_PAGE_SIZE")
    return os.sysconf(names[0]) * os.sysconf(names[1]) if set(names) <= set(os.sysconf_names) else None
