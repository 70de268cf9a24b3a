"""Random scorers of the real architectures, small enough for a test; built from configurations."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
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


def save_detector(folder: Path, **options) -> Path:
    mask2former(**options).save_pretrained(folder)
    return folder


def save_clip(folder: Path) -> Path:
    model, words = clip()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
