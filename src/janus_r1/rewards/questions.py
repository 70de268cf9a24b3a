"""What is asked about an image, how an answer is read as P(yes), and how the answers make one score.

Short prompts are one question. Long ones may be split into atomic questions that depend on each
other, after the Davidsonian Scene Graph (arXiv 2310.18235): "is the dog black?" counts only where
there is a dog. Edits are two questions, following and preserving (arXiv 2506.01480, section 4).
P(yes) comes from the probabilities of single tokens, summed over the ways to spell yes and no.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from janus_r1.chain import Task
from janus_r1.rewards.score import EDIT_WEIGHTS, Abstained, Claimed, EditWeights, Score, checked

MAX_QUESTIONS = 32
MAX_LENGTH = 400  # characters of one question
HOLDS = 0.5  # a question counts only where those it depends on score at least this

REPLY = "Reply with yes or no only."
MATCH = "Description: {prompt}\nDoes the image show what the description says? " + REPLY
FOLLOW = "The first image was edited into the second. Instruction: {prompt}\nWas the instruction carried out? " + REPLY
PRESERVE = (
    "The first image was edited into the second. Instruction: {prompt}\n"
    "Is everything that the instruction does not mention the same in both images? " + REPLY
)
EXPLAIN = (
    "Description: {prompt}\nDoes the image show what the description says? Begin with yes or no, then say why in one "
    "sentence that names what is right or wrong."
)
SPLIT = """\
Split a description of an image into atomic questions that can be answered with yes or no by looking at the image.
Ask about every object, every attribute, every number and every relation, each in a question of its own.
A question about an object depends on the question whether that object is there.
Reply with JSON only, a list in this form, in which questions depend on earlier ones only:
[{{"id": 1, "question": "Is there a dog?", "depends_on": []}},
 {{"id": 2, "question": "Is the dog black?", "depends_on": [1]}}]

Description: {prompt}"""


@dataclass(frozen=True)
class Question:
    """One yes/no question about the images of an item."""

    text: str
    weight: float = 1.0
    depends_on: tuple[int, ...] = ()
    """Positions of earlier questions in the same plan."""


Plan = tuple[Question, ...]


def whole(task: Task) -> Plan:
    """One question about the whole prompt."""
    return (Question(MATCH.format(prompt=task.prompt)),)


def edit(task: Task, weights: EditWeights = EDIT_WEIGHTS) -> Plan:
    """Was the instruction followed, and was the rest left alone?"""
    follow, preserve = weights
    return (
        Question(FOLLOW.format(prompt=task.prompt), follow),
        Question(PRESERVE.format(prompt=task.prompt), preserve),
    )


def combine(plan: Plan, answers: list[Score]) -> Score:
    """One score an item; abstains with the first answer that is missing, because half a score is none."""
    given = [answer for answer in answers if not isinstance(answer, Abstained)]
    if len(given) < len(answers):
        return next(answer for answer in answers if isinstance(answer, Abstained))
    score = checked(_mean(plan, given))
    if len(plan) < 2 or isinstance(score, Abstained):
        return score
    return Claimed(score, ((q.text.removesuffix(REPLY).strip(), a) for q, a in zip(plan, given, strict=True)))


def _mean(plan: Plan, answers: list[float]) -> float:
    """Weighted mean of P(yes); a question scores 0 where one that it depends on scores below 0.5."""
    scores: list[float] = []
    for question, answer in zip(plan, answers, strict=True):
        counts = all(scores[parent] >= HOLDS for parent in question.depends_on)
        scores.append(answer if counts else 0.0)
    total = sum(question.weight for question in plan)
    return sum(question.weight * score for question, score in zip(plan, scores, strict=True)) / total


def decomposition(reply: str) -> Plan:
    """The plan in a model's reply to ``SPLIT``.

    Raises:
        ValueError: says what is wrong with it.
    """
    entries = _json(reply)
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_QUESTIONS:
        raise ValueError(f"not a list of 1 to {MAX_QUESTIONS} questions")
    known: dict[int, int] = {}
    plan: list[Question] = []
    for entry in entries:
        plan.append(_question(entry, known))
        known[entry["id"]] = len(known)
    return tuple(plan)


def _json(reply: str) -> object:
    """JSON, also where it stands in a code fence, which models add whatever they are told."""
    text = reply.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text.strip("`").removeprefix("json")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None


def _question(entry: object, known: dict[int, int]) -> Question:
    """One entry, checked; ``known`` maps the ids of earlier ones to their positions."""
    if not isinstance(entry, dict) or set(entry) != {"id", "question", "depends_on"}:
        raise ValueError("an entry without exactly id, question and depends_on")
    number, text, parents = entry["id"], entry["question"], entry["depends_on"]
    if type(number) is not int or number in known:
        raise ValueError("an id that is no number, or twice the same")
    if not isinstance(text, str) or not 1 <= len(text.strip()) <= MAX_LENGTH:
        raise ValueError(f"a question that is not 1 to {MAX_LENGTH} characters of text")
    if not isinstance(parents, list) or not all(type(parent) is int and parent in known for parent in parents):
        raise ValueError("a question that does not depend on earlier ones only")
    return Question(f"{text.strip()} {REPLY}", depends_on=tuple(known[parent] for parent in parents))


# --------------------------------------------------------------------------------------------------- the answers


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
