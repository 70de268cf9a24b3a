"""CLIP score: how well a picture fits what the edit should show; the benchmark's is openai/clip-vit-large-patch14."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from janus_r1.eval.pie.metrics import Pair
from janus_r1.eval.pie.pretrained import load_whole


class ClipScore:
    """100 x the cosine of picture and text, at least 0. The text is cut to what the model reads."""

    def __init__(self, model: Any, images: Any, tokenizer: Any) -> None:
        self.model, self.images, self.tokenizer = model, images, tokenizer

    @classmethod
    def from_pretrained(cls, name: str, device: str = "cpu") -> ClipScore:
        """A folder or a Hub id.

        Raises:
            Exception: whatever transformers finds wrong with it.
        """
        model = load_whole(CLIPModel, name)
        images = CLIPImageProcessorPil.from_pretrained(name)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        return cls(model.to(device), images, tokenizer)

    def whole(self, pair: Pair) -> float:
        return self.score(pair.image, pair.target)

    def edited(self, pair: Pair) -> float | None:
        """Everything outside the edited region made black."""
        return self.score(pair.image * pair.edited[..., None], pair.target) if pair.edited.any() else None

    @torch.inference_mode()
    def score(self, pixels: np.ndarray, text: str) -> float:
        longest = self.model.config.text_config.max_position_embeddings
        words = self.tokenizer([text], return_tensors="pt", truncation=True, max_length=longest)
        shown = self.images(images=[Image.fromarray(pixels)], return_tensors="pt")
        device = self.model.device
        found = self.model(
            input_ids=words["input_ids"].to(device),
            attention_mask=words["attention_mask"].to(device),
            pixel_values=shown["pixel_values"].to(device),
        )
        cosine = torch.cosine_similarity(found.image_embeds.float(), found.text_embeds.float())
        return max(0.0, 100 * cosine.item())
