"""A random LLaVA with its processor, small enough for a test; built from configurations, nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

WORDS = ["<pad>", "<image>", "<unk>", "yes", "Yes", "ĠYES", "no", "No", "Ġnot", "Ġyesterday"]
TEMPLATE = """\
{% for message in messages %}{% for part in message['content'] %}\
{{ '<image>' if part['type'] == 'image' else part['text'] }}\
{% endfor %}{% endfor %}{{ ' Answer:' if add_generation_prompt }}"""


def tokenizer(words: list[str] = WORDS) -> PreTrainedTokenizerFast:
    """Single bytes and ``words``."""
    entries = [*words, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(entries)}, merges=[], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", extra_special_tokens=["<image>"]
    )


def processor(words: list[str] = WORDS) -> LlavaProcessor:
    images = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer(words),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def model(vocabulary: int) -> LlavaForConditionalGeneration:
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**size, image_size=16, patch_size=8, projection_dim=16)
    text = LlamaConfig(**size, vocab_size=vocabulary, pad_token_id=0, bos_token_id=None, eos_token_id=None)
    torch.manual_seed(0)
    core = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=1, vision_feature_layer=-1)
    )
    with torch.no_grad():
        for parameter in core.parameters():  # larger than usual, so that answers differ
            parameter.mul_(4.0)
    return core


def save_vlm(folder: Path) -> Path:
    made = processor()
    made.save_pretrained(folder)
    model(len(made.tokenizer)).save_pretrained(folder)
    return folder
