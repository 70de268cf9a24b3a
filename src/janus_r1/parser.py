"""From the words of a command line to a call of the command's function, and the help in between."""

from __future__ import annotations

import argparse
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from functools import partial
from typing import Any, NoReturn, get_type_hints

from janus_r1 import options
from janus_r1.errors import UserError, nearest
from janus_r1.options import Command, Option

KEYS = """\
recipe keys (in the YAML file, or on the command line, which wins):
{keys}"""
HELP = ("-h", "--help")
Groups = Mapping[str, tuple[str, str]]  # of the commands that begin with these words: what they are for, and examples


@dataclass(frozen=True)
class At:
    """Where a command's function lives, as ``module:function``, and arguments that are not the user's to choose."""

    place: str
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def declared(self) -> Command:
        """The command as its source declares it; nothing is imported."""
        module, function = self.place.split(":")
        return options.command(module, function, tuple(self.fixed))

    def load(self) -> tuple[Any, Callable[..., Any]]:
        """The module and the function."""
        module, function = self.place.split(":")
        found = importlib.import_module(module)
        return found, getattr(found, function)


def prepare(name: str, at: At, words: Sequence[str]) -> partial[Any]:
    """The call of the command ``name`` that ``words`` ask for, everything checked; ``--help`` is shown at once.

    Raises:
        UserError: for an unknown option, a value that an option may not have, and whatever the command refuses.
    """
    declared = at.declared()
    reader = make_parser(name, declared)
    given, rest = reader.read(words)
    if declared.recipe:
        return _prepare_stage(declared, at, given, rest)
    if rest:
        known = [flag for action in reader._actions for flag in action.option_strings]
        raise UserError(_unexpected(rest[0], known))
    module, function = at.load()
    return arguments(function, {**_preset(module, given), **given, **at.fixed})


def arguments(function: Callable[..., Any], given: Mapping[str, Any]) -> partial[Any]:
    """``function`` with the values ``given``, converted to its types and checked.

    An argument that is a dataclass takes those of its fields from ``given`` that no argument before it is or has.
    """
    from janus_r1.fields import convert, field_types

    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters
    values: dict[str, Any] = {}
    taken = set(parameters)
    for name, parameter in parameters.items():
        if is_dataclass(hints[name]) and name != "recipe":
            types = {key: hint for key, hint in field_types(hints[name]).items() if key not in taken}
            taken |= types.keys()
            changes = {key: convert(given[key], hint, _flag(key)) for key, hint in types.items() if key in given}
            values[name] = replace(parameter.default, **changes)
        elif name in given:
            values[name] = convert(given[name], hints[name], _flag(name))
    return partial(function, **values)


