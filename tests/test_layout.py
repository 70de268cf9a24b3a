"""Sequences: the exact strings, truncation that spares the structure, rows of the three tasks."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from conftest import build
from janus_r1.errors import TextCut, UserError
from janus_r1.layout import CUTS_TOLD, MAX_CAPTION_TOKENS, MAX_REASON_TOKENS
from janus_r1.model.tokenizer import SPECIAL_TOKENS, SpecialTokens
from janus_r1.segments import Drawn, Seen, Text, row_length
from janus_r1.train.objective import targets


def spelled(tiny, *pieces: Text) -> str:
    return tiny.tokenizer.decode([i for piece in pieces for i in piece.ids])


def test_prompt_is_janus_pros_template(tiny):
    expected = "<｜begin▁of▁sentence｜><|User|>: a red circle\n\n<|Assistant|>:<begin_of_image>"
    assert spelled(tiny, tiny.layout.prompt("  a red circle ")) == expected


def test_unconditional_row_keeps_first_and_last_token(tiny):
    prompt = tiny.layout.prompt("a red circle")
    row = tiny.layout.unconditional(prompt)
    special = tiny.layout.special
    assert row.ids == (special.bos, *[special.pad] * (len(prompt) - 2), special.begin_of_image)


def test_fixed_strings_are_those_of_the_released_checkpoint(tiny):
    layout = tiny.layout
    spoken = spelled(tiny, layout.self_check, layout.verdict("No, it is blue."), layout.regenerate)
    assert spoken == (
        "<end_of_image>\nLet me think Does this image match the prompt...No, it is blue."
        "<｜end▁of▁sentence｜>\nNext, I will draw a new image<begin_of_image>"
    )


def test_long_captions_and_reasons_are_cut_but_not_the_structure(tiny):
    prompt = tiny.layout.prompt("a red circle and " * 300)
    end = tiny.layout.prompt("x").ids[-4:]
    assert prompt.ids[-len(end) :] == end and len(prompt) < MAX_CAPTION_TOKENS + 10
    verdict = tiny.layout.verdict("No, the circle is blue. " * 300)
    assert verdict.ids[-1] == tiny.layout.special.eos and len(verdict) == MAX_REASON_TOKENS + 1


def test_what_is_cut_is_said_once_and_not_for_ever(words):
    layout = build(words).layout
    with pytest.warns(TextCut, match=rf"prompt 'a red circle and .*reads the first {MAX_CAPTION_TOKENS}"):
        layout.prompt("a red circle and " * 300)
    with pytest.warns(TextCut, match="instruction 'make it red "):
        layout.edit_prompt((1,) * 64, "make it red " * 300)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        layout.prompt("a red circle and " * 300)
        layout.verdict("No, the circle is blue. " * 300)
        assert not told
        for number in range(20):
            layout.prompt(f"{number} " * 300)
    assert len(told) == CUTS_TOLD - 2 and "not told of" in str(told[-1].message)


@pytest.mark.parametrize("text", ["", "  \n", "a \ud800", *(f"a {token} circle" for token in SPECIAL_TOKENS)])
def test_captions_that_cannot_be_meant_are_refused(tiny, text):
    with pytest.raises(UserError, match=r"empty|special token|surrogate"):
        tiny.layout.prompt(text)


@pytest.mark.parametrize("text", ["naïve ☃ 画 \U0001f600", "tabs\tand\x00bytes", "Ünïcödé " * 5])
def test_tiny_tokenizer_spells_any_text(tiny, text):
    ids = tiny.tokenizer.encode(text, add_special_tokens=False)
    assert tiny.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_a_tokenizer_without_janus_tokens_is_refused(tiny):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    with pytest.raises(ValueError, match="begin_of_image"):
        SpecialTokens.of(other)


def test_only_the_answers_are_learnt(tiny):
    """Task II learns the last verdict with its end, Task III the last image, nothing before them."""
    layout, picture = tiny.layout, np.zeros((64, 64, 3), np.uint8)
    seen, ids = Seen(picture, tiny.image_tokens), tuple(range(tiny.image_tokens))
    judged = layout.judge("a ring", [(seen, "No, it is red.")], seen, "Yes, it matches.", word_weight=0.5)
    wanted = targets([judged])
    assert tuple(wanted.text_ids.tolist()) == layout.verdict("Yes, it matches.").ids
    assert wanted.text_ids[-1] == layout.special.eos
    assert float(wanted.text_weights[0]) == 0.5 and float(wanted.text_weights.sum()) == pytest.approx(1.0)
    assert len(wanted.image_ids) == 0
    redrawn = layout.redraw("a ring", [(Drawn(ids[::-1]), "No, it is red.")], ids)
    wanted = targets([redrawn])
    assert tuple(wanted.image_ids.tolist()) == ids and len(wanted.text_ids) == 0
    length = row_length(redrawn)
    assert wanted.image_at.tolist() == list(range(length - 65, length - 1))


def test_dropping_the_caption_keeps_drafts_and_reasons(tiny):
    ids = tuple(range(tiny.image_tokens))
    kept = tiny.layout.redraw("a ring", [(Drawn(ids), "No, it is red.")], ids)
    dropped = tiny.layout.redraw("a ring", [(Drawn(ids), "No, it is red.")], ids, drop_caption=True)
    assert dropped[0] == tiny.layout.unconditional(kept[0]) and dropped[1:] == kept[1:]
