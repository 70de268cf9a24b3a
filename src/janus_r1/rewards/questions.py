"""What is asked about an image, and how the answers make one score.

Short prompts are one question. Long ones may be split into atomic questions that depend on each
other, after the Davidsonian Scene Graph (arXiv 2310.18235): "is the dog black?" counts only where
there is a dog. Edits are two questions, following and preserving (arXiv 2506.01480, section 4).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

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
