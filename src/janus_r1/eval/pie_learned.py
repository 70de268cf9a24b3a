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
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel, ViTModel

from janus_r1.errors import UserError, first_line
from janus_r1.eval.pie import Metrics, NotMeasured, Pair
from janus_r1.eval.weights import load_model, revision, weights_folder

NONE = "none"
SQUEEZE = "squeezenet1_1-b8a52dc0.pth"  # what the package lpips has torchvision fetch
SIDE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


def learned_metrics(
    clip: str, dino: str, device: str = "cpu", download: bool = False
) -> tuple[Metrics, dict[str, str | None]]:
    """The metrics, and the revision of each one's weights.

    ``clip`` and ``dino`` are folders or Hub ids of a CLIP model and of DINO's ViT; ``none`` leaves one out. Nothing is
    fetched unless ``download`` says so.
    """
    structure, structure_of = _tried(dino, download, lambda folder: StructureDistance.from_folder(folder, device))
    scorer, scorer_of = _tried(clip, download, lambda folder: ClipScore.from_folder(folder, device))
    score = isinstance(scorer, ClipScore)
    metrics = {
        "structure_distance": structure,
        "lpips": _lpips(device, download),
        "clip_whole": scorer.whole if score else scorer,
        "clip_edited": scorer.edited if score else scorer,
    }
    return metrics, {"clip_revision": scorer_of, "dino_revision": structure_of}


def _tried(name: str, download: bool, load: Callable[[Path], Any]) -> tuple[Any, str | None]:
    """What ``load`` returns of the folder with the weights ``name``, and their revision."""
    if name == NONE:
        return NotMeasured("switched off"), None
    try:
        folder = weights_folder(name, download)
        return load(folder), revision(folder)
    except MemoryError:
        raise
    except Exception as error:  # a model's files are the user's, and anything may be wrong with them
        return NotMeasured(first_line(error).rstrip(".")), None


def _lpips(device: str, download: bool) -> Any:
    try:
        return Lpips.from_package(device, download)
    except MemoryError:
        raise
    except Exception as error:
        return NotMeasured(f"lpips: {first_line(error).rstrip('.')}")


class Lpips:
    """``network`` takes two pictures [1, 3, H, W] of values from -1 to 1."""

    def __init__(self, network: Any, device: str = "cpu") -> None:
        self.network, self.device = network, device

    @classmethod
    def from_package(cls, device: str = "cpu", download: bool = False) -> Lpips:
        """
        Raises:
            ImportError: if the package is not there.
            UserError: if its network's weights would have to be fetched, and ``download`` is off.
            Exception: whatever it meets while it loads them.
        """
        try:
            import lpips
        except ImportError as error:
            raise ImportError(f"{error} (pip install 'janus-r1[pie]')") from None
        weights = Path(torch.hub.get_dir()) / "checkpoints" / SQUEEZE
        if not download and not weights.is_file():
            raise UserError(f"{SQUEEZE} is not in {weights.parent}: score with --download")
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
    def from_folder(cls, folder: Path, device: str = "cpu") -> ClipScore:
        """
        Raises:
            Exception: whatever transformers finds wrong with it.
        """
        model = load_model(CLIPModel, folder)
        images = CLIPImageProcessorPil.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
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
    def from_folder(cls, folder: Path, device: str = "cpu") -> StructureDistance:
        """
        Raises:
            Exception: whatever transformers finds wrong with it.
        """
        return cls(load_model(ViTModel, folder, add_pooling_layer=False).to(device))

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
