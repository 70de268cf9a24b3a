"""What is scored, what a scorer answers (a number in [0, 1], or an abstention with its cause), what a recipe says of
a scorer, and several as one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

import numpy as np

from janus_r1.chain import Task, check_pixels
from janus_r1.errors import UserError
from janus_r1.fields import Above0, AtLeast0, Checked, Count, Positive, Range
from janus_r1.worlds import DEFAULT

Item = tuple[Task, np.ndarray]
"""A task and an image that should fulfil it, uint8 [H, W, 3]."""


def shown(item: Item) -> tuple[np.ndarray, ...]:
    """What a judge must look at: the source first, where there is one.

    Raises:
        UserError: for pixels of another type or shape.
    """
    task, image = item
    check_pixels(image)
    return (image,) if task.source is None else (task.source, image)


@dataclass(frozen=True)
class Abstained:
    """No score. ``why`` is a cause, or a cause, a colon and details: "HTTP 401: invalid key"."""

    why: str

    @property
    def cause(self) -> str:
        """The part that is counted."""
        return self.why.partition(":")[0]


Claims = tuple[tuple[str, float], ...]
"""Of what a task asks for, each claim with its own score in [0, 1]."""


class Claimed(float):
    """A score that tells what it is made of, for the log and for credit; it counts like any other."""

    claims: Claims

    def __new__(cls, value: float, claims: Iterable[tuple[str, float]]) -> Claimed:
        made = super().__new__(cls, value)
        made.claims = tuple(claims)
        return made


def claims_of(score: float) -> Claims:
    """Nothing where the scorer tells none."""
    return score.claims if isinstance(score, Claimed) else ()


def weakest_claim(score: float) -> float:
    """How far all holds: the least score of a claim, or ``score`` where the scorer tells none."""
    return min((of_claim for _, of_claim in claims_of(score)), default=score)


Score = float | Abstained
EditWeights = tuple[float, float]
EDIT_WEIGHTS: EditWeights = (0.5, 1.0)  # of following the instruction and of preserving the rest: the paper's


class Reward(Protocol):
    """Scores images; answers in the order of the items, one each, and never raises for a single item."""

    name: str

    def score(self, items: Sequence[Item]) -> list[Score]: ...


def checked(value: float) -> Score:
    """``value`` if it is a score; NaN or a number outside [0, 1] is a fault, not a low reward."""
    if math.isfinite(value) and 0.0 <= value <= 1.0:
        return value if isinstance(value, Claimed) else float(value)
    return Abstained(f"not a score: {value}")


# ----------------------------------------------------------------------------------------- in a recipe


@dataclass
class RewardRecipe(Checked):
    """One reward of a recipe's list."""

    kind: Literal["world", "endpoint", "local_vlm", "janus", "python"]
    """world: the exact verifier; endpoint: a model behind an OpenAI-compatible server; local_vlm: one
    in this process; janus: a Janus checkpoint; python: a function of yours."""
    weight: Above0 = 1.0
    """Share in the weighted mean."""
    name: str | None = None
    """In logs and counts; the kind by default, numbered where it occurs twice."""
    model: str | None = None
    """endpoint: the name the server knows; local_vlm: a folder or Hub id; janus: also an embedded model."""
    world: str = DEFAULT
    """world: shapes, a Python file with a world of your own, or module:name."""
    path: str | None = None
    """python: ``my_rewards.py:score``, or ``package.module:score`` where it is installed; it is run."""
    url: str | None = None
    """endpoint: base address, such as http://localhost:8000/v1; of several replicas with commas between them."""
    api_key_env: str | None = None
    """endpoint: the environment variable that holds the API key; none for servers without one."""
    binary: bool = False
    """world: 1 or 0, instead of partial credit up to 0.49 for pictures that are wrong."""
    decompose_words: Count = 0
    """endpoint: split prompts of at least so many words into atomic questions; 0 never does."""
    follow_weight: AtLeast0 = 0.5
    """world, endpoint, local_vlm: of following the instruction of an edit."""
    preserve_weight: AtLeast0 = 1.0
    """world, endpoint, local_vlm: of leaving the rest of an edited image alone."""
    joint: bool = False
    """world: an edit earns less than 0.49 unless it follows and preserves; a copied source then about 0.35 in place
    of 0.7."""
    min_mass: Annotated[float, Range(ge=0, lt=1)] = 0.1
    """endpoint, local_vlm: abstain where P(yes) + P(no) is less."""
    top_logprobs: Positive = 20
    """endpoint: how many log-probs to ask for; some servers allow fewer."""
    max_tokens: Positive = 1
    """endpoint: of an answer; judges that think first need hundreds."""
    extra_body: dict[str, Any] = field(default_factory=dict)
    """endpoint: what else every question says, such as {chat_template_kwargs: {enable_thinking: false}}."""
    text_fallback: bool = False
    """endpoint: score 1 or 0 by the word where the server gives no log-probs; such answers are counted."""
    concurrency: Positive = 16
    """endpoint: questions asked at once."""
    tries: Positive = 5
    """endpoint: of every question."""
    timeout_s: Above0 = 60.0
    """endpoint: of one try."""
    backoff_s: AtLeast0 = 1.0
    """endpoint: wait after the first failure; doubles, with jitter."""
    batch_s: Above0 = 900.0
    """endpoint: longest time for one batch; what is not answered by then abstains."""
    cache: str | None = None
    """endpoint: a file that keeps answers between runs; memory alone by default."""
    batch_size: Positive = 16
    """local_vlm, janus: images judged at once."""
    dtype: str = "auto"
    """local_vlm, janus: float32, bfloat16 or auto (as stored)."""


