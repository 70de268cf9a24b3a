"""The help of a recipe: every key with its type, default and docstring.

All of it is read from the source, which is not imported: ``--help`` needs no torch.
"""

from __future__ import annotations

import ast
import sys
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Key:
    """One line of a recipe's help."""

    name: str
    type: str
    default: str
    doc: str


def help_text(cls: type) -> str:
    """Every key of a recipe dataclass with its type, default and the docstring under the field."""
    return help_of(cls.__module__, cls.__qualname__)


def help_of(module: str, name: str) -> str:
    """As :func:`help_text`, from the source alone: the module is not imported."""
    lines = []
    for key in _keys(module, name, {}, ""):
        lines.append(f"  --{key.name} {key.type}  (default: {key.default})")
        lines += textwrap.wrap(key.doc, 96, initial_indent="        ", subsequent_indent="        ")
    return "\n".join(lines)


def _keys(module: str, name: str, given: dict[str, str], prefix: str) -> list[Key]:
    """Fields of a class in source order; ``given`` are defaults that an outer recipe sets."""
    home, definition = _definition(module, name) or (module, None)
    if not isinstance(definition, ast.ClassDef):
        raise LookupError(f"{module} has no class {name}")
    found: list[Key] = []
    for node, after in zip(definition.body, [*definition.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        field, default = node.target.id, _default(node.value)
        if inner := _recipe(home, node.annotation):
            values = {k.arg: ast.unparse(k.value) for k in getattr(default, "keywords", []) if k.arg}
            found += _keys(*inner, values, f"{prefix}{field}.")
            continue
        shown = given.get(field) or ("required" if default is None else ast.unparse(default))
        found.append(Key(f"{prefix}{field}", _shown_type(_spelt_out(home, node.annotation)), shown, _doc(after)))
        if inner := _recipe(home, _item(node.annotation)):
            found += _keys(*inner, {}, f"{prefix}{field}.N.")
    return found


@cache
def _tree(module: str) -> ast.Module:
    """A module's source, found without importing the packages around it."""
    package, *rest = module.split(".")
    ours = Path(__file__).parent.joinpath(*rest).with_suffix(".py")
    path = ours if package == __package__ else Path(str(sys.modules[module].__file__))
    return ast.parse(path.read_text(encoding="utf-8"))


def _item(annotation: ast.expr) -> ast.expr:
    """``X`` of ``list[X]``; any other type as it is."""
    return annotation.slice if isinstance(annotation, ast.Subscript) else annotation


def _definition(module: str, name: str) -> tuple[str, ast.stmt] | None:
    """Where a class or a type's name is defined: the module, which may be one that ``module`` imports it from."""
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.Assign) and name in [getattr(target, "id", None) for target in node.targets]:
            return module, node
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            ours = str(node.module).startswith(f"{__package__}.")
            return _definition(str(node.module), name) if ours else None
    return None


def _recipe(module: str, annotation: ast.expr) -> tuple[str, str] | None:
    """(module, class) of a nested dataclass, or None for any other type."""
    found = _definition(module, annotation.id) if isinstance(annotation, ast.Name) else None
    if found and isinstance(found[1], ast.ClassDef) and found[1].decorator_list:
        return found[0], found[1].name
    return None


def _spelt_out(module: str, annotation: ast.expr) -> ast.expr:
    """``Literal["a", "b"]`` where the annotation is a name for it."""
    found = _definition(module, annotation.id) if isinstance(annotation, ast.Name) else None
    return found[1].value if found and isinstance(found[1], ast.Assign) else annotation


def _default(value: ast.expr | None) -> ast.expr | None:
    """The expression of a default, with ``field(default_factory=lambda: X)`` read as X."""
    if not isinstance(value, ast.Call) or getattr(value.func, "id", "") != "field":
        return value
    keywords = {keyword.arg: keyword.value for keyword in value.keywords}
    factory = keywords.get("default_factory")
    if isinstance(factory, ast.Lambda):
        return factory.body
    return keywords.get("default") or (ast.Call(factory, [], []) if factory else None)


def _shown_type(annotation: ast.expr) -> str:
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        annotation = annotation.slice.elts[0]  # type: ignore[attr-defined]
    text = ast.unparse(annotation)
    if text.startswith("Literal["):
        return text[len("Literal[") : -1].replace("'", "").replace(", ", "|")
    return text.upper() if text in ("int", "float", "str", "bool") else text


def _doc(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""
