"""Structure distance: how differently the parts of two pictures resemble each other, in the eyes of DINO.

From Tumanyan et al., "Splicing ViT Features for Semantic Appearance Transfer" (2022): the keys of the last
attention layer, all heads side by side; the cosine of every two of them; the mean squared difference of these.
The benchmark's model is DINO's ViT-B/8 (facebook/dino-vitb8).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import ViTModel

from janus_r1.eval.pie.metrics import Pair
from janus_r1.eval.pie.pretrained import load_whole

SIDE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class StructureDistance:
    """``model`` is a ViT as transformers builds it.

    Raises:
        ValueError: if the model has another size of pictures than the benchmark's.
    """

    def __init__(self, model: Any) -> None:
        if model.config.image_size != SIDE:
            raise ValueError(f"DINO sees pictures of {SIDE}, this model of {model.config.image_size}")
        self.model, self.keys = model, torch.empty(0)
        _last_key_layer(model).register_forward_hook(self._keep)

    @classmethod
    def from_pretrained(cls, name: str, device: str = "cpu") -> StructureDistance:
        """A folder or a Hub id.

        Raises:
            Exception: whatever transformers finds wrong with it.
        """
        return cls(load_whole(ViTModel, name, add_pooling_layer=False).to(device))

    def __call__(self, pair: Pair) -> float:
        return F.mse_loss(self.similarities(pair.source), self.similarities(pair.image)).item()

    @torch.inference_mode()
    def similarities(self, pixels: np.ndarray) -> torch.Tensor:
        """uint8 [H, W, 3] -> the cosine of every two keys [T, T], the class token's among them."""
        self.model(pixel_values=prepared(pixels).to(self.model.device))
        return self_similarity(self.keys[0])

    def _keep(self, layer: Any, inputs: Any, output: torch.Tensor) -> None:
        self.keys = output


def prepared(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [H, W, 3] -> [1, 3, 224, 224].

    Values stay between 0 and 255, though the mean and deviation that they are normalised with are those of
    values between 0 and 1: the benchmark's code does so, and published distances with it.
    """
    image = torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]
    small = F.interpolate(image, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return (small - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def self_similarity(keys_TD: torch.Tensor) -> torch.Tensor:
    """[T, D] -> cosines [T, T]."""
    unit = F.normalize(keys_TD, dim=-1)
    return unit @ unit.T


def _last_key_layer(model: Any) -> Any:
    """Its name is not the same in all versions of transformers."""
    layers = [layer for name, layer in model.named_modules() if name.rsplit(".", 1)[-1] in ("key", "k_proj")]
    if not layers:
        raise ValueError("no attention keys found in this model")
    return layers[-1]
