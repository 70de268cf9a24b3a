"""A small PIE-Bench folder, and tiny random weights for its learned metrics; nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import pre_tokenizers
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer, ViTConfig, ViTModel

SIDE = 512


def picture(seed: int) -> np.ndarray:
    """A smooth ground and two discs, uint8 [512, 512, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    image = np.stack([x // 4 + seed * 7, y // 3, (x + y) // 8], -1) % 256
    for centre in rng.integers(100, 412, (2, 2)):
        image[np.hypot(x - centre[0], y - centre[1]) < 60] = rng.integers(0, 256, 3)
    return image.astype(np.uint8)


def entry(number: int, kind: int, mask: list[int]) -> dict[str, Any]:
    return {
        "image_path": f"{kind}_type/{number:012d}.png",
        "original_prompt": "a [grey] disc on a ground",
        "editing_prompt": "a [red] disc on a ground",
        "editing_instruction": f"make disc {number} red",
        "editing_type_id": str(kind),
        "blended_word": "disc disc",
        "mask": mask,
    }


def rectangle(top: int, left: int, height: int, width: int) -> list[int]:
    """As runs, a run a row."""
    return [number for row in range(top, top + height) for number in (row * SIDE + left, width)]


def save_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """Two pictures of type 1, one of type 6, one of type 9 that is edited everywhere; the entries by name."""
    masks = {1: rectangle(100, 100, 200, 150), 9: [0, SIDE * SIDE], 6: rectangle(0, 0, 40, 512)}
    entries = {f"{n:012d}": entry(n, kind, masks[kind]) for n, kind in enumerate((1, 1, 9, 6))}
    for number, item in enumerate(entries.values()):
        path = folder / "annotation_images" / item["image_path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(path)
    write(folder, entries)
    return entries


def write(folder: Path, entries: Any) -> None:
    (folder / "mapping_file.json").write_text(json.dumps(entries))


def save_clip(folder: Path) -> Path:
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
    text = {**size, "vocab_size": len(words), "max_position_embeddings": 20, "eos_token_id": 1, "bos_token_id": 0}
    vision = {**size, "image_size": 32, "patch_size": 8}
    torch.manual_seed(4)  # most of its scores are above 0
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    _louder(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_dino(folder: Path, image_size: int = 224) -> Path:
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    _louder(ViTModel(ViTConfig(**size, image_size=image_size, patch_size=56))).save_pretrained(folder)
    return folder


def _louder(model: Any) -> Any:
    """Larger weights than usual, so that pictures differ."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)
    return model
