"""Worlds: where tasks come from and how truth is known. General code gets one by its name, never by import.

A world of your own is a Python file with a subclass of :class:`World`, given by its path, or ``module:name``. It needs
:meth:`World.stream` to be trained in and :meth:`World.check` to reward or to measure; what else it can do, more stages
can use.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np

from janus_r1.chain import Chain, Task
from janus_r1.environment import own_module
from janus_r1.errors import UserError
from janus_r1.worlds import DEFAULT as DEFAULT

FAIL_CEILING = 0.49  # what an image may score at most that is wrong in anything

Kind = Literal["draw", "edit"]


@dataclass(frozen=True, eq=False)
class WorldTask(Task):
    """A task as a world poses it; a plain :class:`Task` is one of which less is known."""

    family: str = "all"
    """Figures are reported for each family, and every family counts the same."""
    target: np.ndarray | None = None
    """Of an edit: a right result, uint8 [H, W, 3]."""
    settled: bool = False
    """Of an edit: whether every right result looks like ``target``, no place or size being left open."""
    steps: int = 1
    """Of an edit: how many changes it asks for."""
    retold: str = ""
    """Of an edit: a prompt that draws the target from scratch."""

    @property
    def kind(self) -> str:
        return self.family


# ------------------------------------------------------------------------------------------- truth


class Claim(NamedTuple):
    """One fact that a task asks for."""

    holds: bool
    reason: str = ""
    """Why it does not hold, in words that a model can be taught: "the ring is red, not blue"."""


@dataclass(frozen=True)
class Check:
    """Which claims of a task hold of an image.

    For an edit ``claims`` are those of following the instruction; those of leaving the rest alone are ``preserving``'s.
    """

    claims: tuple[Claim, ...]
    praise: str = "the image matches the prompt"
    """What is said where everything holds."""
    preserving: Check | None = None

    @property
    def following(self) -> Check:
        """The claims of the instruction alone."""
        return replace(self, praise="the instruction is fulfilled", preserving=None)

    @property
    def correct(self) -> bool:
        return not self.failed

    @property
    def facts(self) -> int:
        return len(self.claims)

    @property
    def failed(self) -> tuple[str, ...]:
        """The reasons of all claims that do not hold; of an edit, those of the instruction first."""
        own = tuple(claim.reason for claim in self.claims if not claim.holds)
        return own + self.preserving.failed if self.preserving else own

    @property
    def score(self) -> float:
        """1 where all claims hold, else 0.49 x the share of those that do; for an edit, of the instruction's alone."""
        holding = sum(claim.holds for claim in self.claims)
        return 1.0 if holding == len(self.claims) else FAIL_CEILING * (holding / len(self.claims))

    @property
    def reason(self) -> str:
        """The first claim that fails, or the praise."""
        return next(iter(self.failed), self.praise)

    @property
    def verdict(self) -> str:
        """As a model is to say it: "Yes, ..." or "No, ..."."""
        return f"{'Yes' if self.correct else 'No'}, {self.reason}."


def claims(facts: int, failed: Sequence[str]) -> tuple[Claim, ...]:
    """``facts`` claims of which those named in ``failed`` do not hold; more where more than ``facts`` are named."""
    return (*(Claim(False, reason) for reason in failed), *[Claim(True)] * (facts - len(failed)))


class CannotCheck(ValueError):
    """Nothing can be said of an image: the task is not in the world's language, or the image is none of its images."""


# ----------------------------------------------------------------------------------- what is learnt


@dataclass(frozen=True, eq=False)
class Lesson:
    """An edit with results, uint8 [H, W, 3], to be judged, rejected, or compared with the source."""

    task: WorldTask
    results: tuple[np.ndarray, ...]
    """The right one first, then wrong ones; of a comparison one that is either."""
    statements: tuple[tuple[str, bool], ...] = ()
    """Of a comparison: what is said of the result, and whether it is true."""


@dataclass(frozen=True, eq=False)
class Question:
    """A question about an image with its one answer."""

    image: np.ndarray
    question: str
    answer: str


@dataclass(frozen=True, eq=False)
class Checklist:
    """A question about an image with items that are each true or not."""

    image: np.ndarray
    question: str
    items: Sequence[tuple[str, bool]]


@dataclass(frozen=True, eq=False)
class Judgement:
    """An image that a prompt is judged by, and what is to be said of it."""

    image: np.ndarray
    prompt: str
    verdict: str


Sight = Question | Checklist | Judgement

Observations = Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]
"""Values by group and name, each with the index of the chain that it was seen in."""


# ------------------------------------------------------------------------------------------- worlds


