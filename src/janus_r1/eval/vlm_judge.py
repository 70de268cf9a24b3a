"""A vision-language model that answers questions about images: behind an endpoint, or in this process.

Two kinds of answer are wanted by the benchmarks: a short text, greedily; and the probabilities of certain words as
the first token. An endpoint tells the latter only of its likeliest tokens (20 as a rule), by their text; what it does
not tell counts as 0, and a benchmark that asks for it says which kind of judge it had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from janus_r1.errors import require
from janus_r1.rewards.chat import Chat, api_key, question
from janus_r1.rewards.questions import spelling, text_of
from janus_r1.rewards.score import Abstained

if TYPE_CHECKING:  # torch only where it is needed
    from janus_r1.rewards.local_vlm import Vlm

TOP_LOGPROBS = 20


@dataclass(frozen=True, eq=False)
class Ask:
    """One question about one image."""

    image: np.ndarray
    """uint8 [H, W, 3]."""
    text: str
    max_tokens: int = 16
    words: tuple[str, ...] = ()
    """Whose probability as the first token is wanted."""


@dataclass(frozen=True)
class First:
    """The first token of an answer."""

    best: str
    """The likeliest token, as text."""
    words: tuple[tuple[str | int, float], ...]
    """For each word asked for: what tells its first token from others, and the probability of that token."""

    def total(self, once: bool = True) -> float:
        """Sum over the words; a token that two words share counts once, or, if not ``once``, twice."""
        return sum(dict(self.words).values()) if once else sum(p for _, p in self.words)


class VlmJudge(Protocol):
    """Answers in the order of the questions; what fails abstains."""

    record: Mapping[str, Any]

    def answer(self, asks: Sequence[Ask]) -> list[str | Abstained]: ...

    def first(self, asks: Sequence[Ask]) -> list[First | Abstained]: ...


T = TypeVar("T")


def by_item(answer: Callable[[list[Ask]], list[T]], questions: Sequence[Sequence[Ask]]) -> list[list[T]]:
    """All items' questions asked together, and the answers item by item."""
    asked = [question for own in questions for question in own]
    answers = iter(answer(asked) if asked else [])
    return [[next(answers) for _ in own] for own in questions]


def yes_or_no(said: Sequence[str | Abstained]) -> list[float] | str:
    """1 for each yes and 0 for each no; where one is neither, what it is instead."""
    read = []
    for one in said:
        if isinstance(one, Abstained):
            return one.why
        word = spelling(one)
        if word is None:
            return f"neither yes nor no: {one!r:.60}"
        read.append(float(word == "yes"))
    return read


