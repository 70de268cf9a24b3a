"""How a chain becomes a token sequence. The only place that knows template strings.

Three streams (design section 4), all built from the same pieces, so that sampling, SFT and RL agree:

* drawing: prompt, ids of draft 1, [self-check, verdict 1, regeneration, ids of draft 2, ...]
* drawing, unconditional: the same with the user's turn replaced by attended pads
* seeing: prompt, SigLIP features of draft 1, self-check, verdict 1, [regeneration, ...]

The strings are those the released Janus-Pro-R1 checkpoint was trained on. No row is ever padded in
its middle, and truncation shortens a caption or a reason, never the structure around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from janus_r1.errors import UserError
from janus_r1.model.tokenizer import ASSISTANT, BEGIN_OF_IMAGE, BOS, END_OF_IMAGE, SPECIAL_TOKENS, USER, SpecialTokens

SELF_CHECK = f"{END_OF_IMAGE}\nLet me think Does this image match the prompt..."
REGENERATE = f"\nNext, I will draw a new image{BEGIN_OF_IMAGE}"
MAX_CAPTION_TOKENS = 200
MAX_REASON_TOKENS = 184


@dataclass(frozen=True)
class Text:
    """Text tokens; with ``learn`` they are predicted, each counting ``weights`` (default 1)."""

    ids: tuple[int, ...]
    learn: bool = False
    weights: tuple[float, ...] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Drawn:
    """VQ ids of an image, embedded as the model embeds what it draws."""

    ids: tuple[int, ...]
    learn: bool = False

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Seen:
    """Pixels of an image, uint8 [H, W, 3], embedded by the understanding encoder as ``length`` tokens."""

    pixels: np.ndarray
    length: int

    def __len__(self) -> int:
        return self.length


Segment = Text | Drawn | Seen
Row = tuple[Segment, ...]


class Layout:
    """The pieces of every sequence, as ids of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, image_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.special = SpecialTokens.of(tokenizer)
        self.image_tokens = image_tokens
        self.self_check = Text(self._encode(SELF_CHECK))
        self.regenerate = Text(self._encode(REGENERATE))

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    # ----------------------------------------------------------------------------------- pieces

    def prompt(self, caption: str) -> Text:
        """``<bos><|User|>: caption\\n\\n<|Assistant|>:<begin_of_image>``.

        Raises:
            UserError: for an empty caption or one that spells a special token.
        """
        head = self._encode(f"{BOS}{USER}")
        body = self._shortened(f": {clean(caption)}", "\n\n", MAX_CAPTION_TOKENS)
        return Text((*head, *body, *self._encode(f"{ASSISTANT}:{BEGIN_OF_IMAGE}")))

    def unconditional(self, prompt: Text) -> Text:
        """The row that guidance subtracts: same length, all but the first and last token are pads."""
        first, *middle, last = prompt.ids
        return Text((first, *(self.special.pad for _ in middle), last))

    def verdict(self, text: str, learn: bool = False, word_weight: float | None = None, weight: float = 1.0) -> Text:
        """``Yes...``/``No...`` with its reason and the end-of-sequence token, which is trained too.

        ``word_weight`` is the share of the loss that the verdict word carries (official code: 0.8);
        the whole verdict then counts as much as ``weight`` tokens.
        """
        ids = (*self._shortened(text, "", MAX_REASON_TOKENS), self.special.eos)
        weights = None
        if word_weight is not None:
            rest = weight * (1 - word_weight) / (len(ids) - 1)
            weights = (weight * word_weight, *(rest for _ in ids[1:]))
        return Text(ids, learn, weights)

    def question(self, pixels: np.ndarray, text: str, answer: str) -> Row:
        """A plain visual question, learnt in pretraining: the image stands in the user's turn."""
        head = Text(self._encode(f"{BOS}{USER}: {BEGIN_OF_IMAGE}"))
        tail = Text(self._encode(f"{END_OF_IMAGE}\n{text}\n\n{ASSISTANT}:"))
        reply = Text((*self._encode(f" {answer}"), self.special.eos), learn=True)
        return head, Seen(pixels, self.image_tokens), tail, reply

    def draw(self, caption: str, ids: tuple[int, ...], drop_caption: bool = False) -> Row:
        """Text to image (Task I): loss on the image's ids."""
        prompt = self.prompt(caption)
        return (self.unconditional(prompt) if drop_caption else prompt), Drawn(ids, learn=True)

    def judge(
        self,
        caption: str,
        earlier: list[tuple[Seen, str]],
        seen: Seen,
        verdict: str,
        word_weight: float | None = None,
        weight: float = 1.0,
    ) -> Row:
        """Self-evaluation (Task II): loss on the verdict on ``seen``, after ``earlier`` rejected images."""
        row: list[Segment] = [self.prompt(caption)]
        for image, reason in earlier:
            row += [image, self.self_check, self.verdict(reason), self.regenerate]
        return (*row, seen, self.self_check, self.verdict(verdict, True, word_weight, weight))

    def redraw(
        self, caption: str, earlier: list[tuple[Drawn, str]], ids: tuple[int, ...], drop_caption: bool = False
    ) -> Row:
        """Regeneration (Task III): loss on the last image's ids; only the caption is ever dropped."""
        prompt = self.prompt(caption)
        row: list[Segment] = [self.unconditional(prompt) if drop_caption else prompt]
        for image, reason in earlier:
            row += [image, self.self_check, self.verdict(reason), self.regenerate]
        return (*row, Drawn(ids, learn=True))

    def _shortened(self, text: str, end: str, limit: int) -> tuple[int, ...]:
        """Tokens of ``text + end``, cut inside ``text`` when there are more than ``limit``."""
        ids = self._encode(text + end)
        if len(ids) <= limit:
            return ids
        tail = self._encode(end) if end else ()
        return (*self._encode(text)[: limit - len(tail)], *tail)


def clean(caption: str) -> str:
    """The caption without surrounding blanks.

    Raises:
        UserError: if nothing is left, or if it contains a special token's spelling.
    """
    caption = caption.strip()
    if not caption:
        raise UserError("the prompt is empty: say what to draw")
    for token in SPECIAL_TOKENS:
        if token in caption:
            raise UserError(f"the prompt contains the special token {token}: remove it")
    return caption