class World:
    """Subclass it and write :meth:`stream` and :meth:`check`; the other methods say what a world may do besides.

    Everything random comes from the generator passed in, so that a step can be repeated. What a world cannot do is a
    :class:`UserError` where a recipe asks for it.
    """

    name: str = "unnamed"
    image_size: int | None = None
    """Side of its images in pixels, where it has but one."""

    def stream(self, rng: random.Random, kind: Kind = "draw", families: Sequence[str] = ()) -> Iterator[WorldTask]:
        """Endless training tasks, none of which is in a split. Of ``families`` alone where some are named, one that is
        named twice twice as often."""
        raise self._cannot("has no training tasks")

    def check(self, task: Task, image: np.ndarray) -> Check:
        """What holds of ``image``, uint8 [H, W, 3], as a result of ``task``, its own or any other.

        Raises:
            CannotCheck: where that cannot be told; the message is a cause, or a cause, a colon and details.
        """
        raise self._cannot("cannot check images")

    def shares(self, kind: Kind = "draw") -> Mapping[str, float]:
        """The families of its training tasks and their shares; empty where it has no tasks of the kind."""
        return {"all": 1.0} if kind == "draw" else {}

    def families(self, kind: Kind = "draw") -> tuple[str, ...]:
        """The names of :meth:`shares`."""
        return tuple(self.shares(kind))

    def splits(self, kind: Kind = "draw") -> tuple[str, ...]:
        """Names of the frozen splits that it is measured on."""
        return ()

    def tasks(self, split: str, kind: Kind = "draw") -> Sequence[WorldTask]:
        """The tasks of one of :meth:`splits`."""
        raise self._cannot(f"has no split {split!r} to {kind}")

    # What only some worlds can.

    def render(self, tasks: Sequence[WorldTask], rng: random.Random) -> list[np.ndarray]:
        """A right image of every task to draw."""
        raise self._cannot("cannot render")

    def spoil(self, tasks: Sequence[WorldTask], rng: random.Random) -> list[np.ndarray]:
        """Of every task to draw an image that is wrong in one fact."""
        raise self._cannot("cannot make wrong images")

    def lessons(self, count: int, wrong: int, rng: random.Random, families: Sequence[str] = ()) -> list[Lesson]:
        """Edits whose results can be checked, each with up to ``wrong`` different wrong results."""
        raise self._cannot("has no edits with wrong results: judge and redraw none")

    def comparisons(self, count: int, said: int, rng: random.Random, families: Sequence[str] = ()) -> list[Lesson]:
        """Edits with one result, half of them right, and ``said`` statements on what it made of the source."""
        raise self._cannot("has no statements on edits: compare none")

    def sights(self, count: int, rng: random.Random, **shares: float) -> list[Sight]:
        """What to say about images; ``shares`` are the fields of :class:`janus_r1.data.seeing.SeeingRecipe`."""
        raise self._cannot("has nothing to ask about images: set the share of seeing to 0")

    def pictures(self, count: int, seed: int, all_combinations: bool = False) -> list[tuple[WorldTask, np.ndarray]]:
        """Random images, each with a task of which every claim about it is true; with ``all_combinations`` also such
        as training never shows."""
        raise self._cannot("has no pictures of its own")

    def nearest(self, task: WorldTask, image: np.ndarray, rng: random.Random) -> np.ndarray | None:
        """The image with the least change that makes it right; None where it is to be drawn anew."""
        raise self._cannot("cannot mend images")

    def marks(self, task: Task, image: np.ndarray, listing: str) -> Sequence[bool | None]:
        """Format repair: for every mark of a list of ``image``, in order, whether it should be Yes; None for one that
        nobody can tell, as of a thing that is not there. Empty where the world knows nothing of marks."""
        return ()

    def mends(self, task: Task, image: np.ndarray, instruction: str) -> bool:
        """Format repair: whether less would fail of ``image`` if exactly what is instructed were changed."""
        return False

    def observations(self, tasks: Sequence[WorldTask], chains: Sequence[Chain]) -> Observations:
        """What is to be reported of chains beside right and wrong, such as whether their reasons are true."""
        return {}

    def _cannot(self, what: str) -> UserError:
        return UserError(f"the world {self.name} {what}")


# --------------------------------------------------------------------------------------- by its name


@cache
def world(name: str) -> World:
    """The world of this name: ``shapes``, a Python file's path, or ``module:name``.

    A file's or a module's code is run, so it must be yours.

    Raises:
        UserError: if there is none, or several.
    """
    if name.endswith(".py"):
        return _only_world(own_module(name), name)
    module, _, attribute = name.partition(":")
    if attribute:
        return _made(getattr(own_module(module), attribute, None), name)
    if not name.isidentifier() or importlib.util.find_spec(f"{__package__}.{name}") is None or name == "base":
        raise UserError(f"no world {name!r}: name shapes, a Python file (my_world.py), or module:name")
    return _only_world(importlib.import_module(f"{__package__}.{name}.world"), name)


def _only_world(module: Any, name: str) -> World:
    own = [item for item in vars(module).values() if isinstance(item, type) and issubclass(item, World)]
    own = [item for item in own if item.__module__ == module.__name__]
    if len(own) != 1:
        raise UserError(f"{name} must have one subclass of janus_r1.worlds.base.World, not {len(own)}")
    return _made(own[0], name)


def _made(found: Any, name: str) -> World:
    made = found() if isinstance(found, type) else found
    if not isinstance(made, World):
        raise UserError(f"{name} is no janus_r1.worlds.base.World")
    return made
