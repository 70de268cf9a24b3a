"""T2I-CompBench's networks through transformers: BLIP-VQA, a detector, CLIP; and spaCy, which reads the prompts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForObjectDetection,
    AutoTokenizer,
    BlipForQuestionAnswering,
    CLIPModel,
)

from janus_r1.errors import UserError, require
from janus_r1.eval.benchmark import Item
from janus_r1.eval.benchmark_score import Outcome, Scorer, failed, kind_of
from janus_r1.eval.compbench import ATTRIBUTES, Box, counted, distinct, numeracy_score, spatial_score
from janus_r1.eval.geneval_detector import CLIP_MEAN, CLIP_STD, clip_input
from janus_r1.eval.weights import finite, load_auto, load_model, revision, weights_folder

BLIP = "Salesforce/blip-vqa-capfilt-large"
CLIP_B32 = "openai/clip-vit-base-patch32"
BLIP_SIDE, MAX_CHUNKS, MAX_WORDS, MAX_TOKENS = 480, 8, 50, 35
NO_CHUNKS = ("top", "the side", "the left", "the right")
MARKS = r"[.!\"()*#:;~]"
SHORT, LONG = 479, 480  # of the image that the detector's boxes are measured in

Reader = Callable[[str], list[str]]
"""A prompt's noun chunks, or its nouns."""


def spacy_readers() -> tuple[Reader, Reader]:
    """(noun chunks, nouns), by ``en_core_web_sm`` as published.

    Raises:
        UserError: if spaCy or its model is not installed, with the commands that install them.
    """
    try:
        import spacy

        language = spacy.load("en_core_web_sm")
    except (ImportError, OSError):
        how = "run `pip install spacy` and `python -m spacy download en_core_web_sm`"
        raise UserError(f"T2I-CompBench reads prompts with spaCy's en_core_web_sm, which is not here: {how}") from None

    def chunks(prompt: str) -> list[str]:
        return [chunk.text for chunk in language(prompt).noun_chunks]

    def nouns(prompt: str) -> list[str]:
        return [token.text for token in language(prompt) if token.pos_ == "NOUN"]

    return chunks, nouns


def questions(chunks: Sequence[str]) -> list[str]:
    """What BLIP is asked: each noun chunk with a question mark, cleaned as in its own pre-processing."""
    kept = [chunk for chunk in chunks if chunk not in NO_CHUNKS][:MAX_CHUNKS]
    cleaned = (re.sub(MARKS, "", f"{chunk}?".lower()).strip() for chunk in kept)
    return [" ".join(text.split(" ")[:MAX_WORDS]) for text in cleaned]


