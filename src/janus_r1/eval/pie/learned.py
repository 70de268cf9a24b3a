"""The metrics that need weights, as in the benchmark: LPIPS, CLIP score and structure distance.

Each is loaded, or says in one line why it cannot be. torchmetrics would need torchvision for LPIPS.

LPIPS is of what lies outside the edited region, by the package ``lpips`` and its SqueezeNet. The CLIP score tells how
well a picture fits what the edit should show, by openai/clip-vit-large-patch14. The structure distance tells how
differently the parts of two pictures resemble each other in the eyes of DINO's ViT-B/8 (Tumanyan et al., "Splicing ViT
Features for Semantic Appearance Transfer", 2022): the keys of the last attention layer, all heads side by side; the
cosine of every two of them; the mean squared difference of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel, ViTModel

from janus_r1.errors import first_line
from janus_r1.eval.pie.metrics import Metrics, NotMeasured, Pair

NONE = "none"
SIDE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


def learned_metrics(clip: str, dino: str, device: str = "cpu") -> Metrics:
    """``clip`` and ``dino`` are folders or Hub ids of a CLIP model and of DINO's ViT; ``none`` leaves one out."""
    structure = _tried(dino, lambda: StructureDistance.from_pretrained(dino, device))
    scorer = _tried(clip, lambda: ClipScore.from_pretrained(clip, device))
    score = isinstance(scorer, ClipScore)
    return {
        "structure_distance": structure,
        "lpips": _tried("lpips", lambda: Lpips.from_package(device)),
        "clip_whole": scorer.whole if score else scorer,
        "clip_edited": scorer.edited if score else scorer,
    }


def _tried(name: str, load: Callable[[], Any]) -> Any:
    """What ``load`` returns. A model's files are the user's, and anything may be wrong with them: one line for all."""
    if name == NONE:
        return NotMeasured("switched off")
    try:
        return load()
    except MemoryError:
        raise
    except Exception as error:
        return NotMeasured(f"{name}: {first_line(error).rstrip('.')}")


def load_whole(kind: Any, name: str, **options: Any) -> Any:
    """``kind.from_pretrained(name)`` in float32, ready to measure.

    Raises:
        ValueError: if files of ``name`` are for another kind of model, or lack weights of this one.
    """
    config, _ = kind.config_class.get_config_dict(name)
    if config.get("model_type") != kind.config_class.model_type:
        raise ValueError(f"{name} is a {config.get('model_type')} model, not {kind.config_class.model_type}")
    model, report = kind.from_pretrained(name, dtype="float32", output_loading_info=True, **options)
    if missing := sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"])):
        raise ValueError(f"{name} lacks {len(missing)} of the weights, such as {missing[0]}")
    return model.eval()


class Lpips:
    """``network`` takes two pictures [1, 3, H, W] of values from -1 to 1."""

    def __init__(self, network: Any, device: str = "cpu") -> None:
        self.network, self.device = network, device

    @classmethod
    def from_package(cls, device: str = "cpu") -> Lpips:
        """
        Raises:
            ImportError: if the package is not there.
            Exception: whatever it meets while it gets its weights.
        """
        try:
            import lpips
        except ImportError as error:
            raise ImportError(f"{error} (pip install 'janus-r1[pie]')") from None
        return cls(lpips.LPIPS(net="squeeze", verbose=False).eval().to(device), device)

    @torch.inference_mode()
    def __call__(self, pair: Pair) -> float | None:
        outside = pair.outside()
        if outside is None:
            return None
        return self.network(*(self._prepared(pixels) for pixels in outside)).item()

    def _prepared(self, pixels: np.ndarray) -> torch.Tensor:
        image = torch.tensor(pixels, dtype=torch.float32, device=self.device).permute(2, 0, 1)[None]
        return image / 127.5 - 1


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
