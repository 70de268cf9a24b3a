"""What a model sees: questions and checklists on a world's fresh pictures, whose answers are known; and what its image
tokenizer keeps of such pictures.

Asked before and after SFT and reinforcement learning, it tells whether training to draw hurts seeing. Pictures and
questions follow from a seed that no training uses. An answer is right if it is the true one, letter for letter but
for case, blanks and a final dot; an item of a checklist is right if P(Yes) is on the true side of a half. Intervals
are over pictures. Where lmms-eval is installed, its tasks can be asked instead.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from janus_r1.errors import UserError, first_line, require
from janus_r1.eval.statistics import figure, judge_figures, mean_of
from janus_r1.fields import Checked, Count, Positive
from janus_r1.worlds import DEFAULT
from janus_r1.worlds import base as worlds
from janus_r1.worlds.base import Checklist, Question

if TYPE_CHECKING:
    from janus_r1.api import JanusR1
    from janus_r1.model.janus import Janus

SEED = "understanding"  # trainings seed their generators with numbers
INSTALL = "pip install lmms-eval 'filelock<4'"  # lmms-eval 0.7.3 reaches into a module that filelock 4 has not


@dataclass(frozen=True)
class UnderstandingOptions(Checked):
    """What is asked."""

    world: str = DEFAULT
    """Its name, a Python file, or module:name."""
    questions: Count = 1000
    """With one answer each."""
    descriptions: Count = 250
    """Pictures to describe."""
    checklists: Count = 250
    """Lists of words that are there or not."""
    seed: Count = 0
    """Of pictures and questions."""
    max_batch: Positive = 64
    """Pictures at once."""

    def __post_init__(self) -> None:
        """Raises UserError for values that cannot be meant."""
        super().__post_init__()
        asked = self.questions + self.descriptions + self.checklists
        require(asked > 0, "ask at least one thing: questions, descriptions and checklists are all 0")


def evaluate_understanding(model: Janus, options: UnderstandingOptions) -> dict[str, Any]:
    """Shares of right answers: overall (the mean of the kinds of question), by kind, and of checklists' items.

    Raises:
        UserError: if the world has nothing to ask.
    """
    from janus_r1.ask import ask  # torch only where it is needed

    asked = _sights(options, options.questions, describe=0.0) + _sights(options, options.descriptions, describe=1.0)
    questions = [one for one in asked if isinstance(one, Question)]
    listed = _sights(options, options.checklists, checklist=1.0)
    lists = [one for one in listed if isinstance(one, Checklist)]
    images = [one.image for one in questions]
    answers = ask(model, images, [one.question for one in questions], max_batch=options.max_batch)
    right = np.array([plain(a) == plain(q.answer) for a, q in zip(answers, questions, strict=True)], float)
    kinds = np.array([kind(one.question) for one in questions])
    by_kind = {
        name: figure(right[kinds == name], np.flatnonzero(kinds == name)) for name in dict.fromkeys(kinds.tolist())
    }
    wrong = [
        {"question": q.question, "answer": q.answer, "said": a}
        for q, a, fits in zip(questions, answers, right, strict=True)
        if not fits
    ]
    return {
        "overall": mean_of(by_kind.values()) if by_kind else None,
        "kinds": by_kind,
        "checklists": _checked(model, lists, options.max_batch) if lists else None,
        "wrong": wrong[:10],
    }


def kind(question: str) -> str:
    """The first two words tell one kind of question from another."""
    return " ".join(question.split()[:2]).rstrip("?:.")


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().rstrip(".").casefold()


def _sights(options: UnderstandingOptions, count: int, **shares: float) -> list[Any]:
    given = {"judge": 0.0, "checklist": 0.0, "easy": 0.5, "describe": 0.0, **shares}
    rng = random.Random(f"{SEED} {options.seed} {sorted(given.items())}")
    return worlds.world(options.world).sights(count, rng, **given) if count else []


def _checked(model: Janus, lists: list[Checklist], max_batch: int) -> dict[str, Any]:
    from janus_r1.ask import check

    items = [[text for text, _ in one.items] for one in lists]
    found = check(model, [one.image for one in lists], [one.question for one in lists], items, max_batch)
    p_yes = np.concatenate(found)
    truth = np.array([float(true) for one in lists for _, true in one.items])
    pictures = np.repeat(np.arange(len(lists)), [len(own) for own in items])
    return judge_figures((p_yes >= 0.5).astype(float), truth, p_yes, pictures)


def evaluate_tasks(
    load: Callable[[], JanusR1],
    tasks: Sequence[str],
    limit: int | None = None,
    max_batch: int = 8,
    folder: str | None = None,
) -> dict[str, Any]:
    """Figures by task, as the harness names them: ``{"tasks": {task: {figure: value}}, "harness": its version}``.

    ``folder`` holds further tasks, in the harness's own YAML; the Python that they name is run.

    Raises:
        UserError: if the harness is not installed, or knows no such task, or cannot have its data.
    """
    if find_spec("lmms_eval") is None:
        raise UserError(f"--tasks are lmms-eval's, which is not installed: {INSTALL}")
    require(folder is None or Path(folder).is_dir(), f"no such folder of tasks: {folder}")
    from importlib.metadata import version

    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from janus_r1.eval.lmms import Lmms

    manager = TaskManager(include_path=folder)
    if unknown := [name for name in tasks if name not in manager.all_tasks]:
        raise UserError(
            f"lmms-eval {version('lmms-eval')} has no task {', '.join(unknown)}: see lmms-eval --tasks list"
        )
    try:
        model = Lmms(load(), batch_size=max_batch)
        found = simple_evaluate(model, tasks=list(tasks), limit=limit, log_samples=False, task_manager=manager)
    except UserError:
        raise
    except ModuleNotFoundError as error:  # what its package leaves out, or has in another version
        raise UserError(f"lmms-eval: {error}: it wants {INSTALL}") from None
    except (OSError, ValueError, NotImplementedError) as error:  # data that cannot be had, a task of another form
        raise UserError(f"lmms-eval: {first_line(error)}") from None
    figures = {
        task: {name: value for name, value in one.items() if isinstance(value, int | float)}
        for task, one in found["results"].items()
    }
    return {"tasks": figures, "harness": f"lmms-eval {version('lmms-eval')}"}


# ----------------------------------------------------------------------------- the image tokenizer


@dataclass(frozen=True)
class TokenizerOptions(Checked):
    """Which pictures are encoded."""

    world: str = DEFAULT
    """Its name, a Python file, or module:name."""
    scenes: Positive = 1000
    """Scenes to encode and decode."""
    seed: Count = 1_000_000
    """Of the scenes: far from training's seeds."""
    batch: Positive = 100
    """Scenes at once."""


