"""The command ``janus-r1``: find the command, read its options, run it, end cleanly.

A command is a function that :data:`COMMANDS` names: its arguments are its options (``options``), a recipe as its first
argument its recipe's keys. Nothing heavy is imported before a command runs, so that every ``--help`` is instant. Bad
input ends in one line on stderr and exit code 2; an interrupt in exit code 130.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from janus_r1 import parser
from janus_r1.errors import TextCut, UnknownWords, UserError, one_line
from janus_r1.parser import At

SHAPES = "janus_r1.worlds.shapes.training"
BENCHMARKS = "janus_r1.commands.benchmarks"
CATEGORIES = ("color", "shape", "texture", "spatial", "numeracy", "non_spatial")
JUDGED = {"geneval2": "GenEval 2", "dpg": "DPG-Bench", "wise": "WISE", "unigenbench": "UniGenBench++"}
COMPBENCH = {f"compbench-{name}": f"T2I-CompBench, {name}" for name in CATEGORIES}
TITLES = {"geneval": "GenEval", **JUDGED, **COMPBENCH, "pie": "PIE-Bench"}


def _benchmark(name: str, score: At) -> dict[str, At]:
    """The three commands of a benchmark that draws into its own folder layout."""
    named = {"name": name}
    return {
        f"eval {name} draw": At(f"{BENCHMARKS}:draw", named),
        f"eval {name} score": score,
        f"eval {name} report": At(f"{BENCHMARKS}:report", named),
    }


def _benchmarks() -> dict[str, At]:
    """Those whose scores need a detector, a judge, or weights of a category's own."""
    found = _benchmark("geneval", At(f"{BENCHMARKS}:score_geneval"))
    for name in JUDGED:
        found |= _benchmark(name, At(f"{BENCHMARKS}:score_judged", {"name": name}))
    for category in CATEGORIES:
        score = At(f"{BENCHMARKS}:score_compbench", {"category": category})
        found |= _benchmark(f"compbench-{category}", score)
    return found | _benchmark("pie", At(f"{BENCHMARKS}:score_pie")) | {"eval pie draw": At(f"{BENCHMARKS}:edit")}


