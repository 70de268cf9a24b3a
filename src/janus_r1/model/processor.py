"""What transformers' ``JanusProcessor`` reads from a model folder, beside the tokenizer.

DeepSeek's processor pads an image to a square with grey (127), resizes it and maps it to [-1, 1]; its
prompt template spells the roles as special tokens.
"""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil
from transformers.models.janus.processing_janus import JanusProcessor

from janus_r1.model.tokenizer import ASSISTANT, BEGIN_OF_IMAGE, BOS, END_OF_IMAGE, EOS, IMAGE_PLACEHOLDER, PAD, USER

NAMED_TOKENS = {"image_token": IMAGE_PLACEHOLDER, "boi_token": BEGIN_OF_IMAGE, "eoi_token": END_OF_IMAGE}

# Roles as in janus_r1.layout; an image stands where the message has it. No begin-of-sentence: the
# saved tokenizer puts it in front of every text, as DeepSeek's does, so that it never stands there twice.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% set role = '" + USER + "' if message['role'] == 'user' else '" + ASSISTANT + "' %}"
    "{{ role + ': ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{{ '" + IMAGE_PLACEHOLDER + "\\n' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}{% endif %}"
    "{{ '\\n\\n' if message['role'] == 'user' else '" + EOS + "' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + ASSISTANT + ":' }}{% endif %}"
)


def save_processor(tokenizer: PreTrainedTokenizerBase, image_size: int, image_tokens: int, folder: Path) -> None:
    """Write tokenizer, image processor and chat template for ``JanusProcessor.from_pretrained``."""
    # A new object around the same vocabulary: the caller's own must not change.
    named = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        model_max_length=tokenizer.model_max_length,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=NAMED_TOKENS,
        add_bos_token=True,
    )
    images = JanusImageProcessorPil(
        size={"height": image_size, "width": image_size},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    JanusProcessor(images, named, chat_template=CHAT_TEMPLATE, num_image_tokens=image_tokens).save_pretrained(folder)