def evaluate_tokenizer(model: Janus, options: TokenizerOptions) -> dict[str, Any]:
    """Share of pictures of which every claim survives, with and without combinations that training never shows;
    ids used; error.

    ``error`` is the root mean square over all pixels, in grey levels of 255.
    """
    return {
        "seen_combinations": _survival(model, options, all_combinations=False),
        "all_combinations": _survival(model, options, all_combinations=True),
    }


def _survival(model: Janus, options: TokenizerOptions, all_combinations: bool) -> dict[str, Any]:
    from janus_r1.model.janus import from_uint8  # torch only where it is needed

    world = worlds.world(options.world)
    pictures = world.pictures(options.scenes, options.seed, all_combinations)
    kept, squares, used = [], [], set()
    for start in range(0, len(pictures), options.batch):
        tasks, shown = zip(*pictures[start : start + options.batch], strict=True)
        images = np.stack(shown)
        ids = model.encode_image(from_uint8(images).to(model.device))
        decoded = model.decode_image(ids)
        used |= set(ids.flatten().tolist())
        squares.append(np.square(decoded.astype(float) - images).mean())
        kept += [world.check(task, image).correct for task, image in zip(tasks, decoded, strict=True)]
    values = np.array(kept, dtype=float)
    return {
        "kept": figure(values, np.arange(len(values))),
        "ids_used": len(used),
        "error": float(np.sqrt(np.mean(squares))),
    }
