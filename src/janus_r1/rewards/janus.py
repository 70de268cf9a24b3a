"""A Janus checkpoint as judge: p_yes of its own verdict (the paper's Figure 5a trains with such rewards)."""

from __future__ import annotations

from collections.abc import Sequence

from janus_r1.chain import Settings
from janus_r1.errors import UserError
from janus_r1.images import square
from janus_r1.introspect import judge
from janus_r1.layout import clean
from janus_r1.model.janus import Janus
from janus_r1.rewards.score import Abstained, Scorable, Score, checked

WORD_ONLY = Settings(max_reason_tokens=1)  # p_yes is read at the first token; a reason would only cost


class JanusReward:
    """Judges ``batch_size`` images at once, resized to the model's size; edits with a look at their source."""

    def __init__(self, model: Janus, batch_size: int = 64, name: str = "janus") -> None:
        self.model, self.batch_size, self.name = model, batch_size, name

    def score(self, items: Sequence[Scorable]) -> list[Score]:
        refusals = [_refusal(item) for item in items]
        scores: list[Score] = [refusal or Abstained("not judged") for refusal in refusals]
        fit = [index for index, refusal in enumerate(refusals) if refusal is None]
        for start in range(0, len(fit), self.batch_size):
            batch = fit[start : start + self.batch_size]
            for index, score in zip(batch, self._judge([items[index] for index in batch]), strict=True):
                scores[index] = score
        return scores

    def _judge(self, items: list[Scorable]) -> list[Score]:
        size = self.model.image_size
        images = [square(item.image, size) for item in items]
        edited = iter(self.model.sources([square(item.source, size) for item in items if item.source is not None]))
        sources = [None if item.source is None else next(edited) for item in items]
        verdicts = judge(self.model, images, [item.prompt for item in items], WORD_ONLY, sources=sources)
        return [checked(verdict.p_yes) for verdict in verdicts]


def _refusal(item: Scorable) -> Abstained | None:
    try:
        clean(item.prompt)
    except UserError as error:
        return Abstained(f"not a prompt: {error}")
    return None
