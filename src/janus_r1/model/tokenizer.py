"""Special tokens by name, and small tokenizers for models from nothing.

Ids differ between Janus-Pro 1B, 7B and tiny, so nothing in this package holds an id as a number:
:class:`SpecialTokens` looks every one up by its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

# The bars of the first three are U+FF5C and the low lines U+2581, as in DeepSeek's vocabulary.
BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
PAD = "<｜▁pad▁｜>"
BEGIN_OF_IMAGE = "<begin_of_image>"
END_OF_IMAGE = "<end_of_image>"
IMAGE_PLACEHOLDER = "<image_placeholder>"
USER = "<|User|>"
ASSISTANT = "<|Assistant|>"
SPECIAL_TOKENS = (BOS, EOS, PAD, BEGIN_OF_IMAGE, END_OF_IMAGE, IMAGE_PLACEHOLDER, USER, ASSISTANT)


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens, and of the two verdict words."""

    bos: int
    eos: int
    pad: int
    begin_of_image: int
    end_of_image: int
    yes: int
    no: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
        """Look the tokens up by name.

        Raises:
            ValueError: if one is missing: the tokenizer is not one of a Janus model.
        """
        vocabulary = tokenizer.get_vocab()
        missing = [name for name in SPECIAL_TOKENS if name not in vocabulary]
        if missing:
            raise ValueError(f"the tokenizer lacks Janus's special tokens {', '.join(missing)}")
        yes, no = (tokenizer.encode(word, add_special_tokens=False) for word in ("Yes", "No"))
        if len(yes) != 1 or len(no) != 1:
            raise ValueError("the tokenizer does not spell Yes and No as one token each")
        return cls(
            bos=vocabulary[BOS],
            eos=vocabulary[EOS],
            pad=vocabulary[PAD],
            begin_of_image=vocabulary[BEGIN_OF_IMAGE],
            end_of_image=vocabulary[END_OF_IMAGE],
            yes=yes[0],
            no=no[0],
        )


def original_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder in DeepSeek's layout: ``tokenizer.json``, whatever class its config names.

    Its config names Llama's class, which builds another pre-tokenizer than this byte-level vocabulary
    has, and leaves the pad token null although the vocabulary has one.

    Raises:
        ValueError: if there is no ``tokenizer.json``.
    """
    if not (folder / "tokenizer.json").exists():
        raise ValueError("it has no tokenizer.json")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, trust_remote_code=False)
    vocabulary = tokenizer.get_vocab()
    for role, token in (("bos_token", BOS), ("eos_token", EOS), ("pad_token", PAD)):
        if token in vocabulary and getattr(tokenizer, role) is None:
            setattr(tokenizer, role, token)
    tokenizer.padding_side = "left"
    return tokenizer


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with Janus-Pro's special tokens: it can spell any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
