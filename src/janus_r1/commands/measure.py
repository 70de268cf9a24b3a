"""What every ``janus-r1 eval`` does around its benchmark: check, measure, write, show."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from janus_r1.chain import Chain, Settings, Task
from janus_r1.commands.model import ModelOptions
from janus_r1.commands.output import ResultFile, check_result_file
from janus_r1.commands.terminal import answers_only, print_json, say
from janus_r1.files import locked, write_json

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
    from janus_r1.environment import environment
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
