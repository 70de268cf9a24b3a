"""How a chain becomes a token sequence. The only place that knows template strings.

Three streams (design section 4), all built from the same pieces, so that sampling, SFT and RL agree:

* drawing: prompt, ids of draft 1, [self-check, verdict 1, regeneration, ids of draft 2, ...]
* drawing, unconditional: the same with the user's turn replaced by attended pads
* seeing: prompt, SigLIP features of draft 1, self-check, verdict 1, [regeneration, ...]

For an edit the user's turn holds the instruction and then the source image. The drawing streams hold it as
VQ ids, the seeing stream as SigLIP features, just as they hold the drafts; all else is the same. The
unconditional row keeps the source: only the instruction is replaced by pads. (The official code has the source
first. Behind the instruction it is read knowing what to change, and stands equally far before the draft, however
long the instruction is: equal distances alone halved the steps in which the tiny model learns to copy.) So that this
holds for every later draft, too, an edit is asked for again after a No, source and all, in place of the regeneration.

In the format ``repair`` a model first lists what it sees and only then says the word; its reason after a No is an
instruction. A repair is an edit of the rejected draft by that instruction, with nothing before it, so its rows are
those of :meth:`Layout.edit_prompt`.

The strings are those the released Janus-Pro-R1 checkpoint was trained on. No row is ever padded in
its middle, and truncation shortens a caption or a reason, never the structure around it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from transformers import PreTrainedTokenizerBase

from janus_r1.errors import TextCut, UserError
from janus_r1.model.tokenizer import ASSISTANT, BEGIN_OF_IMAGE, BOS, END_OF_IMAGE, SPECIAL_TOKENS, USER, SpecialTokens
from janus_r1.segments import Drawn, Lead, Row, Seen, Segment, Source, Text

SELF_CHECK = f"{END_OF_IMAGE}\nLet me think Does this image match the prompt..."
REGENERATE = f"\nNext, I will draw a new image{BEGIN_OF_IMAGE}"
EDIT_REQUEST = " Please generate an image."
MAX_CAPTION_TOKENS = 200
CUTS_TOLD = 5  # texts that are longer than what is read, by a warning each
MAX_INSTRUCTION_TOKENS = 90
MAX_REASON_TOKENS = 184
MAX_LIST_TOKENS = 160
LIST_END = "\n"
WORD_WEIGHT = 6.0  # format repair: tokens of a list that the verdict's word counts for
MARK_WEIGHT = 4.0  # of a mark's Yes or No beside the other words of a list


class Layout:
    """The pieces of every sequence, as ids of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, image_tokens: int) -> None:
        self.tokenizer = tokenizer
        self._encode = lru_cache(maxsize=8192)(self._tokens)  # most pieces of most rows have been there before
        self.special = SpecialTokens.of(tokenizer)
        self.image_tokens = image_tokens
        self._cut: set[str] = set()
        self.self_check = Text(self._encode(SELF_CHECK))
        self.regenerate = Text(self._encode(REGENERATE))
        self.list_end = Text(self._encode(LIST_END))
        self.marks = {self._encode(f" {word}")[-1]: word == "Yes" for word in ("Yes", "No")}
        self._wanted = self._encode("circle:")[-1]  # stands before what is wanted of a thing that is listed
        self._place = self._encode(" @")[-1]  # stands before where a thing that is listed is seen
        request = self._encode(f"{EDIT_REQUEST}\n\n{ASSISTANT}:{BEGIN_OF_IMAGE}")
        self.edit_request = Text((*self._encode(END_OF_IMAGE), *request))

    def _tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    # ----------------------------------------------------------------------------------- pieces

    def prompt(self, caption: str) -> Text:
        """``<bos><|User|>: caption\\n\\n<|Assistant|>:<begin_of_image>``.

        Raises:
            UserError: for an empty caption or one that spells a special token.
        """
        head = self._encode(f"{BOS}{USER}")
        body = self._shortened(f": {clean(caption)}", "\n\n", MAX_CAPTION_TOKENS, "prompt")
        return Text((*head, *body, *self._encode(f"{ASSISTANT}:{BEGIN_OF_IMAGE}")))

    def is_cut(self, text: str, edit: bool = False) -> bool:
        """Whether of a prompt, or of an edit's instruction, the beginning alone is read."""
        return len(self._encode(f" {text.strip()}")) > (MAX_INSTRUCTION_TOKENS if edit else MAX_CAPTION_TOKENS)

    def unconditional(self, prompt: Text) -> Text:
        """The row that guidance subtracts: same length, all but the first and last token are pads."""
        first, *middle, last = prompt.ids
        return Text((first, *(self.special.pad for _ in middle), last))

    def edit_prompt(
        self, source_ids: tuple[int, ...], instruction: str, drop_instruction: bool = False, again: bool = False
    ) -> Row:
        """``<bos><|User|>: instruction\\n<begin_of_image>ids<end_of_image> Please generate an image.\\n\\n...``

        With ``drop_instruction`` it is replaced by pads, as guidance subtracts it; the source stays. Asked ``again``
        there is no ``<bos>``.

        Raises:
            UserError: for an empty instruction or one that spells a special token.
        """
        return self._edit_turn(Drawn(source_ids), instruction, drop_instruction, again)

    def _edit_turn(self, image: Segment, instruction: str, drop: bool = False, again: bool = False) -> Row:
        words = self._shortened(
            f" {clean(instruction, 'instruction', 'change')}", "", MAX_INSTRUCTION_TOKENS, "instruction"
        )
        if drop:
            words = (self.special.pad,) * len(words)
        user = self._encode(f"{USER}:" if again else f"{BOS}{USER}:")
        return Text((*user, *words, *self._encode(f"\n{BEGIN_OF_IMAGE}"))), image, self.edit_request

    def opening(self, prompt: str, source: Source | None = None) -> Lead:
        """The rows before the first draft, of a caption or, with ``source``, of an instruction.

        Raises:
            UserError: as :meth:`prompt` and :meth:`edit_prompt`.
        """
        if source is None:
            text = self.prompt(prompt)
            return Lead((text,), (self.unconditional(text),), (text,))
        return self._request(prompt, source)

    def again(self, prompt: str, source: Source | None = None) -> Lead:
        """The rows before every later draft, after the verdict on the one before."""
        if source is None:
            return Lead((self.regenerate,), (self.regenerate,), (self.regenerate,))
        return self._request(prompt, source, again=True)

    def _request(self, instruction: str, source: Source, again: bool = False) -> Lead:
        return Lead(
            self.edit_prompt(source.ids, instruction, again=again),
            self.edit_prompt(source.ids, instruction, drop_instruction=True, again=again),
            self._edit_turn(Seen(source.pixels, self.image_tokens), instruction, again=again),
        )

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

    def checklist(self, pixels: np.ndarray, text: str, items: list[tuple[str, bool]]) -> Row:
        """A question about an image with many answers: each item, then Yes or No, which alone are learnt."""
        *opening, _ = self.question(pixels, text, "")
        return *opening, *self._checked(items)

    def _checked(self, items: list[tuple[str, bool]]) -> Iterator[Text]:
        for item, true in items:
            yield Text(self._encode(f" {item}"))
            yield Text((self.special.yes if true else self.special.no,), learn=True)

    def draw(self, caption: str, ids: tuple[int, ...], drop_caption: bool = False, source: Source | None = None) -> Row:
        """Text to image (Task I), or an edit of ``source``: loss on the image's ids."""
        opening = self.opening(caption, source)
        return *(opening.unconditional if drop_caption else opening.drawing), Drawn(ids, learn=True)

    def judge(
        self,
        caption: str,
        earlier: list[tuple[Seen, str]],
        seen: Seen,
        verdict: str,
        word_weight: float | None = None,
        weight: float = 1.0,
        source: Source | None = None,
    ) -> Row:
        """Self-evaluation (Task II): loss on the verdict on ``seen``, after ``earlier`` rejected images."""
        row, again = [*self.opening(caption, source).seeing], self.again(caption, source).seeing
        for image, reason in earlier:
            row += [image, self.self_check, self.verdict(reason), *again]
        return (*row, seen, self.self_check, self.verdict(verdict, True, word_weight, weight))

    def listing(self, text: str, learn: bool = False) -> Text:
        """What is seen, as it stands before the word, its end included; marks weigh ``MARK_WEIGHT``."""
        said = self._shortened(f" {text}", "", MAX_LIST_TOKENS) if text else ()
        ids = (*said, *self.list_end.ids)
        return Text(ids, learn, tuple(MARK_WEIGHT if i in self.marks else 1.0 for i in ids) if learn else None)

    def look(
        self,
        task: str,
        seen: Seen,
        listing: str,
        verdict: str,
        word_weight: float = WORD_WEIGHT,
        source: Source | None = None,
    ) -> Row:
        """Format ``repair``: loss on the list, the word (``word_weight`` tokens) and the instruction after a No."""
        ids = (*self._shortened(verdict, "", MAX_REASON_TOKENS), self.special.eos)
        said = Text(ids, True, (word_weight, *(1.0 for _ in ids[1:])))
        return *self.opening(task, source).seeing, seen, self.self_check, self.listing(listing, learn=True), said

    def compare_list(self, task: str, listing: str, verdict: str, word_weight: float = WORD_WEIGHT) -> Row:
        """As :meth:`look` without an image, of a given list: no loss on what is seen at a place ("small red ring @7C"),
        which nobody could know."""
        ids = (*self._shortened(verdict, "", MAX_REASON_TOKENS), self.special.eos)
        said = Text(ids, True, (word_weight, *(1.0 for _ in ids[1:])))
        listed = self.listing(listing, learn=True)
        weights, start = list(listed.weights or ()), 0
        for end, token in enumerate(listed.ids):
            if token in self.marks:
                line = listed.ids[start:end]
                if self._place in line:
                    given = line.index(self._wanted) + 1
                    weights[start : start + given] = [0.0] * given
                start = end + 1
        return *self.opening(task).seeing, self.self_check, replace(listed, weights=tuple(weights)), said

    def compare(self, instruction: str, source: Source, seen: Seen, items: list[tuple[str, bool]]) -> Row:
        """What became of ``source``: as :meth:`judge`, with a checklist in place of the verdict."""
        return *self.opening(instruction, source).seeing, seen, self.self_check, *self._checked(items)

    def redraw(
        self,
        caption: str,
        earlier: list[tuple[Drawn, str]],
        ids: tuple[int, ...],
        drop_caption: bool = False,
        source: Source | None = None,
    ) -> Row:
        """Regeneration (Task III): loss on the last image's ids; only the caption is ever dropped."""
        leads = self.opening(caption, source), self.again(caption, source)
        opening, again = (lead.unconditional if drop_caption else lead.drawing for lead in leads)
        row: list[Segment] = [*opening]
        for image, reason in earlier:
            row += [image, self.self_check, self.verdict(reason), *again]
        return (*row, Drawn(ids, learn=True))

    # ------------------------------------------------------------------------------ whole chains

    def closed(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """A sampled verdict with its end-of-sequence token, also where it was cut short."""
        return ids if ids and ids[-1] == self.special.eos else (*ids, self.special.eos)

    def drawing(
        self,
        opening: Row,
        again: Row,
        drafts: Sequence[tuple[int, ...]],
        verdicts: Sequence[tuple[int, ...]],
        only_last: bool = False,
    ) -> Row:
        """The drawing stream of a chain as it was sampled; all its drafts are learnt, or the last alone.

        ``opening`` and ``again`` are the chain's in this stream, conditional or not.
        ``verdicts`` are the sampled ids between the drafts: one fewer than drafts.
        """
        row: list[Segment] = [*opening]
        for index, draft in enumerate(drafts):
            if index:
                row += [self.self_check, Text(self.closed(verdicts[index - 1])), *again]
            row.append(Drawn(draft, learn=not only_last or index + 1 == len(drafts)))
        return tuple(row)

    def seeing(
        self, opening: Row, again: Row, images: Sequence[np.ndarray], verdicts: Sequence[tuple[int, ...]]
    ) -> Row:
        """The seeing stream of a chain, its verdicts learnt (not an end-of-sequence token it never sampled)."""
        row: list[Segment] = [*opening]
        for index, (pixels, verdict) in enumerate(zip(images, verdicts, strict=True)):
            if index:
                before = verdicts[index - 1]
                row += [Text(self.closed(before)[len(before) :]), *again]
            row += [Seen(pixels, self.image_tokens), self.self_check, Text(verdict, learn=True)]
        return tuple(row)

    def _shortened(self, text: str, end: str, limit: int, kind: str = "") -> tuple[int, ...]:
        """Tokens of ``text + end``, cut inside ``text`` when there are more than ``limit``; of what ``kind`` the user's
        text is, where that is told."""
        ids = self._encode(text + end)
        if len(ids) <= limit:
            return ids
        if kind and text not in self._cut and len(self._cut) < CUTS_TOLD:
            self._cut.add(text)
            more = "; more that are too long are not told of" if len(self._cut) == CUTS_TOLD else ""
            begin = text.lstrip(": ")[:40]
            told = f"the {kind} {begin!r}... is {len(ids)} tokens long: the model reads the first {limit}{more}"
            warnings.warn(told, TextCut, stacklevel=2)
        tail = self._encode(end) if end else ()
        return (*self._encode(text)[: limit - len(tail)], *tail)


def clean(text: str, kind: str = "prompt", task: str = "draw") -> str:
    """The caption or instruction without surrounding blanks; ``kind`` and ``task`` are for the complaint.

    Raises:
        UserError: if nothing is left, or if it contains a special token's spelling.
    """
    text = text.strip()
    if not text:
        raise UserError(f"the {kind} is empty: say what to {task}")
    for token in SPECIAL_TOKENS:
        if token in text:
            raise UserError(f"the {kind} contains the special token {token}: remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"the {kind} holds half a surrogate pair, which is no character: {ascii(text)[:60]}") from None
    return text
