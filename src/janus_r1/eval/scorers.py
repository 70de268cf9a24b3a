"""Every benchmark's scorer with its weights, which are loaded here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from janus_r1.errors import require
from janus_r1.eval.benchmark_score import Scorer
from janus_r1.eval.compbench import ATTRIBUTES
from janus_r1.eval.dpg import DpgScorer
from janus_r1.eval.geneval2 import SoftTifa
from janus_r1.eval.geneval_benchmark import GenEvalScorer
from janus_r1.eval.unigenbench import UniGenScorer
from janus_r1.eval.vlm_judge import VlmJudge
from janus_r1.eval.wise import WiseScorer

DETECTOR = "facebook/mask2former-swin-small-coco-instance"
CLIP = "openai/clip-vit-large-patch14"
BLIP = "Salesforce/blip-vqa-capfilt-large"
CLIP_B32 = "openai/clip-vit-base-patch32"


def kind_of(device: str) -> str:
    """``cuda`` of ``cuda:1``: shards on several GPUs of a machine make one result."""
    return device.partition(":")[0]


def geneval_scorer(detector: str, clip: str, device: str, batch: int, download: bool) -> GenEvalScorer:
    """Without CLIP's weights, rows that ask for no color are scored all the same."""
    from transformers import AutoTokenizer, CLIPModel, Mask2FormerForUniversalSegmentation

    from janus_r1.eval.geneval_detector import ColorClassifier, Detector
    from janus_r1.eval.weights import NotHere, load_model, revision, weights_folder

    require(batch >= 1, "batch must be at least 1")
    eyes = weights_folder(detector, download)
    record: dict[str, Any] = {"judge": detector, "revision": revision(eyes), "colors": clip, "device": kind_of(device)}
    found = Detector(load_model(Mask2FormerForUniversalSegmentation, eyes).to(device))
    try:
        folder = weights_folder(clip, download)
    except NotHere as error:
        return GenEvalScorer(found, None, {**record, "colors_revision": None}, batch, no_colors=str(error))
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    colors = ColorClassifier(load_model(CLIPModel, folder).to(device), tokenizer)
    return GenEvalScorer(found, colors, {**record, "colors_revision": revision(folder)}, batch)


def judged_scorer(name: str, judge: VlmJudge, batch: int, official: bool) -> Scorer:
    """Of the benchmarks whose judge is a vision-language model."""
    require(batch >= 1, "batch must be at least 1")
    known: dict[str, Callable[[], Scorer]] = {
        "geneval2": lambda: SoftTifa(judge, batch, official),
        "dpg": lambda: DpgScorer(judge, batch, official),
        "wise": lambda: WiseScorer(judge, batch),
        "unigenbench": lambda: UniGenScorer(judge, batch),
    }
    require(name in known, f"{name} is not scored by a judge: choose {', '.join(known)}")
    return known[name]()


def compbench_scorer(category: str, weights: str | None, device: str, batch: int, download: bool) -> Scorer:
    """The network that the category is measured by."""
    from transformers import (
        AutoImageProcessor,
        AutoModelForObjectDetection,
        AutoTokenizer,
        BlipForQuestionAnswering,
        CLIPModel,
    )

    from janus_r1.eval.compbench_scorers import BlipVqa, Boxes, ClipCosine, spacy_readers
    from janus_r1.eval.weights import load_auto, load_model, revision, weights_folder

    require(batch >= 1, "batch must be at least 1")
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
