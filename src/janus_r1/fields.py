"""What a field may hold: declared once beside it, checked alike for the command line, YAML and Python.

    @dataclass
    class Recipe(Checked):
        lr: Annotated[float, Range(gt=0)] = 1e-4
        rounds: Positive = 3

Every number is finite and fits 64 bits, text is Unicode without NUL, and a :class:`Range` says what else holds.
"""

from __future__ import annotations

import math
import reprlib
import types
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from janus_r1.errors import UserError
from janus_r1.reading import check_tree

LARGEST = 2**63  # integers are smaller than this


@dataclass(frozen=True)
class Range:
    """Bounds of a number."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def __contains__(self, number: float) -> bool:
        return (
            (self.ge is None or number >= self.ge)
            and (self.gt is None or number > self.gt)
            and (self.le is None or number <= self.le)
            and (self.lt is None or number < self.lt)
        )

    def __str__(self) -> str:
        """As an error or a help text says it: "at least 1 and at most 4"."""
        bounds = {"at least": self.ge, "above": self.gt, "at most": self.le, "below": self.lt}
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)


Positive = Annotated[int, Range(ge=1)]
Count = Annotated[int, Range(ge=0)]
Above0 = Annotated[float, Range(gt=0)]
AtLeast0 = Annotated[float, Range(ge=0)]
Share = Annotated[float, Range(ge=0, le=1)]
Window = Annotated[int, Range(ge=1, le=16)] | Literal["auto"]  # image tokens drawn in one forward pass


def width(window: int | str) -> int | None:
    """A :data:`Window` as the engine takes it."""
    return None if window == "auto" else int(window)


class Typed(str):
    """A value typed on the command line: text until the field's type says what it means."""


class Checked:
    """A dataclass whose values are checked whenever one is made, :func:`dataclasses.replace` included."""

    def __post_init__(self) -> None:
        """Raises UserError for a value that its field may not hold."""
        for name, hint in field_types(type(self)).items():
            value = getattr(self, name)
            fitting = convert(value, hint, name)
            if fitting is not value:
                object.__setattr__(self, name, fitting)


def field_types(cls: Any) -> dict[str, Any]:
    """The type of every field that is given when one is made, with its ranges."""
    if cls not in _TYPES:
        hints = get_type_hints(cls, include_extras=True)
        _TYPES[cls] = {field.name: hints[field.name] for field in fields(cls) if field.init}
    return _TYPES[cls]


_TYPES: dict[type, dict[str, Any]] = {}  # looking them up takes longer than checking values


Build = Callable[[type, Any, str], Any]


def convert(value: Any, hint: Any, key: str, build: Build | None = None) -> Any:
    """``value`` as the type ``hint``; ``key`` names it in complaints.

    ``build(cls, value, key)`` makes a dataclass of a recipe's mapping; without it only an instance is one.

    Raises:
        UserError: for another type or a value out of range.
    """
    try:
        return _convert(value, hint, key, build)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{key} must be {type_name(hint)}, not {shown(value)}") from None


def shown(value: Any) -> str:
    """A value in an error: short, however long it is."""
    return reprlib.repr(str(value) if isinstance(value, Typed) else value)


def _convert(value: Any, hint: Any, key: str, build: Build | None) -> Any:
    """Raises TypeError, ValueError or OverflowError for another type, UserError for a value out of range."""
    origin, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, key) if build else _expect(isinstance(value, hint), value)
    if origin is Annotated:
        return _in_range(_convert(value, arguments[0], key, build), arguments[1:], key)
    if origin in (Union, types.UnionType):
        return _first_fitting(value, arguments, key, build)
    if origin is Literal:
        meant = (str(value), _parsed(value)) if isinstance(value, Typed) else (value,)
        fitting = [choice for choice in arguments for item in meant if type(choice) is type(item) and choice == item]
        return _expect(bool(fitting), fitting)[0]
    if origin in (list, tuple):
        return _sequence(value, origin, arguments, key, build)
    if hint is str:
        return _text(value, key)
    if hint is Path:
        return value if isinstance(value, Path) else Path(_text(value, key))
    parsed = _parsed(value) if isinstance(value, Typed) else value
    if origin is dict:
        _expect(isinstance(parsed, dict), parsed)
        of_key, of_item = arguments
        return {
            _convert(name, of_key, key, build): _convert(item, of_item, f"{key}.{name}", build)
            for name, item in parsed.items()
        }
    if hint in (int, float):
        return _number(parsed, hint, isinstance(value, Typed))
    if hint is bool or hint is type(None):
        return _expect(isinstance(parsed, hint), parsed)
    if hint is Any or not isinstance(hint, type):
        return value
    return _expect(isinstance(value, hint), value)


def _expect(condition: bool, value: Any) -> Any:
    if not condition:
        raise ValueError
    return value


def _in_range(value: Any, bounds: tuple[Any, ...], key: str) -> Any:
    for bound in bounds:
        if isinstance(bound, Range) and value not in bound:
            raise UserError(f"{key} must be {bound}, not {shown(value)}")
    return value


def _first_fitting(value: Any, hints: tuple[Any, ...], key: str, build: Build | None) -> Any:
    for hint in sorted(hints, key=lambda hint: hint is str):  # text last: it would take everything typed
        try:
            return _convert(value, hint, key, build)
        except (TypeError, ValueError, OverflowError):
            continue
    raise ValueError


def _sequence(value: Any, origin: type, arguments: tuple[Any, ...], key: str, build: Build | None) -> Any:
    if isinstance(value, Typed):
        parsed = _parsed(value)
        split = [Typed(part.strip()) for part in value.split(",")]  # --rounds 1,3 beside --rounds [1, 3]
        value = parsed if isinstance(parsed, list) else split
    items = list(value) if isinstance(value, list | tuple) else [_expect(not isinstance(value, dict), value)]
    if origin is list or arguments[1:] == (...,):
        return origin(_convert(item, arguments[0], f"{key}[{i}]", build) for i, item in enumerate(items))
    return tuple(_convert(item, hint, key, build) for item, hint in zip(items, arguments, strict=True))


def _text(value: Any, key: str) -> str:
    text = str(_expect(isinstance(value, str), value))
    if "\0" in text:
        raise UserError(f"{key} holds a NUL character: {shown(text)}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{key} is not Unicode text: {ascii(text)[:60]}") from None
    return text


def _number(value: Any, hint: type, typed: bool) -> Any:
    """5.0 may stand for the integer 5; True is no number. What was typed may be ``1e-3``, which YAML takes for text."""
    fits = isinstance(value, Real) or (typed and isinstance(value, str))
    number = float(_expect(fits and not isinstance(value, bool), value))
    _expect(math.isfinite(number), number)
    if hint is float:
        return number
    whole = int(value) if isinstance(value, Integral) else int(_expect(number.is_integer(), number))
    return _expect(abs(whole) < LARGEST, whole)


def _parsed(text: str) -> Any:
    """What YAML makes of a typed value: ``[1, 2]``, ``null``, ``true``; the text itself if it is blank or no YAML."""
    if not text.strip():
        return str(text)
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError):
        return str(text)
    check_tree(value, shown(text))
    return value


def type_name(hint: Any) -> str:
    """How an error speaks of a type: ``int``, ``float or None``, ``full or last``, ``int at least 1``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(a) for a in arguments)
    if origin in (list, tuple):
        return f"a list of {type_name(arguments[0])}"
    if origin is dict:
        return "keys with values"
    return {type(None): "None", str: "text", bool: "true or false"}.get(hint, getattr(hint, "__name__", str(hint)))