def _preset(module: Any, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """A preset is a set of defaults: what else is given wins."""
    presets: Mapping[str, Mapping[str, Any]] = getattr(module, "PRESETS", {})
    return presets.get(str(given.get("preset")), {})


def _prepare_stage(declared: Command, at: At, given: dict[str, Any], overrides: list[str]) -> partial[Any]:
    from janus_r1.commands.train import run_stage
    from janus_r1.recipe import as_yaml, load_recipe

    config, as_json, shown = given.pop("config", None), given.pop("json", False), given.pop("print_config", False)
    module, name = declared.recipe or ("", "")
    recipe = load_recipe(getattr(importlib.import_module(module), name), config, overrides)
    if shown:
        return partial(print, as_yaml(recipe), end="")
    _, function = at.load()
    return partial(run_stage, arguments(function, {**given, **at.fixed}), recipe=recipe, as_json=as_json)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _unexpected(word: str, known: Sequence[str]) -> str:
    if not word.startswith("-"):
        return f"unexpected argument {word!r} (see --help)"
    hint = nearest(word.partition("=")[0], known, "")
    return f"unknown option {word}" + (f": {hint}" if hint else " (see --help)")


# ------------------------------------------------------------------------------------------- help


def show_group(
    name: str, words: Sequence[str], commands: Mapping[str, At], groups: Mapping[str, tuple[str, str]]
) -> None:
    """The help of ``janus-r1`` itself (an empty ``name``) or of a group of commands.

    Raises:
        UserError: if ``words`` ask for no help: a command is missing, or there is none of that name.
    """
    program = f"janus-r1 {name}".strip()
    known = [key for key in (*commands, *groups) if key]
    inner = [key.removeprefix(f"{name} ") for key in known if not name or key.startswith(f"{name} ")]
    firsts = list(dict.fromkeys(key.split()[0] for key in inner))
    if not words:
        raise UserError(f"a command is required: {', '.join(firsts)} (see {program} --help)")
    if words[0] not in HELP:
        hint = nearest(words[0], firsts, f"choose {', '.join(firsts)}").replace("mean ", f"mean {program} ", 1)
        raise UserError(f"{program} has no command {words[0]!r}: {hint}")
    about, example = groups[name]
    print(f"usage: {program} COMMAND ...\n\n{about}\n\ncommands:")
    width = 2 + max(map(len, firsts))
    for first in firsts:
        full = f"{name} {first}".strip()
        print(f"  {first:{width}}{groups[full][0] if full in groups else commands[full].declared().summary}")
    print(f"\nexamples:\n{example}\n\n{program} COMMAND --help says more about each.")


class Parser(argparse.ArgumentParser):
    """One-line errors instead of a usage text; options are never abbreviated.

    With ``recipe`` the help lists the recipe's keys, read from the source when help is asked for.
    """

    def __init__(self, recipe: tuple[str, str] | None = None, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, argument_default=argparse.SUPPRESS, **settings)
        self.recipe = recipe

    def format_help(self) -> str:
        text = super().format_help()
        if self.recipe:
            text += "\n" + KEYS.format(keys=options.keys_text(options.recipe_keys(*self.recipe))) + "\n"
        return text

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")

    def read(self, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """What was given, still as text, and the words that are no option of this command."""
        found, rest = self.parse_known_intermixed_args(list(words))
        from janus_r1.fields import Typed

        given = {}
        for name, value in vars(found).items():
            if isinstance(value, list):
                value = [Typed(item) for item in value]
            given[name] = Typed(value) if isinstance(value, str) else value
        return given, rest


def make_parser(name: str, declared: Command) -> Parser:
    """The reader of a command's options."""
    about = f"{declared.summary}\n\n{declared.about}".strip()
    examples = declared.examples or (_recipe_examples(name) if declared.recipe else "")
    epilog = f"examples:\n{_indented(examples)}" if examples else None
    usage = None
    if declared.recipe:
        usage = "%(prog)s [--config NAME_OR_FILE] [--resume] [--json] [--print_config] [--KEY VALUE ...]"
    reader = Parser(
        recipe=declared.recipe,
        prog=f"janus-r1 {name}",
        usage=usage,
        description=about,
        epilog=epilog,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=100),
    )
    if declared.recipe:
        reader.add_argument("--config", metavar="NAME_OR_FILE", help="A recipe of the package, or your own YAML file")
        reader.add_argument("--json", action="store_true", help=options.EVERYWHERE["json"])
        reader.add_argument(
            "--print_config", "--print-config", action="store_true", help="Print the whole recipe as YAML, and end"
        )
    for option in declared.options:
        _add(reader, option)
    return reader


def _add(reader: Parser, option: Option) -> None:
    doc = option.doc.removesuffix(".") if not option.doc.endswith("...") else option.doc
    if option.is_flag:
        off = option.default == "True"
        flag = _flag(f"no_{option.name}" if off else option.name)
        doc = f"Turn off: {doc[:1].lower()}{doc[1:]}" if off else doc
        reader.add_argument(flag, dest=option.name, action="store_const", const=not off, help=doc)
        return
    shape, bounds = options.shape(option.type)
    silent = option.default in (None, "None", "()")
    notes = [*([] if silent else [f"default: {(option.default or '').strip(chr(39))}"]), *([bounds] if bounds else [])]
    text = f"{doc} ({'; '.join(notes)})" if notes else doc
    metavar = option.name.upper() if shape == "STR" else shape
    text = text.replace("%", "%%")
    if option.positional:
        several = "*" if option.default else "+"
        count = several if option.is_list else "?" if option.default else None
        reader.add_argument(option.name, metavar=option.name.upper().removesuffix("S"), nargs=count, help=text)
    else:
        reader.add_argument(
            _flag(option.name),
            dest=option.name,
            metavar=metavar,
            action="append" if option.is_list else "store",
            required=option.default is None,
            help=text,
        )


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _recipe_examples(name: str) -> str:
    start = f"janus-r1 {name} --config shapes/{name.split()[-1]}"
    return f"{start}\n{start} --print_config\n{start} --resume"