# ------------------------------------------------------------------------------------------ several


OnAbstain = Literal["drop", "renormalise"]


class Ensemble:
    """``on_abstain``: ``drop`` abstains on an item when any member does, ``renormalise`` takes the
    weighted mean of the others. Renormalising mixes scales within a group: choose it knowingly.

    ``abstentions`` counts (member, cause) since the beginning.

    Raises:
        UserError: without members, for weights that are not positive, or for two members of one name.
    """

    name = "ensemble"

    def __init__(self, members: Sequence[tuple[Reward, float]], on_abstain: OnAbstain = "drop") -> None:
        self.members, self.on_abstain = list(members), on_abstain
        self.abstentions: Counter[tuple[str, str]] = Counter()
        names = [reward.name for reward, _ in members]
        if not names:
            raise UserError("there is no reward: list at least one under rewards")
        for name, (_, weight) in zip(names, members, strict=True):
            if not (math.isfinite(weight) and weight > 0):
                raise UserError(
                    f"the weight of the reward {name} is {weight}: it must be positive; leave it out instead"
                )
        if len(set(names)) < len(names):
            raise UserError(f"two rewards have one name ({', '.join(names)}): give each a name of its own")
        if on_abstain not in ("drop", "renormalise"):
            raise UserError(f"on_abstain must be drop or renormalise, not {on_abstain!r}")

    def score(self, items: Sequence[Item]) -> list[Score]:
        return self.merge(self.by_member(items))

    def by_member(self, items: Sequence[Item]) -> dict[str, list[Score]]:
        """Every member's scores, checked, with their abstentions counted; for logs, and for :meth:`merge`."""
        columns: dict[str, list[Score]] = {}
        for reward, _ in self.members:
            answers = reward.score(items)
            if len(answers) != len(items):
                raise ValueError(f"{reward.name} gave {len(answers)} scores for {len(items)} items")
            scores = [a if isinstance(a, Abstained) else checked(a) for a in answers]
            self.abstentions.update((reward.name, s.cause) for s in scores if isinstance(s, Abstained))
            columns[reward.name] = scores
        return columns

    def merge(self, columns: dict[str, list[Score]]) -> list[Score]:
        """One score an item out of the columns of :meth:`by_member`."""
        rows = zip(*(columns[reward.name] for reward, _ in self.members), strict=True)
        return [self._merge_row(row) for row in rows]

    def _merge_row(self, row: tuple[Score, ...]) -> Score:
        given = [(s, weight) for s, (_, weight) in zip(row, self.members, strict=True) if not isinstance(s, Abstained)]
        if not given or (self.on_abstain == "drop" and len(given) < len(row)):
            return self._first_abstention(row)
        if len(given) == 1:
            return checked(given[0][0])
        mean = sum(score * weight for score, weight in given) / sum(weight for _, weight in given)
        told = [claim for score, _ in given for claim in claims_of(score)]
        return checked(Claimed(mean, told) if told else mean)

    def _first_abstention(self, row: tuple[Score, ...]) -> Abstained:
        """Says which member it was, unless there is only one."""
        named = zip(row, self.members, strict=True)
        found, reward = next((s, reward) for s, (reward, _) in named if isinstance(s, Abstained))
        return found if len(row) == 1 else Abstained(f"{reward.name}, {found.why}")
