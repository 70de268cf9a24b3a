"""GenEval's eyes without mmdet: Mask2Former for objects, CLIP for their colors, both through transformers.

The benchmark's detector is mmdet's ``mask2former_swin-s``; ``facebook/mask2former-swin-small-coco-instance`` is the
same network from another training. What happens before and after the network is the benchmark's: resizing without
anti-aliasing to fit (1333, 800), and scores, masks and boxes from raw logits. transformers' own post-processing is
not that: it works on masks of 384 x 384.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from janus_r1.errors import UserError
from janus_r1.eval.geneval import COLORS, class_names
from janus_r1.eval.weights import finite

LONG, SHORT, MULTIPLE = 1333, 800, 32
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of 0..255
BEST = 100  # pairs of query and class that are looked at
MASKS_AT_ONCE = 16
COCO_NAMES = {"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"}

CANVAS = "#999999"
CLIP_SIDE = 224
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")


@dataclass(frozen=True, eq=False)
class Found:
    """One instance in a picture of H x W pixels."""

    name: str
    score: np.float32
    box: np.ndarray
    """float32 [4]: x1, y1, x2, y2, tight about the mask; x2 and y2 lie one beyond its last pixel."""
    mask: np.ndarray
    """bool [H, W]."""


class Detector:
    """``model`` is a Mask2FormerForUniversalSegmentation with COCO's 80 classes.

    ``least``: scores up to this are not told.

    Raises:
        UserError: if its classes are not COCO's.
    """

    def __init__(self, model: Any, least: float = 0.3) -> None:
        self.model, self.least = model.eval(), least
        self.names = _class_order(model.config.id2label)

    @torch.inference_mode()
    def find(self, images: Sequence[np.ndarray]) -> list[list[Found]]:
        """Instances in pictures (uint8 [H, W, 3]); those of one size go through the network together."""
        found: list[list[Found]] = [[] for _ in images]
        for shape in dict.fromkeys(image.shape for image in images):
            mine = [i for i, image in enumerate(images) if image.shape == shape]
            inputs = torch.stack([network_input(images[i]) for i in mine]).to(self.model.device)
            output = self.model(pixel_values=inputs)
            padded, size = inputs.shape[-2:], resized(*shape[:2])
            for i, classes, masks in zip(mine, output.class_queries_logits, output.masks_queries_logits, strict=True):
                found[i] = self._instances(classes.float(), masks.float(), padded, size, shape[:2])
        return found

    def _instances(
        self, classes_QC: torch.Tensor, masks_Qhw: torch.Tensor, padded: Any, size: Any, shape: Any
    ) -> list[Found]:
        """The best pairs of query and class; a score is class probability x mean mask probability inside the mask.

        That is at most the class probability, so pairs that it already rules out need no mask.
        """
        probabilities = finite(classes_QC, "the detector").softmax(-1)[:, :-1]
        best = probabilities.flatten().topk(min(BEST, probabilities.numel()))
        chosen = best.values > np.float32(self.least)
        scores, pairs = best.values[chosen], best.indices[chosen]
        found = []
        for start in range(0, len(pairs), MASKS_AT_ONCE):
            part = slice(start, start + MASKS_AT_ONCE)
            queries, labels = pairs[part] // probabilities.shape[1], pairs[part] % probabilities.shape[1]
            logits = full_size(finite(masks_Qhw[queries], "the detector"), padded, size, shape)
            inside = logits > 0
            area = inside.flatten(1).sum(1)
            sure = (logits.sigmoid() * inside).flatten(1).sum(1) / (area + 1e-6)
            final = (scores[part] * sure).cpu().numpy()
            for label, score, mask in zip(labels.tolist(), final, inside.cpu().numpy(), strict=True):
                if score > np.float32(self.least):
                    found.append(Found(self.names[label], score, tight_box(mask), mask))
        return found


def _class_order(labels: dict[int, str]) -> list[str]:
    """GenEval's name of each of the model's classes."""
    given = [labels[i] for i in sorted(labels)]
    if given == [f"LABEL_{i}" for i in range(len(class_names()))]:
        return list(class_names())
    names = [COCO_NAMES.get(name, name) for name in given]
    if sorted(names) != sorted(class_names()):
        raise UserError(f"the detector must know COCO's 80 classes; its {len(names)} are others ({names[0]}, ...)")
    return names


def resized(height: int, width: int) -> tuple[int, int]:
    """The size at which the network sees a picture: as large as fits into (1333, 800) either way round."""
    scale = min(LONG / max(height, width), SHORT / min(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def network_input(image: np.ndarray) -> torch.Tensor:
    """uint8 [H, W, 3] -> float32 [3, h, w], normalised, with zeros at the bottom and right up to multiples of 32.

    Bilinear, pixel centres aligned, no anti-aliasing, rounded to whole levels: OpenCV's, to within one level.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    size = resized(*image.shape[:2])
    if size != image.shape[:2]:
        pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False).round()
    normal = (pixels[0] - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    return F.pad(normal, (0, -size[1] % MULTIPLE, 0, -size[0] % MULTIPLE))


def full_size(masks_Qhw: torch.Tensor, padded: Any, size: Any, shape: Any) -> torch.Tensor:
    """Mask logits [Q, h, w] -> [Q, H, W] of the original picture: to the network's input, without padding, back."""
    whole = F.interpolate(masks_Qhw[None], size=tuple(padded), mode="bilinear", align_corners=False)
    cut = whole[:, :, : size[0], : size[1]]
    return F.interpolate(cut, size=tuple(shape), mode="bilinear", align_corners=False)[0]


def tight_box(mask: np.ndarray) -> np.ndarray:
    """bool [H, W], not empty -> float32 [4]."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float32)


# ---------------------------------------------------------------------------------------- colors


class ColorClassifier:
    """Which of ten colors an instance has: CLIP, the instance cut out on grey against three sentences a color."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self._texts: dict[str, torch.Tensor] = {}

    def classify(self, asked: Sequence[tuple[np.ndarray, Found]]) -> list[str]:
        """One of :data:`COLORS` for each picture (uint8 [H, W, 3]) with an instance in it."""
        return [COLORS[i] for i in self.similarities(asked).argmax(1).tolist()] if asked else []

    @torch.inference_mode()
    def similarities(self, asked: Sequence[tuple[np.ndarray, Found]]) -> torch.Tensor:
        """Cosines [N, 10]."""
        crops = torch.stack([clip_input(cut_out(image, one)) for image, one in asked]).to(self.model.device)
        seen = self.model.visual_projection(self.model.vision_model(pixel_values=crops).pooler_output)
        texts = torch.stack([self._sentences(one.name) for _, one in asked])
        return finite(torch.einsum("nd,ncd->nc", F.normalize(seen.float(), dim=-1), texts), "the color classifier")

    def _sentences(self, name: str) -> torch.Tensor:
        """[10, D]: the mean of the templates' directions, made a direction again."""
        if name not in self._texts:
            texts = [t.format(color=color, name=name) for color in COLORS for t in TEMPLATES]
            longest = self.model.config.text_config.max_position_embeddings
            words = self.tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=longest)
            words = {key: words[key].to(self.model.device) for key in ("input_ids", "attention_mask")}
            read = self.model.text_projection(self.model.text_model(**words).pooler_output)
            each = F.normalize(read.float(), dim=-1).reshape(len(COLORS), len(TEMPLATES), -1)
            self._texts[name] = F.normalize(each.mean(1), dim=-1)
        return self._texts[name]


def cut_out(image: np.ndarray, one: Found) -> Image.Image:
    """The instance's box, with grey wherever its mask is not."""
    picture = Image.fromarray(image)
    canvas = Image.new("RGB", picture.size, CANVAS)
    left, top, right, bottom = (round(float(x)) for x in one.box)
    return Image.composite(picture, canvas, Image.fromarray(one.mask)).crop((left, top, right, bottom))


def clip_input(picture: Image.Image) -> torch.Tensor:
    """float32 [3, 224, 224]: shorter side to 224 (bicubic), the centre, normalised."""
    width, height = picture.size
    short = min(width, height)
    size = (int(CLIP_SIDE * width / short), int(CLIP_SIDE * height / short))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - CLIP_SIDE) / 2), round((size[1] - CLIP_SIDE) / 2)
    pixels = np.asarray(picture.crop((left, top, left + CLIP_SIDE, top + CLIP_SIDE)), dtype=np.float32) / 255
    normal = (pixels - np.array(CLIP_MEAN, np.float32)) / np.array(CLIP_STD, np.float32)
    return torch.from_numpy(normal).permute(2, 0, 1)
