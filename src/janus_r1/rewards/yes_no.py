"""P(yes) from the probabilities of single tokens, summed over the ways to spell yes and no."""

from __future__ import annotations

import math
from typing import Any

from janus_r1.rewards.score import Abstained, Score

BLANKS = "ĠĊ▁"  # how byte-level BPE writes a blank and a newline, and how SentencePiece writes a blank
MARKS = "\"'`*_.,:;!“”‘’()[]"
MIN_MASS = 0.1
ROUNDING = 1e-3  # by how much rounded log-probs may exceed what is possible


def spelling(token: str) -> str | None:
    """``yes`` for " Yes", "▁YES", "yes," and the like, ``no`` likewise, ``None`` for any other token."""
    word = token.translate(dict.fromkeys(map(ord, BLANKS), " ")).strip().strip(MARKS).casefold()
    return word if word in ("yes", "no") else None


def share_of_yes(yes: float, no: float, min_mass: float = MIN_MASS) -> Score:
    """yes / (yes + no); abstains where the two together have too little mass to mean an answer."""
    mass = yes + no
    if not math.isfinite(mass) or mass < 0:
        return Abstained(f"not a probability: {mass}")
    if mass < min_mass or mass == 0:
        return Abstained(f"neither yes nor no: together they have a probability of {mass:.3f}")
    return yes / mass


NO_LOGPROBS = "no log-probs: the server must support logprobs and top_logprobs in chat completions"
THOUGHT, END_OF_THOUGHT = "<think>", "</think>"


def p_yes(answer: dict[str, Any], min_mass: float = MIN_MASS, thinks: bool = False) -> Score:
    """P(yes) at the first token of a chat completion that was asked for ``top_logprobs``.

    Of a judge that ``thinks`` first: at the first yes or no after its thoughts.
    """
    try:
        content = answer["choices"][0]["logprobs"]["content"]
        position = _after_thoughts(answer, content) if thinks else 0
        if position is None:
            return Abstained("no answer: the thoughts filled max_tokens")
        tokens = [(entry["token"], _number(entry["logprob"])) for entry in content[position]["top_logprobs"]]
    except (KeyError, IndexError, TypeError):
        return Abstained(NO_LOGPROBS)
    fault = _fault(tokens)
    if fault:
        return Abstained(fault)
    mass = {"yes": 0.0, "no": 0.0}
    for token, logprob in tokens:
        word = spelling(token)
        if word:
            mass[word] += math.exp(min(logprob, 0.0))
    return share_of_yes(mass["yes"], mass["no"], min_mass)


def text_of(answer: dict[str, Any]) -> str | None:
    """The text of a chat completion; None where it has none."""
    try:
        text = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) else None


def said(answer: dict[str, Any]) -> Score:
    """1 or 0 by the first word of a chat completion after its thoughts: for servers that give no log-probs."""
    text = text_of(answer)
    if text is None:
        return Abstained("bad answer: no text")
    words = text.rpartition(END_OF_THOUGHT)[2].split()
    word = spelling(words[0]) if words else None
    return Abstained(f"neither yes nor no: {text[-40:]!r}") if word is None else float(word == "yes")


def _after_thoughts(answer: dict[str, Any], content: list[dict[str, Any]]) -> int | None:
    """Position of the first yes or no behind the thoughts, which stand in the text or in a field of their own.

    A server that keeps them apart may give the log-probs of all tokens or of the answer's alone: the answer is what
    its text, read from the end, reaches back to.
    """
    tokens = [str(entry["token"]) for entry in content]
    text, first = "", len(tokens)
    while first and not text.startswith(END_OF_THOUGHT):
        first -= 1
        text = tokens[first] + text
    if not text.startswith(END_OF_THOUGHT) and text.lstrip().startswith(THOUGHT):
        return None
    start = first if text.startswith(END_OF_THOUGHT) else _own_text(answer, tokens)
    return next((i for i in range(start, len(tokens)) if spelling(tokens[i])), None)


def _own_text(answer: dict[str, Any], tokens: list[str]) -> int:
    """Where the answer's own text begins among the tokens."""
    wanted = str(answer["choices"][0]["message"]["content"] or "").strip()
    for first in range(len(tokens) - 1, -1, -1):
        if wanted and "".join(tokens[first:]).strip().removesuffix("<|im_end|>").strip() == wanted:
            return first
    return len(tokens)


def _number(value: Any) -> float:
    """A log-prob as JSON holds it; NaN for what is none. Minus infinity is a probability of zero."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value > ROUNDING:
        return math.nan
    return float(max(value, -10_000))  # an integer may be too large for a float; max keeps a NaN in front


def _fault(tokens: list[tuple[Any, float]]) -> str | None:
    """What is wrong with log-probs that cannot be ones."""
    if not tokens:
        return "no log-probs: top_logprobs is empty"
    for token, logprob in tokens:
        if not isinstance(token, str) or math.isnan(logprob):
            return f"impossible log-probs: of {str(token)[:40]!r}"
    if sum(math.exp(min(logprob, 0.0)) for _, logprob in tokens) > 1 + len(tokens) * ROUNDING:
        return "impossible log-probs: the probabilities add up to more than 1"
    return None
