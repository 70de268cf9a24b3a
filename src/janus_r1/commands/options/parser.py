"""The parser behind ``janus-r1``, and the types of its options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from janus_r1.errors import UserError

RECIPE_EXAMPLES = """\
examples:
  janus-r1 {command} --config shapes/{file}
  janus-r1 {command} --config shapes/{file} --{first} runs/mine
  janus-r1 {command} --config shapes/{file} --resume

recipe keys (in the YAML file, or on the command line, which wins):
{keys}"""

Recipe = tuple[str, str, str]  # module, recipe class, function(recipe, resume) -> Path


class Parser(argparse.ArgumentParser):
    """One-line errors instead of a usage text; options are never abbreviated.

    With ``recipe`` the help lists the recipe's keys, read from the source when help is asked for.
    """

    def __init__(self, recipe: Recipe | None = None, **options: Any) -> None:
        super().__init__(formatter_class=_Help, allow_abbrev=False, **options)
        self.recipe = recipe

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")

    def format_help(self) -> str:
        if self.recipe:
            from janus_r1.recipe_help import help_of

            keys = help_of(*self.recipe[:2])
            first = keys.split("--", 1)[1].split()[0]
            command = self.prog.split(" ", 1)[1]
            file = command.split()[-1].replace("build", "candidates")
            self.epilog = RECIPE_EXAMPLES.format(command=command, file=file, first=first, keys=keys)
        return super().format_help()


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows defaults where there is one to show."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=100)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default in (None, argparse.SUPPRESS) or action.nargs == 0
        return action.help if silent or not action.option_strings else f"{action.help} (default: %(default)s)"


def at_least(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {number}")
        return number

    return integer


def batch(text: str) -> int | str:
    """``auto``, or a number from 1."""
    try:
        return text if text == "auto" else at_least(1)(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be auto or a number, not {text!r}") from None


def limits(text: str) -> tuple[int, ...]:
    """``1,3`` -> (1, 3)."""
    try:
        return tuple(at_least(1)(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be round limits such as 1,3, not {text!r}") from None
