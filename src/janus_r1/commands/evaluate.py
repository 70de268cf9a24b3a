"""``janus-r1 eval``: one function a benchmark, and what all of them do around it: check, measure, write, show."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from janus_r1.chain import EDIT_TEMPERATURE, Chain, Settings, Task
from janus_r1.commands.model import (
    JUDGE,
    Batch,
    ModelOptions,
    load_model,
    memory_errors,
    plan_batch,
)
from janus_r1.commands.output import ResultFile, answers_only, check_result_file, print_json, progress, say
from janus_r1.environment import environment
from janus_r1.eval.tables import show
from janus_r1.eval.understanding import (
    TokenizerOptions,
    UnderstandingOptions,
    evaluate_tasks,
    evaluate_tokenizer,
    evaluate_understanding,
)
from janus_r1.eval.world import EvalOptions, WorldOptions, evaluate_world
from janus_r1.fields import Positive, Window, width
from janus_r1.files import locked, write_json
from janus_r1.worlds.base import Kind

if TYPE_CHECKING:
    from janus_r1.api import JanusR1

Result = dict[str, Any]


def measure(
    evaluate: Callable[[], Result], to: ResultFile, show: Callable[[Result, Console], None] | None = None
) -> None:
    """Write the result as ``to`` says; print it as JSON, else as ``show`` does (a benchmark's tables by default).

    Raises:
        UserError: if the file exists and may not be replaced, before anything is measured.
    """
    if to.out:
        check_result_file(to.out, to.overwrite)
    with answers_only(to.json), locked(to.out) if to.out else nullcontext():
        if to.out:
            check_result_file(to.out, to.overwrite)  # another process may just have written it
        result = evaluate()
        if to.out:
            write_json(to.out, result)
    if to.json:
        print_json(result)
        return
    from janus_r1.eval.report import print_report

    (show or print_report)(result, Console())
    if to.out:
        say(f"wrote {to.out}")


def about(using: ModelOptions) -> dict[str, Any]:
    """What a record says of the machine and of the model's training."""
    from janus_r1.train.checkpoint import training

    return {"environment": environment(), "training": training(using.model)}


def sampler(
    model: JanusR1, max_batch: int, update: Callable[[int, int], None], window: int | None = None
) -> Callable[[list[Task], Settings], list[Chain]]:
    """The model as a benchmark calls it: a chain a task; all of them are prompts, or all are edits."""

    def sample(tasks: list[Task], settings: Settings) -> list[Chain]:
        prompts, sources = [task.prompt for task in tasks], [task.source for task in tasks if task.source is not None]
        common: dict[str, Any] = {"max_batch": max_batch, "window": window, **asdict(settings)}
        common["on_progress"] = lambda done: update(done, len(tasks))
        return model.edit(sources, prompts, **common) if sources else model.generate(prompts, **common)

    return sample


MOST = 1024  # chains at once, however much memory there is
DRAWING = Settings()
EDITING = Settings(temperature=EDIT_TEMPERATURE)
ANY_MODEL = ModelOptions()
A_JUDGE = ModelOptions(model=JUDGE)
A_FILE = ResultFile()
PROMPTS = WorldOptions(rounds=(1, 2, 3, 4), baselines=False, variety=16)
EDITS = WorldOptions(rounds=(1,), samples=1, controls=False)
SIGHT = UnderstandingOptions()
SCENES = TokenizerOptions()


def world(
    *,
    asked: WorldOptions = PROMPTS,
    settings: Settings = DRAWING,
    using: ModelOptions = ANY_MODEL,
    max_batch: Batch = 64,
    window: Window = "auto",
    to: ResultFile = A_FILE,
) -> None:
    """Measure a model on prompts of a world.

    Examples:
        janus-r1 eval world --limit 50 --no-controls
        janus-r1 eval world --model runs/sft/model --split dense --rounds 1,3 --out results/dense.json
        janus-r1 eval world --split held_out --json > held_out.json
    """
    measure(lambda: _evaluate(asked, "draw", settings, using, max_batch, window), to)


def edit(
    *,
    asked: WorldOptions = EDITS,
    settings: Settings = EDITING,
    using: ModelOptions = ANY_MODEL,
    max_batch: Batch = 64,
    window: Window = "auto",
    to: ResultFile = A_FILE,
) -> None:
    """Measure how a model edits pictures of a world.

    Examples:
        janus-r1 eval edit --model runs/sft/model --limit 60
        janus-r1 eval edit --model runs/rl/best --split held_out --rounds 1,3 --out results/edit.json
        janus-r1 eval edit --no-baselines --json > edit.json
    """
    measure(lambda: _evaluate(asked, "edit", settings, using, max_batch, window), to)


def _evaluate(
    asked: WorldOptions, kind: Kind, settings: Settings, using: ModelOptions, max_batch: int | str, window: int | str
) -> Result:
    from janus_r1.eval.protocol import choose_tasks
    from janus_r1.worlds import base as worlds

    choose_tasks(worlds.world(asked.world), asked.split, asked.limit, kind)  # what cannot be had is told first
    wish = replace(settings, rounds=max(asked.rounds))
    batch = plan_batch(using, max_batch, [], MOST, wish, edit=kind == "edit")
    model = load_model(using)
    options = EvalOptions(**asdict(asked), kind=kind, settings=wish, model=using.model, **about(using))
    with progress("sampling") as update, memory_errors(batch, using.device):
        return evaluate_world(sampler(model, batch, update, width(window)), options, reconstruct=model.reconstruct)


def understanding(
    *,
    asked: UnderstandingOptions = SIGHT,
    tasks: str | None = None,
    task_folder: str | None = None,
    limit: Positive | None = None,
    using: ModelOptions = ANY_MODEL,
    to: ResultFile = A_FILE,
) -> None:
    """Measure what a model sees, such as before and after it learnt to draw.

    By default it asks questions about fresh pictures of a world. With --tasks it is lmms-eval that asks, which is a
    package of its own (pip install lmms-eval 'filelock<4') and fetches its tasks' data from the Hub.

    Args:
        tasks: Tasks of lmms-eval instead, such as mme,pope
        task_folder: With tasks of your own in lmms-eval's YAML; the Python that they name is run
        limit: Documents of each task at most

    Examples:
        janus-r1 eval understanding --model tiny-base
        janus-r1 eval understanding --model runs/rl/model --out results/understanding.json
        janus-r1 eval understanding --model models/janus-pro-r1-7b --device cuda --tasks mme,pope
        janus-r1 eval understanding --model runs/rl/model --tasks my_task --task-folder my_tasks
    """

    def evaluate() -> Result:
        run = {"benchmark": "understanding", "model": using.model, "environment": environment()}
        if tasks is not None:
            names = [name.strip() for name in tasks.split(",") if name.strip()]
            found = evaluate_tasks(lambda: load_model(using), names, limit, asked.max_batch, task_folder)
            return {"run": {**run, "tasks": names, "limit": limit}, **found}
        found = evaluate_understanding(load_model(using).model, asked)
        return {"run": {**run, **asdict(asked)}, **found}

    measure(evaluate, to, _show_understanding)


def _show_understanding(result: Result, console: Console) -> None:
    table = Table("", "right [95 %]", title=f"what {result['run']['model']} sees")
    for name, value in result.get("kinds", {}).items():
        table.add_row(name, show(value))
    if "overall" in result:
        table.add_row("overall (mean of kinds)", show(result["overall"]))
    for name in ("accuracy", "balanced_accuracy", "auroc", "ece"):
        if result.get("checklists"):
            table.add_row(f"checklists: {name.replace('_', ' ')}", show(result["checklists"][name]))
    for task, figures in result.get("tasks", {}).items():
        for name, value in figures.items():
            table.add_row(f"{task}: {name}", f"{value:.4g}")
    console.print(table)


def tokenizer(*, asked: TokenizerOptions = SCENES, using: ModelOptions = ANY_MODEL, json: bool = False) -> None:
    """Measure what a model's image tokenizer keeps of fresh scenes.

    Examples:
        janus-r1 eval tokenizer --model tiny-base
        janus-r1 eval tokenizer --scenes 200 --json
    """
    with answers_only(json):
        loaded = load_model(using)
        result = evaluate_tokenizer(loaded.model, asked)
    if json:
        print_json(result)
        return
    table = Table("scenes", "kept", "ids used", "error (grey levels)", title=f"image tokenizer of {using.model}")
    for name, values in result.items():
        kept = show(values["kept"])
        table.add_row(name.replace("_", " "), kept, str(values["ids_used"]), f"{values['error']:.2f}")
    Console().print(table)
