"""A vision-language model behind an OpenAI-compatible endpoint: P(yes) of yes/no questions.

Questions are asked side by side; equal ones once; answers are remembered. What fails abstains.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from janus_r1.chain import Task
from janus_r1.rewards import cache as caching
from janus_r1.rewards.chat import Chat
from janus_r1.rewards.chat import question as message
from janus_r1.rewards.questions import (
    END_OF_THOUGHT,
    EXPLAIN,
    MIN_MASS,
    NO_LOGPROBS,
    REPLY,
    SPLIT,
    Plan,
    combine,
    decomposition,
    edit,
    p_yes,
    said,
    spelling,
    text_of,
    whole,
)
from janus_r1.rewards.score import EDIT_WEIGHTS, Abstained, EditWeights, Item, Score, checked, shown

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
MAX_SPLIT_TOKENS = 2048
MAX_REASON_TOKENS = 160


class EndpointReward:
    """``decompose_words``: prompts of at least so many words are split into atomic questions, 0: none.

    ``batch_s`` bounds one call of :meth:`score`: a server that hangs must not hold a run for hours.
    ``fallbacks`` counts, by cause, prompts that could not be split and are one question instead, and answers taken from
    their text. More than one of ``max_tokens`` is for judges that think first; ``extra_body`` is added to every
    question, ``{"chat_template_kwargs": {"enable_thinking": False}}`` for one. With ``text_fallback`` a server without
    log-probs scores 1 or 0 by the word that it says.
    """

    def __init__(
        self,
        chat: Chat,
        cache: caching.Cache | None = None,
        *,
        name: str = "endpoint",
        concurrency: int = 16,
        decompose_words: int = 0,
        edit_weights: EditWeights = EDIT_WEIGHTS,
        top_logprobs: int = 20,
        min_mass: float = MIN_MASS,
        batch_s: float = 900.0,
        max_tokens: int = 1,
        extra_body: Mapping[str, Any] | None = None,
        text_fallback: bool = False,
    ) -> None:
        self.max_tokens, self.extra_body, self.text_fallback = max_tokens, dict(extra_body or {}), text_fallback
        self.name, self.chat, self.cache = name, chat, cache or caching.Cache()
        self.decompose_words, self.edit_weights = decompose_words, edit_weights
        self.top_logprobs, self.min_mass, self.batch_s = top_logprobs, min_mass, batch_s
        self.fallbacks: Counter[str] = Counter()
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix=name)  # one for all calls: the bound holds

    def score(self, items: Sequence[Item]) -> list[Score]:
        deadline = time.monotonic() + self.batch_s
        plans = self._plans([task for task, _ in items], deadline)
        seen = [_digest(item) for item in items]
        jobs = {
            (question.text, digest): partial(self._answer, question.text, item, digest, deadline)
            for item, plan, digest in zip(items, plans, seen, strict=True)
            for question in (() if isinstance(plan, Abstained) else plan)
        }
        answers = self._side_by_side(jobs)
        return [
            plan if isinstance(plan, Abstained) else combine(plan, [answers[q.text, digest] for q in plan])
            for plan, digest in zip(plans, seen, strict=True)
        ]

    def _side_by_side(self, jobs: Mapping[K, Callable[[], V]]) -> dict[K, V]:
        """The results of all jobs; what has not begun when one raises is called off."""
        futures = {key: self._pool.submit(job) for key, job in jobs.items()}
        try:
            return {key: future.result() for key, future in futures.items()}
        finally:
            for future in futures.values():
                future.cancel()

    # ------------------------------------------------------------------------------ one question

    def _answer(self, question: str, item: Item, digest: str, deadline: float) -> Score:
        key = caching.key("p_yes", self.chat.url, self.chat.model, question, digest, *self._manner())
        known = self.cache.get(key)
        if isinstance(known, float) and not isinstance(checked(known), Abstained):
            return known
        score = self._ask(question, item, deadline)
        if not isinstance(score, Abstained):
            self.cache.put(key, score)
        return score

    def _ask(self, question: str, item: Item, deadline: float) -> Score:
        body = {
            "messages": [message(shown(item), question)],
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": self.top_logprobs,
            **self.extra_body,
        }
        answer = self.chat.complete(body, deadline)
        if isinstance(answer, Abstained):
            return answer
        score = p_yes(answer, self.min_mass, thinks=self.max_tokens > 1)
        if self.text_fallback and isinstance(score, Abstained) and score.cause == NO_LOGPROBS.partition(":")[0]:
            score = said(answer)
            if not isinstance(score, Abstained):
                self.fallbacks["1 or 0 by the word, without log-probs"] += 1
        return score

    def _manner(self) -> list[str]:
        """What else an answer depends on; nothing where all is as it always was, so that old caches stay good."""
        if self.max_tokens == 1 and not self.extra_body and not self.text_fallback:
            return []
        return [str(self.max_tokens), json.dumps(self.extra_body, sort_keys=True), str(self.text_fallback)]

    # ------------------------------------------------------------------- more than a score, for data

    def explain(self, items: Sequence[Item]) -> list[str | Abstained]:
        """Why each image does or does not show its prompt, beginning with Yes or No; remembered like the scores."""
        deadline = time.monotonic() + self.batch_s
        jobs = {index: partial(self._explain, item, deadline) for index, item in enumerate(items)}
        answers = self._side_by_side(jobs)
        return [answers[index] for index in range(len(items))]

    def _explain(self, item: Item, deadline: float) -> str | Abstained:
        question = EXPLAIN.format(prompt=item[0].prompt)
        key = caching.key("explain", self.chat.url, self.chat.model, question, _digest(item), *self._manner())
        known = self.cache.get(key)
        if isinstance(known, str):
            return known
        body = {"messages": [message(shown(item), question)], "temperature": 0, **self.extra_body}
        answer = self.chat.complete({"max_tokens": max(MAX_REASON_TOKENS, self.max_tokens), **body}, deadline)
        if isinstance(answer, Abstained):
            return answer
        reason = " ".join((text_of(answer) or "").rpartition(END_OF_THOUGHT)[2].split())
        word = spelling(reason.split()[0]) if reason else None
        if word is None:
            return Abstained("no reason: it does not begin with yes or no")
        reason = word.capitalize() + reason[len(word) :]
        self.cache.put(key, reason)
        return reason

    def marked(self, items: Sequence[Item]) -> list[list[tuple[str, float]]]:
        """The questions that each item's score is made of, with P(yes); none where there is one question alone.

        After :meth:`score` all of them are remembered, and nothing is asked.
        """
        deadline = time.monotonic() + self.batch_s
        marks: list[list[tuple[str, float]]] = []
        for item, plan in zip(items, self._plans([task for task, _ in items], deadline), strict=True):
            questions = () if isinstance(plan, Abstained) or len(plan) < 2 else plan
            answers = [(q.text, self._answer(q.text, item, _digest(item), deadline)) for q in questions]
            given = [(t.removesuffix(REPLY).strip(), a) for t, a in answers if not isinstance(a, Abstained)]
            marks.append(given if len(given) == len(answers) else [])
        return marks

    # ----------------------------------------------------------------------------- what is asked

    def _plans(self, tasks: Sequence[Task], deadline: float) -> list[Plan | Abstained]:
        long = {task.prompt for task in tasks if self._is_long(task)}
        split = self._side_by_side({prompt: partial(self._split, prompt, deadline) for prompt in long})
        plans: list[Plan | Abstained] = []
        for task in tasks:
            if task.source is not None:
                plans.append(edit(task, self.edit_weights))
            else:
                plan = split.get(task.prompt, ())
                plans.append(plan if plan else whole(task))
        return plans

    def _is_long(self, task: Task) -> bool:
        return task.source is None and 0 < self.decompose_words <= len(task.prompt.split())

    def _split(self, prompt: str, deadline: float) -> Plan | Abstained:
        """The atomic questions of a prompt; none of them where the model's reply is of no use.

        The reply is remembered even then: the images of one prompt must all be asked the same.
        """
        key = caching.key("split", self.chat.url, self.chat.model, SPLIT.format(prompt=prompt))
        reply = self.cache.get(key)
        if not isinstance(reply, str):
            message = {"role": "user", "content": SPLIT.format(prompt=prompt)}
            answer = self.chat.complete(
                {"messages": [message], "max_tokens": MAX_SPLIT_TOKENS, "temperature": 0, **self.extra_body}, deadline
            )
            if isinstance(answer, Abstained):
                return answer
            reply = text_of(answer) or ""
            self.cache.put(key, reply)
        try:
            return decomposition(reply)
        except ValueError as error:
            self.fallbacks[str(error)] += 1
            return ()


def _digest(item: Item) -> str:
    """Of the pictures that are looked at."""
    return caching.key(*(part for image in shown(item) for part in (str(image.shape), image.tobytes())))
