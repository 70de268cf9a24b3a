"""A Janus checkpoint as judge: p_yes of its own verdict (the paper's Figure 5a trains with such rewards)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from janus_r1.chain import Settings, Task
from janus_r1.errors import UserError
from janus_r1.images import to_pixels
from janus_r1.introspect import introspect, judge
from janus_r1.layout import clean
from janus_r1.model.janus import Janus
from janus_r1.model.loading import load
from janus_r1.rewards.score import Abstained, Item, Score, checked

WORD_ONLY = Settings(max_reason_tokens=1)  # p_yes is read at the first token; a reason would only cost


class JanusReward:
    """Judges ``batch_size`` images at once, resized to the model's size; edits with a look at their source.

    Also a reward function as TRL and plain loops call them:

    >>> reward = JanusReward.from_pretrained("tiny-r1")
    >>> reward(prompts=["a red circle"], images=[image])

    With ``draws`` completions may be texts, as of a language model that learns to write prompts: the model draws them,
    and judges whether the picture shows the prompt.
    """

    def __init__(self, model: Janus, batch_size: int = 64, name: str = "janus", draws: Settings | None = None) -> None:
        self.model, self.batch_size, self.name, self.draws = model, batch_size, name, draws
        self.__name__ = name  # TRL names its metrics so

    @classmethod
    def from_pretrained(
        cls,
        model: str,
        dtype: str = "auto",
        device: str = "cpu",
        batch_size: int = 64,
        draws: Settings | None = None,
    ) -> JanusReward:
        """Of an embedded model, a folder or a Hub id.

        Raises:
            UserError: if it cannot be loaded.
        """
        return cls(load(model, dtype, device), batch_size, draws=draws)

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any] | None = None,
        images: Sequence[Any] | None = None,
        sources: Sequence[Any] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """P(yes) of every image, None where there is none to give.

        Args:
            prompts: Texts, or conversations, whose last text by the user counts.
            completions: The images, where ``images`` are not given; or, with ``draws``, texts to draw.
            images: PIL images, paths or uint8 [H, W, 3]; or a list of one for each prompt.
            sources: For edits, the images before.
            columns: What else a trainer passes; not looked at.

        Raises:
            UserError: if prompts and images are not as many, or an image is none.
        """
        drawn: Sequence[Any] | None = images if images is not None else completions
        if drawn is None:
            raise UserError("there are no images: pass images (or completions that are images)")
        if images is None and any(_is_text(completion) for completion in drawn):
            return self._of_texts(list(map(_text, prompts)), [_text(completion, "assistant") for completion in drawn])
        before = list(sources) if sources is not None else [None] * len(drawn)
        if not len(prompts) == len(drawn) == len(before):
            raise UserError(f"{len(prompts)} prompts, {len(drawn)} images and {len(before)} sources: give as many")
        items = [
            (Task(_text(prompt), None if source is None else to_pixels(source)), to_pixels(_only(image)))
            for prompt, image, source in zip(prompts, drawn, before, strict=True)
        ]
        return [None if isinstance(score, Abstained) else score for score in self.score(items)]

    def _of_texts(self, prompts: list[str], texts: list[str]) -> list[float | None]:
        if self.draws is None:
            raise UserError(
                "the completions are texts: pass images, or let the model draw them: draws=Settings(rounds=1)"
            )
        if len(prompts) != len(texts):
            raise UserError(f"{len(prompts)} prompts and {len(texts)} texts: give as many")
        fit = [index for index, text in enumerate(texts) if _refusal(Task(text)) is None]
        chains = introspect(self.model, [Task(texts[i]) for i in fit], self.draws, max_batch=self.batch_size)
        items = [(Task(prompts[index]), chain.pixels) for index, chain in zip(fit, chains, strict=True)]
        found = dict(zip(fit, self.score(items), strict=True))
        scores = [found.get(index) for index in range(len(texts))]  # an empty text cannot be drawn, and has no score
        return [None if isinstance(score, Abstained) else score for score in scores]

    def score(self, items: Sequence[Item]) -> list[Score]:
        refusals = [_refusal(task) for task, _ in items]
        scores: list[Score] = [refusal or Abstained("not judged") for refusal in refusals]
        fit = [index for index, refusal in enumerate(refusals) if refusal is None]
        for start in range(0, len(fit), self.batch_size):
            batch = fit[start : start + self.batch_size]
            for index, score in zip(batch, self._judge([items[index] for index in batch]), strict=True):
                scores[index] = score
        return scores

    def explain(self, items: Sequence[Item]) -> list[str | Abstained]:
        """The verdict on each image, Yes or No with its reason."""
        said: list[str | Abstained] = []
        for item in items:
            refusal = _refusal(item[0])
            said.append(refusal or judge(self.model, [item[1]], [item[0]], Settings())[0].text)
        return said

    def _judge(self, items: list[Item]) -> list[Score]:
        tasks, images = zip(*items, strict=True)
        verdicts = judge(self.model, images, tasks, WORD_ONLY)
        return [checked(verdict.p_yes) for verdict in verdicts]


def _is_text(completion: Any) -> bool:
    """A text or a conversation, not an image or a path; TRL's completions are the one or the other."""
    if isinstance(completion, str):
        return not Path(completion).suffix or " " in completion
    return isinstance(completion, list) and bool(completion) and isinstance(completion[0], dict)


def _text(prompt: Any, role: str = "user") -> str:
    """The text of a prompt; of a conversation what the user, or the model, said last."""
    if isinstance(prompt, str):
        return prompt
    said = [message.get("content") for message in prompt if isinstance(message, dict) and message.get("role") == role]
    content = said[-1] if said else None
    if isinstance(content, list):
        content = " ".join(str(part["text"]) for part in content if isinstance(part, dict) and part.get("text"))
    if not isinstance(content, str):
        raise UserError(f"a prompt must be a text or a conversation, not {prompt!s:.60}")
    return content


def _only(image: Any) -> Any:
    """TRL's rows hold a list of images."""
    return image[0] if isinstance(image, list | tuple) and len(image) == 1 else image


def _refusal(task: Task) -> Abstained | None:
    try:
        clean(task.prompt)
    except UserError as error:
        return Abstained(f"not a prompt: {error}")
    return None
