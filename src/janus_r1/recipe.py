"""Recipes: a dataclass filled from a YAML file and dotted overrides (``--run.steps 100``).

Every key is checked against the dataclass, so a typing error is an error and not a silent default.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from janus_r1.errors import UserError
from janus_r1.reading import read_yaml

RECIPES = Path(__file__).parent / "recipes"  # in the package: --config shapes/sft works wherever it is installed
R = TypeVar("R")


class _Typed(str):
    """A value typed on the command line: text until the field's type says what it means."""


def load_recipe(cls: type[R], path: str | Path | None = None, overrides: Sequence[str] = ()) -> R:
    """``cls`` with the values of a YAML file, then of ``["--run.steps", "100", "--lr=1e-3"]``.

    Raises:
        UserError: for an unknown key, a value of the wrong type, a missing file or broken YAML.
    """
    values = {} if path is None else read_yaml(find_recipe(path))
    for key, value in parse_overrides(overrides):
        _put(values, key, value)
    return _build(cls, values, None, "")


def find_recipe(path: str | Path) -> Path:
    """A file of the user's, or by its name one of the package's own: ``shapes/sft``, ``janus-pro/rl-7b-lora``.

    Raises:
        UserError: if there is neither; a near miss is suggested.
    """
    known = {str(p.relative_to(RECIPES).with_suffix("")): p for p in sorted(RECIPES.glob("*/*.yaml"))}
    if Path(path).exists():
        return Path(path)
    if str(path) in known:
        return known[str(path)]
    close = difflib.get_close_matches(str(path), known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the package has {', '.join(known)}"
    raise UserError(f"no such recipe: {path}; {hint}")


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
        pairs.append((key.replace("-", "_"), _Typed(value)))
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
    elif not isinstance(inner, dict):
        inner = values[first] = {}
    _put(inner, rest, value)


# ------------------------------------------------------------------------------- values and types


def _build(cls: type[R], values: dict[str, Any], base: R | None, prefix: str) -> R:
    """``base`` (or the defaults) with ``values`` put in, checked."""
    hints = get_type_hints(cls)
    known = [field.name for field in fields(cls) if field.init]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UserError(_unknown(f"{prefix}{key}", [f"{prefix}{name}" for name in known]))
    if base is None and not _required(cls):
        base = cls()
    changes = {k: _coerce(value, hints[k], f"{prefix}{k}", getattr(base, k, None)) for k, value in values.items()}
    if base is None:
        missing = [f"{prefix}{name}" for name in _required(cls) if name not in changes]
        if missing:
            raise UserError(f"the recipe lacks {', '.join(missing)}")
        return cls(**changes)
    return replace(base, **changes)  # type: ignore[type-var]


def _required(cls: type) -> list[str]:
    return [f.name for f in fields(cls) if f.init and f.default is MISSING and f.default_factory is MISSING]


def _unknown(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(known)}"
    return f"unknown recipe key {key}: {hint}"


def _coerce(value: Any, hint: Any, key: str, base: Any) -> Any:
    """``value`` as the type ``hint``; ``base`` is what a nested dataclass starts from."""
    if is_dataclass(hint):
        if isinstance(value, _Typed) or not isinstance(value, dict):
            name = fields(hint)[0].name
            if key.endswith("]"):
                raise UserError(f"{key} must hold keys with values, such as {{{name}: ...}}, not {value!r}")
            raise UserError(f"{key} holds keys of its own: set {key}.{name} and the like")
        return _build(hint, value, base if isinstance(base, hint) else None, f"{key}.")  # type: ignore[arg-type]
    if isinstance(value, _Typed):
        value = str(value) if hint is str else _parsed(value)
    try:
        return _convert(value, hint, key, base)
    except (TypeError, ValueError):
        raise UserError(f"{key} must be {type_name(hint)}, not {value!r}") from None


def _parsed(text: str) -> Any:
    """What YAML makes of a typed value: ``[1, 2]``, ``null``, ``true``; the text itself if nothing."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return str(text)


def _convert(value: Any, hint: Any, key: str, base: Any) -> Any:
    """Raises ValueError or TypeError when ``value`` is no ``hint``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return _coerce(value, hint, key, base)
    if origin in (Union, types.UnionType):
        return _first_fitting(value, arguments, key, base)
    if origin is Literal:
        return _expect(value in arguments, value)
    if origin in (list, tuple, dict):
        return _container(value, origin, arguments, key)
    if hint in (int, float):
        return _number(value, hint)
    if hint is Path:
        return Path(_expect(isinstance(value, str), value))
    return _expect(hint is Any or isinstance(value, hint), value)


def _expect(condition: bool, value: Any) -> Any:
    if not condition:
        raise ValueError
    return value


def _first_fitting(value: Any, hints: tuple[Any, ...], key: str, base: Any) -> Any:
    for hint in sorted(hints, key=lambda h: h is str):  # text last: it would take everything typed
        try:
            return _convert(value, hint, key, base)
        except (TypeError, ValueError):
            continue
    raise ValueError


def _number(value: Any, hint: type) -> Any:
    """YAML 1.1 reads ``1e-3`` as text, and 5.0 may stand for the integer 5; True is no number."""
    _expect(not isinstance(value, bool), value)
    if hint is float:
        return float(value)
    number = float(value)
    return value if isinstance(value, int) else int(_expect(number.is_integer(), number))


def _container(value: Any, origin: type, arguments: tuple[Any, ...], key: str) -> Any:
    if origin is dict:
        _expect(isinstance(value, dict), value)
        return {_convert(k, arguments[0], key, None): _convert(v, arguments[1], key, None) for k, v in value.items()}
    if isinstance(value, str) and "," in value:  # --rounds 1,3 beside --rounds [1, 3]
        value = [_parsed(part) for part in value.split(",")]
    items = list(value) if isinstance(value, list | tuple) else [_expect(not isinstance(value, dict), value)]
    if origin is list or arguments[1:] == (...,):
        return origin(_convert(item, arguments[0], f"{key}[{i}]", None) for i, item in enumerate(items))
    return tuple(_convert(item, hint, key, None) for item, hint in zip(items, arguments, strict=True))


def type_name(hint: Any) -> str:
    """How an error speaks of a type: ``int``, ``float or None``, ``full or last``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(a) for a in arguments)
    if origin in (list, tuple):
        return f"a list of {type_name(arguments[0])}"
    return {type(None): "None", str: "text", bool: "true or false"}.get(hint, getattr(hint, "__name__", str(hint)))
