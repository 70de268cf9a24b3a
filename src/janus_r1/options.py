"""Options are declared once, as the arguments of a command's function and the fields of a recipe.

Name, type, default and what a docstring says of them are read from the source here, which is not imported: help and
the complaint about an unknown option need no torch, wherever a recipe lives. Values are checked when the command runs
(``fields``), by the same declarations.
"""

from __future__ import annotations

import ast
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from inspect import cleandoc
from pathlib import Path

PACKAGE = __package__ or "janus_r1"
Function = ast.FunctionDef
Given = dict[str, str]  # what a dataclass's fields are where somebody else sets their defaults
EVERYWHERE = {  # what arguments of these names are, where a command's docstring does not say otherwise
    "json": "Print one JSON object on stdout, all else on stderr",
    "max_batch": "Chains drawn at once at most: a number, or auto for as many as fit into memory",
    "window": "Image tokens drawn in one forward pass, for the same image; auto: as many as pay",
    "resume": "Continue the run in the recipe's folder",
    "world": "Its name, a Python file, or module:name",
}


@dataclass(frozen=True)
class Option:
    """One option of a command or one key of a recipe, as its source declares it."""

    name: str
    type: ast.expr
    """Aliases spelt out."""
    default: str | None
    """As source; None where a value is required."""
    doc: str
    positional: bool = False

    @property
    def is_flag(self) -> bool:
        return ast.unparse(self.type) == "bool"

    @property
    def is_list(self) -> bool:
        """Whether it may be given several times: a list of texts or paths, which may contain commas."""
        return ast.unparse(self.type).removesuffix(" | None") in ("list[str]", "tuple[str, ...]", "list[Path]")


@dataclass(frozen=True)
class Command:
    """A command as the source of its function declares it."""

    summary: str
    """The first sentence."""
    about: str
    """What else the docstring says of it."""
    examples: str
    options: tuple[Option, ...]
    recipe: tuple[str, str] | None = None
    """(module, class) of the recipe that it takes, whose keys are its options."""


