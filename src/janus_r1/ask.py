"""Plain questions about an image, as multimodal understanding asks them: what the seeing side knows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from janus_r1.engine.decoder import Decoder
from janus_r1.images import square
from janus_r1.model.janus import Janus
from janus_r1.segments import Row, Text


def ask(
    model: Janus, images: Sequence[np.ndarray], questions: Sequence[str], max_tokens: int = 64, max_batch: int = 64
) -> list[str]:
    """The likeliest answer to each question about its image (uint8 [H, W, 3], fitted to the model's size)."""
    decoder, answers = Decoder(model), list[str]()
    for start in range(0, len(images), max_batch):
        part = slice(start, start + max_batch)
        stream = decoder.open(_openings(model, images[part], questions[part]))
        said = decoder.say(stream, torch.zeros(stream.rows, max_tokens), temperature=0.0)
        answers += [model.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in said.ids]
    return answers


@torch.inference_mode()
def check(
    model: Janus,
    images: Sequence[np.ndarray],
    questions: Sequence[str],
    items: Sequence[Sequence[str]],
    max_batch: int = 64,
) -> list[list[float]]:
    """P(Yes) / (P(Yes) + P(No)) of every item of each image's list, each knowing the likelier word of those before."""
    special, encode = model.layout.special, model.tokenizer.encode
    decoder, found = Decoder(model), list[list[float]]()
    for start in range(0, len(images), max_batch):
        part = slice(start, start + max_batch)
        listed = items[part]
        stream = decoder.open(_openings(model, images[part], questions[part]))
        p_yes: list[list[float]] = [[] for _ in listed]
        for number in range(max(map(len, listed))):
            rows: list[Row] = []
            for own, before in zip(listed, p_yes, strict=True):
                word = (special.yes if before[-1] >= 0.5 else special.no,) if before else ()
                text = own[number] if number < len(own) else own[-1]  # a shorter list waits for the others
                rows.append((Text((*word, *encode(f" {text}", add_special_tokens=False))),))
            decoder.feed(stream, rows)
            words = torch.tensor([special.yes, special.no], device=model.device)
            probabilities = model.word_logits(stream.last, words).softmax(-1)[:, 0].tolist()
            for own, before, p in zip(listed, p_yes, probabilities, strict=True):
                if number < len(own) or not before:
                    before.append(p)
        found += p_yes
    return found


def _openings(model: Janus, images: Sequence[np.ndarray], questions: Sequence[str]) -> list[Row]:
    rows = []
    for image, question in zip(images, questions, strict=True):
        *opening, _ = model.layout.question(square(image, model.image_size), question, "")
        rows.append(tuple(opening))
    return rows
