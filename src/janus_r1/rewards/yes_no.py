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


def p_yes(answer: dict[str, Any], min_mass: float = MIN_MASS) -> Score:
    """P(yes) at the first token of a chat completion that was asked for ``top_logprobs``."""
    try:
        first = answer["choices"][0]["logprobs"]["content"][0]
        tokens = [(entry["token"], _number(entry["logprob"])) for entry in first["top_logprobs"]]
    except (KeyError, IndexError, TypeError):
        return Abstained("no log-probs: the server must support logprobs and top_logprobs in chat completions")
    fault = _fault(tokens)
    if fault:
        return Abstained(fault)
    mass = {"yes": 0.0, "no": 0.0}
    for token, logprob in tokens:
        word = spelling(token)
        if word:
            mass[word] += math.exp(min(logprob, 0.0))
    return share_of_yes(mass["yes"], mass["no"], min_mass)


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