def command(module: str, function: str, fixed: tuple[str, ...] = ()) -> Command:
    """Read the function ``module.function``; arguments that are ``fixed`` are none of the user's options.

    Arguments before ``*`` are given by their place; where there is no ``*``, those without a default. A dataclass as
    an argument stands for its fields, but for those that are arguments themselves or fields of one before it; an
    argument called ``recipe`` for the keys of a recipe.
    """
    home, node = _definition(module, function) or (module, None)
    if not isinstance(node, Function):
        raise LookupError(f"{module} has no function {function}")
    sections = _sections(ast.get_docstring(node) or "")
    summary, _, about = sections[""].partition("\n\n")
    docs, found = EVERYWHERE | _argument_docs(sections.get("Args", "")), []
    recipe = None
    names = {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
    for argument, default, keyword_only in _arguments(node):
        name, annotation = argument.arg, argument.annotation or ast.Name("str")
        if name in fixed:
            continue
        if inner := _dataclass(home, annotation):
            if name == "recipe":
                recipe = inner
                continue
            fresh = [option for option in _keys(*inner, _given(home, default), "") if option.name not in names]
            names |= {option.name for option in fresh}
            found += fresh
            continue
        type_ = _spelt_out(home, annotation)
        positional = not keyword_only and (default is None or bool(node.args.kwonlyargs))
        shown = None if default is None else _source(home, default)
        found.append(Option(name, type_, shown, docs.get(name, ""), positional))
    return Command(" ".join(summary.split()), about, sections.get("Examples", ""), tuple(found), recipe)


def recipe_keys(module: str, name: str) -> list[Option]:
    """Every key of a recipe dataclass, those of nested ones as ``run.steps`` and ``rewards.N.kind``."""
    return list(_keys(module, name, {}, ""))


# ----------------------------------------------------------------------------------------- as text


def keys_text(options: list[Option]) -> str:
    """Keys with their types, defaults and docstrings, as the help lists them."""
    lines = []
    for key in options:
        lines.append(f"  --{key.name} {type_text(key.type)}  (default: {key.default or 'required'})")
        lines += textwrap.wrap(key.doc, 96, initial_indent="        ", subsequent_indent="        ")
    return "\n".join(lines)


def type_text(annotation: ast.expr) -> str:
    """``INT``, ``a|b``, ``INT >= 1``; types of several parts as the source has them."""
    base, bounds = _annotated(annotation)
    if bounds:
        return f"{type_text(base)} {bounds}"
    if isinstance(annotation, ast.BinOp):
        left, right = type_text(annotation.left), type_text(annotation.right)
        return f"{left} or {'null' if right == 'None' else right}"
    text = ast.unparse(annotation)
    if text.startswith("Literal["):
        return text.replace("Literal[", "").replace("]", "").replace("'", "").replace(", ", "|")
    if isinstance(annotation, ast.Subscript) and text.startswith(("list[", "tuple[")):
        return f"list of {type_text(_item(annotation))}"
    return text.upper() if text in ("int", "float", "str", "bool") else text


def shape(annotation: ast.expr) -> tuple[str, str]:
    """What stands for a value in a line of help ("N", "N,N", "a|b", "N|auto", "PATH", "STR"), and its bounds."""
    if isinstance(annotation, ast.BinOp):
        left, bounds = shape(annotation.left)
        right = shape(annotation.right)[0]
        return left if right == "None" else f"{left}|{right}", bounds
    base, bounds = _annotated(annotation)
    if _is_sequence(base):
        name, bounds = shape(_item(base))
        return f"{name},{name}" if name in ("N", "X") else name, bounds
    text = type_text(base)
    named = {"INT": "N", "FLOAT": "X", "Path": "PATH", "dict[str, Any]": "{KEY: VALUE}"}
    return named.get(text, text), bounds


def _annotated(annotation: ast.expr) -> tuple[ast.expr, str]:
    """``int`` and ">= 1" of ``Annotated[int, Range(ge=1)]``."""
    if not (isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated"):
        return annotation, ""
    base, *marks = getattr(annotation.slice, "elts", [annotation.slice])
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [
        f"{signs[k.arg]} {ast.unparse(k.value)}" for m in marks for k in getattr(m, "keywords", []) if k.arg in signs
    ]
    return base, ", ".join(bounds)


# ------------------------------------------------------------------------------------- docstrings


def _sections(doc: str) -> dict[str, str]:
    """A docstring's parts under ``Args:``, ``Examples:`` and the like; what stands before them under ""."""
    parts: dict[str, list[str]] = {"": []}
    name = ""
    for line in cleandoc(doc).splitlines():
        if line in ("Args:", "Examples:", "Raises:", "Returns:"):
            name = line[:-1]
            parts[name] = []
        else:
            parts[name].append(line)
    return {name: textwrap.dedent("\n".join(lines)).strip() for name, lines in parts.items()}


def _argument_docs(section: str) -> dict[str, str]:
    docs: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if line[:1].isspace():
            docs[name] += f" {line.strip()}"
        elif line:
            name, _, text = line.partition(":")
            docs[name] = text.strip()
    return docs


# -------------------------------------------------------------------------------------- the source


@cache
def _tree(module: str) -> ast.Module:
    """A module's source, found without importing the packages around it."""
    package, *rest = module.split(".")
    path = Path(__file__).parent.joinpath(*rest)
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if package != PACKAGE:
        path = Path(str(sys.modules[module].__file__))
    return ast.parse(path.read_text(encoding="utf-8"))


def _definition(module: str, name: str) -> tuple[str, ast.stmt] | None:
    """Where a name is defined: the module, which may be one that ``module`` imports it from, and the statement."""
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef | Function) and node.name == name:
            return module, node
        if isinstance(node, ast.Assign) and name in [getattr(target, "id", None) for target in node.targets]:
            return module, node
        if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
            ours = str(node.module).startswith(f"{PACKAGE}.")
            return _definition(str(node.module), name) if ours else None
    return None


def _keys(module: str, name: str, given: Given, prefix: str) -> Iterator[Option]:
    """Fields of a class in source order; ``given`` are defaults that its user sets."""
    home, definition = _definition(module, name) or (module, None)
    if not isinstance(definition, ast.ClassDef):
        raise LookupError(f"{module} has no class {name}")
    for node, after in zip(definition.body, [*definition.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        field, default = node.target.id, _field_default(node.value)
        if inner := _dataclass(home, node.annotation):
            yield from _keys(*inner, _given(home, default), f"{prefix}{field}.")
            continue
        shown = given.get(field) or (None if default is None else _source(home, default))
        yield Option(f"{prefix}{field}", _spelt_out(home, node.annotation), shown, _doc(after))
        if inner := _dataclass(home, _item(node.annotation)):
            yield from _keys(*inner, {}, f"{prefix}{field}.N.")


def _arguments(node: Function) -> Iterator[tuple[ast.arg, ast.expr | None, bool]]:
    """(argument, default, whether it can only be given by name) of a function."""
    plain, defaults = node.args.args, node.args.defaults
    missing: list[ast.expr | None] = [None] * (len(plain) - len(defaults))
    for argument, default in zip(plain, missing + list(defaults), strict=True):
        yield argument, default, False
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        yield argument, default, True


def _given(module: str, default: ast.expr | None) -> Given:
    """What ``Settings(rounds=1)``, or the name of such a constant, sets."""
    if isinstance(default, ast.Name) and (found := _definition(module, default.id)):
        module, node = found
        default = node.value if isinstance(node, ast.Assign) else None
    keywords = getattr(default, "keywords", [])
    return {k.arg: _source(module, k.value) for k in keywords if k.arg}


def _source(module: str, expression: ast.expr) -> str:
    """A default as source; the name of a constant as its value."""
    if isinstance(expression, ast.Name) and (found := _definition(module, expression.id)):
        home, node = found
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.Name):
            return _source(home, node.value)
    return ast.unparse(expression)


def _item(annotation: ast.expr) -> ast.expr:
    """``X`` of ``list[X]`` and ``tuple[X, ...]``; any other type as it is."""
    if not _is_sequence(annotation):
        return annotation
    inner = getattr(annotation, "slice", annotation)
    return inner.elts[0] if isinstance(inner, ast.Tuple) else inner


def _is_sequence(annotation: ast.expr) -> bool:
    return isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) in ("list", "tuple")


def _dataclass(module: str, annotation: ast.expr) -> tuple[str, str] | None:
    """(module, class) of a dataclass, or None for any other type."""
    found = _definition(module, annotation.id) if isinstance(annotation, ast.Name) else None
    if found and isinstance(found[1], ast.ClassDef) and found[1].decorator_list:
        return found[0], found[1].name
    return None


def _spelt_out(module: str, annotation: ast.expr) -> ast.expr:
    """A type with its aliases replaced: ``Positive | None`` becomes ``Annotated[int, Range(ge=1)] | None``."""

    class Aliases(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            found = _definition(module, node.id)
            if found and isinstance(found[1], ast.Assign):
                return _spelt_out(found[0], found[1].value)
            return node

    return Aliases().visit(ast.parse(ast.unparse(annotation), mode="eval").body)


def _field_default(value: ast.expr | None) -> ast.expr | None:
    """The expression of a default, with ``field(default_factory=lambda: X)`` read as X."""
    if not isinstance(value, ast.Call) or getattr(value.func, "id", "") != "field":
        return value
    keywords = {keyword.arg: keyword.value for keyword in value.keywords}
    factory = keywords.get("default_factory")
    if isinstance(factory, ast.Lambda):
        return factory.body
    return keywords.get("default") or (ast.Call(factory, [], []) if factory else None)


def _doc(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""
