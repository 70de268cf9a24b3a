"""Where reinforcement learning takes its prompts from: a world's endless stream, or the user's file."""

from __future__ import annotations

import itertools
import random

from janus_r1.data.prompt_file import read_prompts
from janus_r1.errors import UserError
from janus_r1.worlds.shapes.prompts import train_prompts


class PromptSource:
    """Prompts of a step, a pure function of seed and step, and others to evaluate on.

    ``source`` is ``shapes`` (the world's training prompts, which avoid all test splits), a text file
    with a prompt a line, or a JSONL file whose objects have a ``prompt``. The first ``held_out``
    prompts of a file are kept for evaluation.

    Raises:
        UserError: if the file is missing, broken or holds no prompt to train on.
    """

    def __init__(self, source: str, held_out: int) -> None:
        self.texts, self.held_out = None, _of_world(held_out, "evaluation")
        if source != "shapes":
            texts = read_prompts(source)
            self.texts, self.held_out = texts[held_out:], texts[:held_out]
            if not self.texts:
                raise UserError(f"{source} holds {len(texts)} prompts, all kept for evaluation: lower eval_prompts")

    def step(self, count: int, seed: int, step: int) -> list[str]:
        """``count`` prompts; from a file every epoch is a new shuffle."""
        if self.texts is None:
            return _of_world(count, f"{seed} {step}")
        return [self._nth(self.texts, seed, step * count + i) for i in range(count)]

    @staticmethod
    def _nth(texts: list[str], seed: int, index: int) -> str:
        epoch, position = divmod(index, len(texts))
        order = list(range(len(texts)))
        random.Random(f"{seed} {epoch}").shuffle(order)
        return texts[order[position]]


def _of_world(count: int, seed: str) -> list[str]:
    return [prompt.text for prompt in itertools.islice(train_prompts(random.Random(seed)), count)]
