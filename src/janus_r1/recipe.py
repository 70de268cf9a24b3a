"""Recipes: a dataclass filled from a YAML file and dotted overrides (``--run.steps 100``).

Every key is checked against the dataclass, so a typing error is an error and not a silent default.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml

from janus_r1.errors import UserError, nearest
from janus_r1.fields import Typed, convert, field_types, shown
from janus_r1.reading import read_yaml

RECIPES = Path(__file__).parent / "recipes"  # in the package: --config shapes/sft works wherever it is installed
EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # a number that YAML 1.1 takes for text
R = TypeVar("R")


def load_recipe(cls: type[R], path: str | Path | None = None, overrides: Sequence[str] = ()) -> R:
    """``cls`` with the values of a YAML file, then of ``["--run.steps", "100", "--lr=1e-3"]``.

    Raises:
        UserError: for an unknown key, a value of the wrong type, a missing file or broken YAML.
    """
    values = {} if path is None else _with_exponents(read_yaml(find_recipe(path)))
    for key, value in parse_overrides(overrides):
        _put(values, key, value)
    return build(cls, values)


def as_yaml(recipe: Any) -> str:
    """A recipe as the YAML that makes it."""
    return yaml.safe_dump(asdict(recipe), sort_keys=False, allow_unicode=True)


def find_recipe(path: str | Path) -> Path:
    """A file of the user's, or by its name one of the package's own: ``shapes/sft`` or ``shapes/sft.yaml``.

    Raises:
        UserError: if there is neither; a near miss is suggested.
    """
    known = {str(p.relative_to(RECIPES).with_suffix("")): p for p in sorted(RECIPES.glob("*/*.yaml"))}
    if Path(path).exists():
        return Path(path)
    if (name := str(path).removesuffix(".yaml")) in known:
        return known[name]
    named = [name for name in known if Path(name).name == Path(path).stem]
    hint = f"did you mean {named[0]}?" if named else nearest(str(path), known, f"the package has {', '.join(known)}")
    raise UserError(f"no such recipe: {path}; {hint}")


def maker_of(path: str) -> str | None:
    """The command that makes ``path`` by a recipe of the package: the first line of the one whose ``out`` it is in."""
    for recipe in sorted(RECIPES.glob("*/*.yaml")):
        values = read_yaml(recipe)
        out = values.get("run", values).get("out")
        if out and (path == out or path.startswith(f"{out}/")):
            return recipe.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    return None


def parse_overrides(words: Sequence[str]) -> list[tuple[str, str]]:
    """``["--lr", "1e-3", "--run.steps=5"]`` -> ``[("lr", "1e-3"), ("run.steps", "5")]``."""
    pairs: list[tuple[str, str]] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or len(word) == 2:
            raise UserError(f"unexpected {word!r}: overrides look like --run.steps 100")
        key, equals, value = word[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UserError(f"--{key} needs a value")
            value = rest.pop(0)
        pairs.append((key.replace("-", "_"), Typed(value)))
    return pairs


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """``run.steps`` = 5 into ``{"run": {"steps": 5}}``, over what stands there; ``rewards.0.weight`` into a list."""
    first, dot, rest = key.partition(".")
    if not dot:
        values[first] = value
        return
    inner = values.get(first)
    if isinstance(inner, list):
        index, dot, rest = rest.partition(".")
        if not (index.isdecimal() and int(index) < len(inner) and dot and isinstance(inner[int(index)], dict)):
            raise UserError(f"no {key}: {first} is a list of {len(inner)}; set it whole, or one key as {first}.0.KEY")
        inner = inner[int(index)]
    elif inner is None:
        inner = values[first] = {}
    elif not isinstance(inner, dict):
        raise UserError(f"{first} must hold keys with values, such as {{{rest}: ...}}, not {shown(inner)}")
    _put(inner, rest, value)


def _with_exponents(value: Any) -> Any:
    """``value`` of a YAML file, in which ``1e-3`` shall be a number."""
    if isinstance(value, dict):
        return {key: _with_exponents(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_exponents(item) for item in value]
    return Typed(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


# ------------------------------------------------------------------------------- keys and dataclasses


def build(cls: type[R], values: dict[str, Any], base: R | None = None, prefix: str = "") -> R:
    """``base`` (or the defaults) with ``values`` put in, checked; ``prefix`` stands before keys in complaints."""
    hints = field_types(cls)
    for key in values:
        if key not in hints:
            raise UserError(
                unknown(f"recipe key {prefix}{key}", f"{prefix}{key}", [f"{prefix}{name}" for name in hints])
            )
    required = [f.name for f in fields(cls) if f.init and f.default is MISSING and f.default_factory is MISSING]  # type: ignore[arg-type]
    missing = [f"{prefix}{name}" for name in required if name not in values]
    if base is None and missing:
        raise UserError(f"the recipe lacks {', '.join(missing)}")
    if base is None and not required:
        base = cls()

    changes = {}
    for key, value in values.items():
        nested = partial(_nested, base=getattr(base, key, None))
        changes[key] = convert(value, hints[key], f"{prefix}{key}", nested)
    return cls(**changes) if base is None else replace(base, **changes)  # type: ignore[type-var]


def _nested(cls: type[R], value: Any, key: str, base: Any) -> R:
    """The dataclass that a recipe holds under ``key``; ``base`` is what it starts from."""
    if isinstance(value, dict):
        return build(cls, value, base if isinstance(base, cls) else None, f"{key}.")
    name = fields(cls)[0].name  # type: ignore[arg-type]
    if key.endswith("]"):
        raise UserError(f"{key} must hold keys with values, such as {{{name}: ...}}, not {shown(value)}")
    raise UserError(f"{key} holds keys of its own: set {key}.{name} and the like")


def unknown(what: str, name: str, known: Sequence[str]) -> str:
    """A complaint about a name that is none, with the likeliest of those that are ``known``."""
    return f"unknown {what}: " + nearest(name, known, f"known are {', '.join(known)}", cutoff=0.5)