class BlipVqa:
    """Attributes: the product over noun chunks of P(yes) / (P(yes) + P(no)), each rounded to four decimals.

    ``model`` is a BlipForQuestionAnswering; its vocabulary's last entry is the encoder's start token.
    """

    def __init__(self, model: Any, tokenizer: Any, chunks: Reader, record: Mapping[str, Any], batch: int = 4) -> None:
        self.model, self.tokenizer, self.chunks, self.batch = model.eval(), tokenizer, chunks, batch
        self.record: Mapping[str, Any] = record
        self.yes, self.no = tokenizer.convert_tokens_to_ids(["yes", "no"])

    def score(self, shots: Sequence[tuple[Item, np.ndarray]]) -> list[Outcome]:
        return [self._outcome(item.prompt, pixels) for item, pixels in shots]

    def _outcome(self, prompt: str, pixels: np.ndarray) -> Outcome:
        asked = questions(self.chunks(prompt))
        if not asked:
            return failed(f"no noun chunk in {prompt!r}")
        answers = [round(p, 4) for p in self.p_yes(pixels, asked)]
        return Outcome(float(np.prod(answers)), {"questions": asked, "answers": answers})

    @torch.inference_mode()
    def p_yes(self, pixels: np.ndarray, asked: Sequence[str]) -> list[float]:
        """Of each question about an image (uint8 [H, W, 3]).

        One at a time: transformers 5.23 passes over the mask of padding in the decoder's cross-attention.
        """
        shown = blip_input(pixels)[None].to(self.model.device)
        seen = self.model.vision_model(pixel_values=shown, interpolate_pos_encoding=True)[0]
        return [self._p_yes(seen, question) for question in asked]

    def _p_yes(self, seen: torch.Tensor, question: str) -> float:
        config = self.model.config.text_config
        words = self.tokenizer([question], truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        ids = words["input_ids"].to(seen.device)
        ids[:, 0] = config.vocab_size - 1
        read = self.model.text_encoder(input_ids=ids, encoder_hidden_states=seen)[0]
        start = torch.full((1, 1), config.bos_token_id, device=seen.device)
        logits = self.model.text_decoder(input_ids=start, encoder_hidden_states=read).logits[0, 0].float()
        finite(logits, "BLIP")
        return float(logits[[self.yes, self.no]].softmax(-1)[0])


def blip_input(pixels: np.ndarray) -> torch.Tensor:
    """float32 [3, 480, 480]: squeezed into a square (bicubic), normalised as CLIP's."""
    picture = Image.fromarray(pixels).resize((BLIP_SIDE, BLIP_SIDE), Image.Resampling.BICUBIC)
    values = np.asarray(picture, dtype=np.float32) / 255
    return torch.from_numpy((values - np.array(CLIP_MEAN, np.float32)) / np.array(CLIP_STD, np.float32)).permute(
        2, 0, 1
    )


class Boxes:
    """A detector of transformers' (``AutoModelForObjectDetection``) in place of UniDet; confidence 0.5."""

    def __init__(
        self, model: Any, processor: Any, category: str, nouns: Reader | None, record: Mapping[str, Any], batch: int = 4
    ) -> None:
        self.model, self.processor, self.batch = model.eval(), processor, batch
        self.category, self.nouns, self.record = category, nouns, record
        self.labels = [str(label).lower() for label in model.config.id2label.values()]

    def score(self, shots: Sequence[tuple[Item, np.ndarray]]) -> list[Outcome]:
        return [self._outcome(item.prompt, self.find(pixels)) for item, pixels in shots]

    def _outcome(self, prompt: str, boxes: list[Box]) -> Outcome:
        detail = {"boxes": [list(box) for box in boxes]}
        if self.category == "numeracy":
            wanted = counted(prompt, self.labels)
            value = numeracy_score(wanted, distinct(boxes))
            return failed(f"no counted object in {prompt!r}") if value is None else Outcome(value, detail)
        nouns = self.nouns(prompt) if self.nouns else []
        value = spatial_score(prompt, nouns, boxes)
        return failed(f"not two nouns in {prompt!r}") if value is None else Outcome(value, {**detail, "nouns": nouns})

    @torch.inference_mode()
    def find(self, pixels: np.ndarray) -> list[Box]:
        """Objects in the units of an image of short side 479 and long side at most 480."""
        height, width = pixels.shape[:2]
        scale = min(SHORT / min(height, width), LONG / max(height, width))
        inputs = self.processor(images=[Image.fromarray(pixels)], return_tensors="pt").to(self.model.device)
        size = torch.tensor([[height * scale, width * scale]])
        output = self.model(**inputs)
        finite(output.logits, "the detector")
        (found,) = self.processor.post_process_object_detection(output, threshold=0.5, target_sizes=size)
        rows = zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True)
        return [Box(str(self.model.config.id2label[label]).lower(), score, *box) for label, score, box in rows]


class ClipCosine:
    """Non-spatial relations: the plain cosine of image and prompt; the published model is CLIP ViT-B/32."""

    def __init__(self, model: Any, tokenizer: Any, record: Mapping[str, Any], batch: int = 16) -> None:
        self.model, self.tokenizer, self.record, self.batch = model.eval(), tokenizer, record, batch

    @torch.inference_mode()
    def score(self, shots: Sequence[tuple[Item, np.ndarray]]) -> list[Outcome]:
        device, longest = self.model.device, self.model.config.text_config.max_position_embeddings
        options = {"padding": True, "truncation": True, "max_length": longest, "return_tensors": "pt"}
        words = self.tokenizer([item.prompt for item, _ in shots], **options)
        shown = torch.stack([clip_input(Image.fromarray(pixels)) for _, pixels in shots]).to(device)
        read = {key: words[key].to(device) for key in ("input_ids", "attention_mask")}
        found = self.model(**read, pixel_values=shown)
        cosines = torch.cosine_similarity(found.image_embeds.float(), found.text_embeds.float())
        return [Outcome(min(max(cosine, -1.0), 1.0), least=-1.0) for cosine in finite(cosines, "CLIP").tolist()]


def scorer(category: str, weights: str | None, device: str, batch: int, download: bool) -> Scorer:
    """The network that the category is measured by.

    Raises:
        UserError: for weights that are not here, or that a category needs and nobody named.
    """
    detects = category in ("spatial", "numeracy")
    name = weights or ("" if detects else BLIP if category in ATTRIBUTES else CLIP_B32)
    require(bool(name), f"{category} needs --weights: an object detector such as facebook/detr-resnet-50")
    folder = weights_folder(name, download)
    record = {"judge": name, "revision": revision(folder), "device": kind_of(device)}
    if detects:
        nouns = spacy_readers()[1] if category == "spatial" else None
        detector = load_auto(AutoModelForObjectDetection, folder).to(device)
        processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
        return Boxes(detector, processor, category, nouns, record, batch)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if category in ATTRIBUTES:
        chunks = spacy_readers()[0]
        return BlipVqa(load_model(BlipForQuestionAnswering, folder).to(device), tokenizer, chunks, record, batch)
    return ClipCosine(load_model(CLIPModel, folder).to(device), tokenizer, record, batch)
