"""Random scorers of the real architectures, small enough for a test; built from configurations."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BlipConfig,
    BlipForQuestionAnswering,
    CLIPConfig,
    CLIPModel,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessorPil,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    PreTrainedTokenizerFast,
    SwinConfig,
)

from janus_r1.eval.geneval import class_names
from janus_r1.eval.geneval_detector import COCO_NAMES
from tiny_vlm import tokenizer

COCO = [{new: old for old, new in COCO_NAMES.items()}.get(name, name) for name in class_names()]


def mask2former(seed: int = 0, labels: list[str] | None = None) -> Mask2FormerForUniversalSegmentation:
    labels = COCO if labels is None else labels
    swin = SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4, image_size=64,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    torch.manual_seed(seed)
    config = Mask2FormerConfig(
        backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        encoder_layers=1, decoder_layers=2, num_attention_heads=2, dim_feedforward=16, num_queries=12,
        id2label=dict(enumerate(labels)), label2id={name: i for i, name in enumerate(labels)},
    )  # fmt: skip
    return Mask2FormerForUniversalSegmentation(config).eval()


def clip(seed: int = 0) -> tuple[CLIPModel, object]:
    words = tokenizer()
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(seed)
    config = CLIPConfig(
        text_config={**size, "vocab_size": len(words), "max_position_embeddings": 77, "eos_token_id": 2},
        vision_config={**size, "image_size": 224, "patch_size": 56},
        projection_dim=8,
    )
    return CLIPModel(config).eval(), words


def save_clip(folder: Path) -> Path:
    model, words = clip()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def blip(seed: int = 0) -> tuple[BlipForQuestionAnswering, PreTrainedTokenizerFast]:
    """With a vocabulary of words, the encoder's start token at its end as in the real one."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "yes", "no", "a", "red", "bench", "bowl", "?", "[DEC]", "[ENC]"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"bos_token_id": 11, "pad_token_id": 0, "sep_token_id": 3, "eos_token_id": 3}
    torch.manual_seed(seed)
    text = {**size, **special, "vocab_size": len(words), "encoder_hidden_size": 16, "max_position_embeddings": 40}
    core = BlipForQuestionAnswering(
        BlipConfig(text_config=text, vision_config={**size, "image_size": 96, "patch_size": 48})
    )
    with torch.no_grad():
        for parameter in core.parameters():  # larger than usual, so that answers differ
            parameter.mul_(4.0)
    return core.eval(), tokenizer


def detr(seed: int = 0) -> tuple[DetrForObjectDetection, DetrImageProcessorPil]:
    from transformers import ResNetConfig

    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
    )
    torch.manual_seed(seed)
    config = DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, d_model=16,
        encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, num_queries=8, id2label={0: "dog", 1: "cat"}, label2id={"dog": 0, "cat": 1},
    )  # fmt: skip
    core = DetrForObjectDetection(config).eval()
    with torch.no_grad():
        core.class_labels_classifier.bias[0] = 4.0  # everything is surely a dog
    return core, DetrImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96})
