"""Options of ``serve``, read from the function that they are for: its signature, and the Args of its docstring."""

from __future__ import annotations

import argparse
import inspect
import re
from typing import Any, get_type_hints

from janus_r1.commands.options.common import add_command
from janus_r1.serve.command import serve

EXAMPLES = """\
examples:
  janus-r1 serve
  janus-r1 serve tiny-sft --port 8080 --gallery chains
  JANUS_R1_API_KEY=... janus-r1 serve midbee/Janus-Pro-R1-7B --device cuda --dtype bfloat16 --host 0.0.0.0

The server speaks OpenAI's image endpoints; docs/serving.md says what it adds."""


def add_serve(commands: Any) -> None:
    summary = "serve OpenAI's image endpoints, a judge, and a page that shows the model think"
    parser = add_command(commands, "serve", "serve", summary, EXAMPLES)
    about, kinds = _about(), get_type_hints(serve)
    for name, parameter in inspect.signature(serve).parameters.items():
        kind, default = str(kinds[name]), parameter.default
        option: dict[str, Any] = {"default": default, "help": about[name]}
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            parser.add_argument(name, nargs="?", metavar=name.upper(), **option)
            continue
        if isinstance(default, bool):
            option["action"] = argparse.BooleanOptionalAction if default else "store_true"
        elif "list" in kind:
            option |= {"action": "append", "metavar": "NAME"}
        elif isinstance(default, int | float):
            option |= {"type": type(default), "metavar": "N"}
        else:
            option["metavar"] = "TEXT"
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, **option)


def _about() -> dict[str, str]:
    """What the docstring says of each argument."""
    arguments = inspect.getdoc(serve).partition("Args:\n")[2].partition("\n\n")[0]  # type: ignore[union-attr]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE)
    return {name: " ".join(text.split()).rstrip(".") for name, text in found}
