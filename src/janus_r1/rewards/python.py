"""A reward of the user's own: a Python function in TRL's convention.

It gets keyword arguments: ``prompts``, a list of texts; ``images``, a list of PIL images; ``sources``, the images
before an edit, or None; every further column of the tasks, as a list; and, where it takes it, ``completions``, which
is ``images`` under TRL's name. It answers with a list of numbers in [0, 1], None where it has nothing to say; in place
of a number may stand one for each claim, ``{"there is a ring": 1.0, "it is red": 0.2}``, whose mean counts, and which
the log tells. It may be ``async``, and may take fewer arguments::

    def score(prompts, images, **kwargs):
        return [float(image.size[0] > 0) for image in images]

The file is the user's own and named by the user's own recipe: it is run, with all that Python can do.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from PIL import Image

from janus_r1.environment import own_module
from janus_r1.errors import UserError, first_line
from janus_r1.rewards.score import Abstained, Claimed, Item, Score, checked

Function = Callable[..., Any]


def load_function(path: str) -> Function:
    """``my_rewards.py:score`` (a file) or ``package.module:score`` (installed).

    Raises:
        UserError: if there is no such file, module or function, or it fails when it is imported.
    """
    module_name, colon, name = path.rpartition(":")
    if not colon or not module_name or not name.isidentifier():
        raise UserError(f"{path!r} names no function: write my_rewards.py:score or package.module:score")
    module = own_module(module_name)
    function = getattr(module, name, None)
    if function is None:
        defined = ", ".join(sorted(key for key, value in vars(module).items() if inspect.isfunction(value))) or "none"
        raise UserError(f"{module_name} has no function {name!r}; it has {defined}")
    if not callable(function):
        raise UserError(f"{path} is no function")
    return function  # type: ignore[no-any-return]


class PythonReward:
    """Calls ``function`` with a batch; what it does not answer abstains, with the cause.

    A function that raises makes its whole batch abstain: one bad image must not end a run of days, and the cause is
    counted and logged. A wrong signature or a wrong number of scores is a mistake in the function and ends the run.

    Raises:
        UserError: from :meth:`score`, for such mistakes.
    """

    def __init__(self, function: Function, name: str = "python") -> None:
        self.function, self.name = function, name
        self._accepted = _accepted(function)

    def score(self, items: Sequence[Item]) -> list[Score]:
        if not items:
            return []
        arguments = self._arguments(items)
        try:
            answer = self.function(**arguments)
            if inspect.isawaitable(answer):
                answer = _run(_awaited(answer))
        except UserError:
            raise
        except Exception as error:  # the user's own code may raise anything
            return [Abstained(f"{type(error).__name__}: {first_line(error)}")] * len(items)
        return self._scores(answer, len(items))

    def _arguments(self, items: Sequence[Item]) -> dict[str, Any]:
        tasks = [task for task, _ in items]
        images = [Image.fromarray(image) for _, image in items]
        edits = any(task.source is not None for task in tasks)
        sources = [None if task.source is None else Image.fromarray(task.source) for task in tasks]
        columns = {name for task in tasks for name in task.columns}
        arguments: dict[str, Any] = {name: [task.columns.get(name) for task in tasks] for name in columns}
        arguments |= {"prompts": [task.prompt for task in tasks], "images": images, "completions": images}
        arguments["sources"] = sources if edits else None
        if self._accepted is None:
            return arguments
        return {name: value for name, value in arguments.items() if name in self._accepted}

    def _scores(self, answer: Any, count: int) -> list[Score]:
        try:
            values = list(answer)
        except TypeError:
            raise UserError(
                f"the reward {self.name} answered {answer!r:.60}: it must return a list of numbers"
            ) from None
        if len(values) != count:
            raise UserError(f"the reward {self.name} gave {len(values)} scores for {count} images")
        return [_score(value) for value in values]


def _accepted(function: Function) -> set[str] | None:
    """The arguments that a function takes; None: all of them.

    Raises:
        UserError: if it needs one that nobody gives it, or takes neither prompts nor images.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if not names & {"images", "completions"}:
        listed = ", ".join(sorted(names)) or "nothing"
        raise UserError(f"the reward function takes {listed}: it needs images (and prompts, and **kwargs for the rest)")
    return names


def _score(value: Any) -> Score:
    if value is None:
        return Abstained("none given")
    if isinstance(value, Mapping):
        return _claimed(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return Abstained(f"not a number: {value!r:.40}")
    return Abstained("not a number: NaN") if math.isnan(number) else checked(number)


def _claimed(claims: Mapping[Any, Any]) -> Score:
    """The mean of claims that are all scored."""
    scores = {str(text): _score(score) for text, score in claims.items()}
    given = {text: score for text, score in scores.items() if not isinstance(score, Abstained)}
    if not given or len(given) < len(scores):
        causes = [score for score in scores.values() if isinstance(score, Abstained)]
        return causes[0] if causes else Abstained("none given")
    return Claimed(sum(given.values()) / len(given), given.items())


async def _awaited(answer: Any) -> Any:
    return await answer


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """In an event loop of its own, in a thread of its own where one runs already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome["answer"] = asyncio.run(coroutine)
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["answer"]
