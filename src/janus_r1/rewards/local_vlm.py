"""A vision-language model in this process, through transformers: P(yes) from its next-token logits."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor

from janus_r1.chain import Task
from janus_r1.errors import UserError, first_line
from janus_r1.rewards.questions import MIN_MASS, Plan, combine, edit, share_of_yes, spelling, whole
from janus_r1.rewards.score import EDIT_WEIGHTS, Abstained, EditWeights, Item, Score, shown

SPELLS_A_TOKEN = Abstained("not a prompt: it spells a special token of the judge")


class Vlm:
    """A model and its processor as transformers' auto classes make them, made ready for batches of questions."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor, self.tokenizer = model.eval(), processor, processor.tokenizer
        self.tokenizer.padding_side = "left"  # the last position of every row is then its answer's

    @classmethod
    def load(cls, folder: str, device: str = "cpu", dtype: str = "auto") -> Vlm:
        """A folder or a Hub id; remote code is never run.

        Raises:
            UserError: if it is missing, broken or no image-text-to-text model.
        """
        try:
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
            model = AutoModelForImageTextToText.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            raise UserError(f"cannot load the judge {folder}: {first_line(error)}") from None
        if not hasattr(processor, "image_processor") or not getattr(processor, "chat_template", None):
            raise UserError(f"cannot use the judge {folder}: it has no image processor or no chat template")
        return cls(model.to(device), processor)

    def spells_a_token(self, text: str) -> bool:
        """A question that spells one, such as <image>, would derange its batch: it must not be asked."""
        return any(token in text for token in self.tokenizer.all_special_tokens)

    def inputs(self, asked: Sequence[tuple[Sequence[np.ndarray], str]]) -> Any:
        """What the model takes for a batch of questions, each with its images (uint8 [H, W, 3])."""
        return self.processor.apply_chat_template(
            [[_message(*question)] for question in asked],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        ).to(self.model.device, dtype=self.model.dtype)


class LocalVlmReward:
    """P(yes) of the questions about an item; V is the judge's text vocabulary.

    Raises:
        UserError: if no token of the vocabulary spells yes or no.
    """

    def __init__(
        self,
        vlm: Vlm,
        *,
        batch_size: int = 16,
        edit_weights: EditWeights = EDIT_WEIGHTS,
        min_mass: float = MIN_MASS,
        name: str = "local_vlm",
    ) -> None:
        self.vlm, self.name = vlm, name
        self.batch_size, self.edit_weights, self.min_mass = batch_size, edit_weights, min_mass
        vocabulary = vlm.tokenizer.get_vocab()
        self.yes = sorted(index for token, index in vocabulary.items() if spelling(token) == "yes")
        self.no = sorted(index for token, index in vocabulary.items() if spelling(token) == "no")
        if not self.yes or not self.no:
            raise UserError(f"{name} cannot answer: its tokenizer has no single token for yes or for no")
        # Logits of every position would fill the memory: rows x a thousand image tokens x V.
        takes_it = "logits_to_keep" in inspect.signature(vlm.model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if takes_it else {}

    def score(self, items: Sequence[Item]) -> list[Score]:
        plans = [self._plan(task) for task, _ in items]
        asked = [(shown(item), question.text) for item, plan in zip(items, plans, strict=True) for question in plan]
        answers: list[Score] = []
        for start in range(0, len(asked), self.batch_size):
            answers += self._answer(asked[start : start + self.batch_size])
        left = iter(answers)
        return [combine(plan, [next(left) for _ in plan]) if plan else SPELLS_A_TOKEN for plan in plans]

    def _plan(self, task: Task) -> Plan:
        """Nothing is asked about a prompt that spells a token."""
        if self.vlm.spells_a_token(task.prompt):
            return ()
        return whole(task) if task.source is None else edit(task, self.edit_weights)

    @torch.inference_mode()
    def _answer(self, asked: Sequence[tuple[Sequence[np.ndarray], str]]) -> list[Score]:
        """P(yes) of a batch of questions, each about the images of its item."""
        logits_BV = self.vlm.model(**self.vlm.inputs(asked), use_cache=False, **self._last_only).logits[:, -1]
        return p_yes(logits_BV, self.yes, self.no, self.min_mass)


def p_yes(logits_BV: torch.Tensor, yes: list[int], no: list[int], min_mass: float) -> list[Score]:
    """P(yes) a row, from next-token logits; ``yes`` and ``no`` are the ids of all their spellings."""
    probabilities = logits_BV.float().softmax(-1)
    pairs = zip(probabilities[:, yes].sum(-1).tolist(), probabilities[:, no].sum(-1).tolist(), strict=True)
    return [share_of_yes(*pair, min_mass) for pair in pairs]


def _message(images: Sequence[np.ndarray], question: str) -> dict[str, Any]:
    pictures = [{"type": "image", "image": Image.fromarray(pixels)} for pixels in images]
    return {"role": "user", "content": [*pictures, {"type": "text", "text": question}]}
