"""An adapter for lmms-eval, the field's harness of multimodal understanding: MME, POPE, MMMU and some hundred others.

With lmms-eval installed, ``janus-r1 eval understanding --tasks mme,pope`` runs its tasks, and so does its own command,
``lmms-eval --model janus_r1 --model_args pretrained=FOLDER --tasks mme``: it finds the model by an entry point. A
question is asked of its first picture, since the sequence of plain questions holds one; where there are more, or none,
that is said, not answered.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest

from janus_r1.api import JanusR1

LONGEST = 256  # tokens of an answer whose task names no limit


def manifest() -> ModelManifest:
    """What lmms-eval's registry wants to know."""
    return ModelManifest(model_id="janus_r1", simple_class_path=f"{__name__}.Lmms")


class Lmms(lmms):
    """A model as lmms-eval asks it: greedy answers, one after the other kept in the order of the requests."""

    def __init__(
        self,
        pretrained: str | JanusR1 = "tiny-r1",
        device: str = "cpu",
        dtype: str = "float32",
        batch_size: int | str = 8,
        **unknown: Any,
    ) -> None:
        """
        Args:
            pretrained: A model that is loaded, an embedded one, a folder or a Hub id.
            device: Where it runs.
            dtype: Of the model.
            batch_size: Questions asked at once.
            unknown: What the harness passes to all models; it must say nothing.
        """
        super().__init__()
        if told := {name: value for name, value in unknown.items() if value is not None}:
            raise ValueError(f"unknown model_args: {', '.join(sorted(told))}")
        loaded = pretrained if isinstance(pretrained, JanusR1) else None
        self.model = loaded or JanusR1.from_pretrained(str(pretrained), dtype=dtype, device=device)
        self.batch_size = int(batch_size)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        answers = []
        for start in range(0, len(requests), self.batch_size):
            part = [self._read(request) for request in requests[start : start + self.batch_size]]
            limit = max(options.get("max_new_tokens") or LONGEST for _, _, options in part)
            said = self.model.ask([image for image, _, _ in part], [text for _, text, _ in part], max_tokens=limit)
            answers += [_until(text, options) for text, (_, _, options) in zip(said, part, strict=True)]
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError("janus_r1 answers questions (generate_until); choose a task's generative form")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError("janus_r1 answers one question at a time; choose a task of one round")

    def _read(self, request: Any) -> tuple[Any, str, dict[str, Any]]:
        """Picture, question and options of a request."""
        context, options, visuals, number, task, split = request.args
        pictures = visuals(self.task_dict[task][split][number]) if callable(visuals) else visuals
        listed = pictures if isinstance(pictures, list | tuple) else [pictures]
        if len(listed) != 1:
            raise ValueError(f"{task}, document {number}: {len(listed)} pictures; janus_r1 answers questions about one")
        return listed[0], re.sub(r"<image(?: ?\d+)?>\s*", "", context).strip(), dict(options)


def _until(text: str, options: dict[str, Any]) -> str:
    """Cut before the first of the task's stop words."""
    stops = options.get("until") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.split(stop)[0] if stop else text
    return text