COMMANDS: dict[str, At] = {
    "generate": At("janus_r1.commands.draw:generate"),
    "edit": At("janus_r1.commands.draw:edit"),
    "judge": At("janus_r1.commands.draw:judge"),
    "train vq": At(f"{SHAPES}.vq:train_vq"),
    "train vision": At(f"{SHAPES}.vision:teach_vision"),
    "train pretrain": At(f"{SHAPES}.pretrain:pretrain"),
    "train repair": At(f"{SHAPES}.repair:repair"),
    "train sft": At("janus_r1.train.sft:sft"),
    "train rl": At("janus_r1.train.rl:rl"),
    "data build": At("janus_r1.data.build:build"),
    "data import": At("janus_r1.commands.data:import_"),
    "data make": At("janus_r1.commands.data:make"),
    "data look": At("janus_r1.commands.data:look"),
    "data splits": At("janus_r1.commands.data:splits"),
    "data overlap": At("janus_r1.commands.data:overlap"),
    "eval world": At("janus_r1.commands.evaluate:world"),
    "eval edit": At("janus_r1.commands.evaluate:edit"),
    "eval judge": At("janus_r1.commands.judging:judge"),
    "eval understanding": At("janus_r1.commands.evaluate:understanding"),
    "eval tokenizer": At("janus_r1.commands.evaluate:tokenizer"),
    **_benchmarks(),
    "eval compare": At("janus_r1.eval.compare:compare"),
    "serve": At("janus_r1.serve.command:serve"),
    "convert": At("janus_r1.commands.model:convert"),
    "average": At("janus_r1.commands.model:average"),
}
GROUPS: dict[str, tuple[str, str]] = {  # what the commands that begin with these words are for, and examples
    "": (
        "A unified multimodal model that draws, judges its own drawing, and redraws until it is satisfied.",
        """\
  janus-r1 generate "a red circle left of a blue square"
  janus-r1 edit drawing.png "make the circle blue"
  janus-r1 judge drawing.png --text "three green stars"
  janus-r1 train sft --config shapes/sft --run.steps 500
  janus-r1 eval world --split held_out --limit 50
  janus-r1 serve
  janus-r1 convert deepseek-ai/Janus-Pro-1B models/janus-pro-1b""",
    ),
    "train": (
        "Train a stage.",
        """\
  janus-r1 train vq --config shapes/vq
  janus-r1 train pretrain --config shapes/pretrain --run.steps 500 --run.out runs/short
  janus-r1 train sft --config shapes/sft --resume""",
    ),
    "data": (
        "Prompts and training data.",
        """\
  janus-r1 data import pictures data/pictures
  janus-r1 data look data/pictures --sheet pictures.png
  janus-r1 data splits --examples 10
  janus-r1 data build --config shapes/candidates""",
    ),
    "eval": (
        "Measure a model.",
        """\
  janus-r1 eval world --limit 50 --no-controls
  janus-r1 eval edit --model runs/sft/model --limit 60
  janus-r1 eval geneval draw outputs/geneval
  janus-r1 eval compare results/*.json --out leaderboard.html""",
    ),
    **{
        f"eval {name}": (
            f"{title}: draw its prompts, score the folder, report.",
            f"""\
  janus-r1 eval {name} draw outputs/{name} --model models/janus-pro-r1-7b --device cuda
  janus-r1 eval {name} score --help
  janus-r1 eval {name} report outputs/{name}""",
        )
        for name, title in TITLES.items()
    },
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a terminal that is not UTF-8 must not end in a traceback
                stream.reconfigure(errors="backslashreplace")
        with warnings.catch_warnings():
            warnings.showwarning = partial(_show, warnings.showwarning)
            warnings.simplefilter("always", TextCut)  # which is said once of each text
            parse(sys.argv[1:] if argv is None else argv)()
        sys.stdout.flush()  # a full disk behind stdout shows here, not in a traceback at exit
    except UserError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader (head, less) has seen enough
        _silence_stdout()
        return 0
    except (OSError, MemoryError) as error:
        _silence_stdout()
        return _fail(str(error) or "out of memory: lower --max-batch")
    except KeyboardInterrupt:
        print("janus-r1: interrupted", file=sys.stderr)
        return 130
    return 0


def _show(others: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any) -> None:
    """A warning of ours as one line."""
    if issubclass(category, TextCut | UnknownWords):
        print(f"janus-r1: warning: {one_line(str(message))}", file=sys.stderr, flush=True)
    else:
        others(message, category, *place)


def _checked(argv: Sequence[str]) -> list[str]:
    for word in argv:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UserError(f"the argument {word!a} is not UTF-8: rename the file, or set a UTF-8 locale") from None
    return list(argv)


def parse(argv: Sequence[str]) -> partial[Any]:
    """The call that a command line asks for.

    Raises:
        UserError: for a command, an option or a value that is none.
    """
    words = _checked(argv)
    if words[:1] == ["--version"]:
        from janus_r1 import __version__

        return partial(print, f"janus-r1 {__version__}")
    name, rest = _split(words)
    if name in COMMANDS:
        return parser.prepare(name, COMMANDS[name], rest)
    return partial(parser.show_group, name, rest, COMMANDS, GROUPS)


def _split(words: list[str]) -> tuple[str, list[str]]:
    """The command (or the group of commands) that ``words`` begin with, and the words behind it."""
    known = {*COMMANDS, *GROUPS}
    count = next((n for n in (3, 2, 1) if len(words) >= n and " ".join(words[:n]) in known), 0)
    return " ".join(words[:count]), words[count:]


def _fail(message: str) -> int:
    print(f"janus-r1: error: {one_line(message)}", file=sys.stderr)
    return 2


def _silence_stdout() -> None:
    """What is still buffered must not fail again when the interpreter flushes it."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