class EndpointJudge:
    """A model behind a server; ``extra`` goes into every request's body (such as chat_template_kwargs).

    Raises:
        UserError: for an address that is none, or an API key that is not there.
    """

    def __init__(
        self,
        url: str,
        model: str,
        api_key_env: str | None = None,
        concurrency: int = 16,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        require(concurrency >= 1, "concurrency must be at least 1")
        chat = Chat(url, model, api_key(api_key_env))
        self.chat, self.extra = chat, dict(extra or {})
        where = {"judge": chat.model, "revision": None, "device": chat.url}
        self.record: Mapping[str, Any] = {**where, "extra": self.extra}
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="judge")

    def answer(self, asks: Sequence[Ask]) -> list[str | Abstained]:
        return list(self._pool.map(lambda ask: _content(self._complete(ask, {"max_tokens": ask.max_tokens})), asks))

    def first(self, asks: Sequence[Ask]) -> list[First | Abstained]:
        body = {"max_tokens": 1, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
        return list(self._pool.map(lambda ask: _first(self._complete(ask, body), ask.words), asks))

    def _complete(self, ask: Ask, body: Mapping[str, Any]) -> dict[str, Any] | Abstained:
        messages = [question((ask.image,), ask.text)]
        return self.chat.complete({"messages": messages, "temperature": 0, **body, **self.extra})


def _content(answer: dict[str, Any] | Abstained) -> str | Abstained:
    if isinstance(answer, Abstained):
        return answer
    text = text_of(answer)
    if text is None:
        return Abstained("bad answer: no text in it")
    return _answer_of(text)


def _answer_of(text: str) -> str:
    """What a judge thinks aloud before is no answer."""
    return text.rpartition("</think>")[2].strip()


def _first(answer: dict[str, Any] | Abstained, words: Sequence[str]) -> First | Abstained:
    if isinstance(answer, Abstained):
        return answer
    try:
        top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        told = {str(one["token"]): exp(min(float(one["logprob"]), 0.0)) for one in top}
    except (KeyError, IndexError, TypeError, ValueError):
        return Abstained("no log-probs: the server must support logprobs and top_logprobs in chat completions")
    if not told or not sum(told.values()) <= 1.02:
        return Abstained("impossible log-probs: the probabilities are none, or add up to more than 1")
    return First(max(told, key=lambda token: told[token]), tuple((word, told.get(word, 0.0)) for word in words))


class LocalJudge:
    """One in this process; ``record`` says which."""

    def __init__(self, vlm: Vlm, record: Mapping[str, Any], batch: int = 8) -> None:
        self.vlm, self.batch = vlm, batch
        self.record: Mapping[str, Any] = record

    def answer(self, asks: Sequence[Ask]) -> list[str | Abstained]:
        def said(part: Sequence[Ask], inputs: Any) -> list[str | Abstained]:
            most = max(ask.max_tokens for ask in part)
            tokens = self.vlm.model.generate(**inputs, max_new_tokens=most, do_sample=False)
            fresh = tokens[:, inputs["input_ids"].shape[1] :]
            texts = self.vlm.tokenizer.batch_decode(fresh, skip_special_tokens=True)
            return [_answer_of(text) for text in texts]

        return self._batches(asks, said)

    def first(self, asks: Sequence[Ask]) -> list[First | Abstained]:
        """Over the whole vocabulary; a word is known by its first token, whatever follows."""
        from janus_r1.eval.weights import finite  # torch only where it is needed

        tokenizer = self.vlm.tokenizer

        def seen(part: Sequence[Ask], inputs: Any) -> list[First | Abstained]:
            logits = self.vlm.model(**inputs, use_cache=False).logits[:, -1]
            probabilities = finite(logits, "the judge").float().softmax(-1).cpu()
            found: list[First | Abstained] = []
            for ask, row in zip(part, probabilities, strict=True):
                ids = [tokenizer.encode(word, add_special_tokens=False)[0] for word in ask.words]
                told = tuple((i, float(row[i])) for i in ids)
                found.append(First(tokenizer.decode([int(row.argmax())]), told))
            return found

        return self._batches(asks, seen)

    def _batches(self, asks: Sequence[Ask], run: Callable[[Sequence[Ask], Any], list]) -> list:
        """Questions that spell a special token abstain."""
        import torch

        clean = [i for i, ask in enumerate(asks) if not self.vlm.spells_a_token(ask.text)]
        answers: list = [Abstained("not a question: it spells a special token of the judge")] * len(asks)
        for start in range(0, len(clean), self.batch):
            mine = clean[start : start + self.batch]
            part = [asks[i] for i in mine]
            with torch.inference_mode():
                told = run(part, self.vlm.inputs([((ask.image,), ask.text) for ask in part]))
            for i, one in zip(mine, told, strict=True):
                answers[i] = one
        return answers


def local_judge(name: str, device: str = "cpu", batch: int = 8, download: bool = False) -> LocalJudge:
    """A folder or a Hub id whose files are here.

    Raises:
        UserError: if it is missing, broken or no image-text-to-text model.
    """
    from janus_r1.eval.weights import revision, weights_folder
    from janus_r1.rewards.local_vlm import Vlm

    folder = weights_folder(name, download)
    record = {"judge": name, "revision": revision(folder), "device": device.partition(":")[0]}
    return LocalJudge(Vlm.load(str(folder), device), record, batch)
