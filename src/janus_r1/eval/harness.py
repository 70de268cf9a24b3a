"""Understanding by lmms-eval, where it is installed: its tasks, asked of a model of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from janus_r1.errors import UserError, first_line

if TYPE_CHECKING:
    from janus_r1.api import JanusR1


def evaluate_tasks(
    load: Callable[[], JanusR1], tasks: Sequence[str], limit: int | None = None, max_batch: int = 8
) -> dict[str, Any]:
    """Figures by task, as the harness names them: ``{"tasks": {task: {figure: value}}, "harness": its version}``.

    Raises:
        UserError: if the harness is not installed, or knows no such task, or cannot have its data.
    """
    if find_spec("lmms_eval") is None:
        raise UserError("--tasks are lmms-eval's, which is not installed: pip install lmms-eval")
    from importlib.metadata import version

    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from janus_r1.eval.lmms import Lmms

    known = set(TaskManager().all_tasks)
    if unknown := [name for name in tasks if name not in known]:
        raise UserError(
            f"lmms-eval {version('lmms-eval')} has no task {', '.join(unknown)}: see lmms-eval --tasks list"
        )
    try:
        found = simple_evaluate(Lmms(load(), batch_size=max_batch), tasks=list(tasks), limit=limit, log_samples=False)
    except UserError:
        raise
    except (OSError, ValueError, NotImplementedError) as error:  # data that cannot be had, a task of another form
        raise UserError(f"lmms-eval: {first_line(error)}") from None
    figures = {
        task: {name: value for name, value in one.items() if isinstance(value, int | float)}
        for task, one in found["results"].items()
    }
    return {"tasks": figures, "harness": f"lmms-eval {version('lmms-eval')}"}
