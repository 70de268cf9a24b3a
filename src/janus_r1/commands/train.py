"""What every ``janus-r1 train STAGE`` and ``janus-r1 data build`` does around its work."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from janus_r1.commands.model import quiet_transformers
from janus_r1.commands.output import answers_only, check_writable, print_json, say
from janus_r1.errors import require
from janus_r1.files import locked
from janus_r1.recipe import maker_of

INSTEAD = {  # the quickest way to see a stage run
    "model": ", or try --model tiny-base",
    "candidates": ", or try janus-r1 data build --model tiny-base --prompts 64 --out few and --candidates few",
}


def run_stage(stage: Callable[..., Path | None], recipe: Any, as_json: bool) -> None:
    """Run ``stage(recipe)``, which returns the path of its result, and say where that is; None where it wrote nothing.

    The run's folder is held meanwhile: a second run in it is refused.

    Raises:
        UserError: if the folder cannot be written or is in use, and whatever the stage refuses.
    """
    trains = hasattr(recipe, "run")  # a training stage holds its folder itself, also where a script calls it
    out = Path(recipe.run.out if trains else recipe.out)
    check_writable(out)
    check_inputs(recipe)
    first = os.environ.get("RANK", "0") == "0"  # one process of several speaks for all
    began = time.monotonic()
    quiet_transformers()
    with answers_only(as_json), nullcontext() if trains or not first else locked(out):
        result = stage(recipe=recipe)
    if first and as_json:
        seconds = round(time.monotonic() - began, 2)
        print_json({"result": result and str(result), "seconds": seconds, "recipe": asdict(recipe)})
    elif first and result is not None:
        say(f"wrote {result}")


def check_inputs(recipe: Any) -> None:
    """Whether what earlier stages make is there.

    Raises:
        UserError: that names the commands which make what is missing, and the quickest way to do without.
    """
    missing = []
    for name, value in asdict(recipe).items():
        for path in value if isinstance(value, list) else [value]:
            if not isinstance(path, str) or name == "out" or Path(path).exists():
                continue
            if maker := maker_of(path):
                missing.append(f"there is no {path} ({name}) yet: {maker} makes it{INSTEAD.get(name, '')}")
    require(not missing, "; ".join(missing))
