"""Imports go one way, and the command line starts without torch."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "janus_r1"

TRAINING = "worlds.shapes.training"  # the tiny world's own stages are a room above the training room that they use

# Design section 3; a package may import its own level and those before it.
LEVELS = [
    {"environment", "errors", "fields", "files", "options", "progress", "reading", "segments"},
    {"chain", "layout", "model", "worlds", "images", "sheet"},
    {"engine"},
    {"introspect", "ask"},
    {"data", "rewards"},
    {"api", "train", "eval", "serve", "recipe"},
    {TRAINING, "commands", "parser", "cli", "__main__"},
]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def level(name: str) -> int:
    return next(i for i, names in enumerate(LEVELS) if name in names)


def room(module: str) -> str:
    """The room of a module, ``janus_r1.`` left out."""
    return TRAINING if module.startswith(TRAINING) else module.split(".")[0]


def imported(path: Path) -> set[str]:
    """The rooms of every janus_r1 import in a file, also inside functions."""
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("janus_r1."):
            names.add(room(node.module.removeprefix("janus_r1.")))
        elif isinstance(node, ast.ImportFrom) and node.module == "janus_r1":
            names |= {alias.name for alias in node.names if (SOURCE / f"{alias.name}.py").exists()}
        elif isinstance(node, ast.Import):
            names |= {room(a.name.removeprefix("janus_r1.")) for a in node.names if a.name.startswith("janus_r1.")}
    return names


def test_imports_only_go_one_way():
    wrong = []
    for path in SOURCE.rglob("*.py"):
        own = room(".".join(path.relative_to(SOURCE).with_suffix("").parts))
        if own == "__init__":
            continue
        wrong += [f"{path.name} imports {name}" for name in imported(path) if level(name) > level(own)]
    assert not wrong


def test_general_rooms_know_no_world():
    """They get one by its name, so that a user's own world can stand where the package's does."""
    worlds = SOURCE / "worlds"
    known = [path for path in SOURCE.rglob("*.py") if worlds not in path.parents]
    lines = [(path.name, line) for path in known for line in path.read_text(encoding="utf-8").splitlines()]
    assert not [found for found in lines if re.search(r"import.*worlds\.shapes|from janus_r1\.worlds\.\w+\.", found[1])]
    shapes = [path for path in worlds.glob("*.py") if "worlds.shapes" in path.read_text(encoding="utf-8")]
    assert not shapes, "worlds/base.py finds a world by its name"


def test_the_world_knows_no_model():
    """The verifier reads pixels only: nothing under worlds/shapes/ may import torch or the model."""
    for path in (SOURCE / "worlds" / "shapes").glob("*.py"):
        assert imported(path) <= {"worlds", "chain"}, path.name
        assert "torch" not in path.read_text(encoding="utf-8"), path.name


def test_only_the_model_room_reaches_into_transformers_modules():
    """Everywhere else a model is a :class:`Janus`; ``.core`` is what that class wraps."""
    room = SOURCE / "model"
    reaching = [
        f"{path.relative_to(SOURCE)}, line {node.lineno}"
        for path in SOURCE.rglob("*.py")
        if room not in path.parents
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and node.attr == "core"
    ]
    assert not reaching


def test_there_is_no_heap_called_utils():
    assert not [path for path in SOURCE.rglob("*") if "util" in path.name]


# ------------------------------------------------------------------------------------- files


def modules() -> dict[str, Path]:
    """Every module of the package by its full name."""
    names = {path: ".".join(("janus_r1", *path.relative_to(SOURCE).with_suffix("").parts)) for path in files()}
    return {name.removesuffix(".__init__"): path for path, name in names.items()}


def files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def needs(path: Path, known: set[str], inside_functions: bool) -> set[str]:
    """Modules that a file imports; what is for type checkers alone is none of them."""
    found: set[str] = set()

    def walk(nodes: list[ast.stmt]) -> None:
        for node in nodes:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                continue
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("janus_r1"):
                full = [f"{node.module}.{alias.name}" for alias in node.names]
                found.update(name if name in known else str(node.module) for name in full)
            inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
            if inside_functions or not isinstance(node, ast.FunctionDef | ast.ClassDef):
                walk(inner)

    walk(parsed(path).body)
    return found & known


def graph(inside_functions: bool) -> dict[str, set[str]]:
    known = modules()
    return {name: needs(path, set(known), inside_functions) - {name} for name, path in known.items()}


def longest_paths(edges: dict[str, set[str]]) -> tuple[dict[str, int], list[list[str]]]:
    """How many modules the longest chain of imports below each one has, itself included, and the circles."""
    depth: dict[str, int] = {}
    circles: list[list[str]] = []

    def visit(name: str, above: list[str]) -> int:
        if name in above:
            circles.append([*above[above.index(name) :], name])
            return 0
        if name not in depth:
            depth[name] = 1 + max((visit(other, [*above, name]) for other in sorted(edges[name])), default=0)
        return depth[name]

    for name in edges:
        visit(name, [])
    return depth, circles


def test_no_circle_of_imports_not_even_inside_functions():
    assert not longest_paths(graph(inside_functions=True))[1]


def test_a_circle_would_be_found():
    assert longest_paths({"a": {"b"}, "b": {"c"}, "c": {"b"}})[1] == [["b", "c", "b"]]


def test_no_file_is_longer_than_one_reads_in_one_go():
    assert not [f"{path.name}: {n}" for path in files() if (n := len(path.read_text().splitlines())) > 400]


def test_no_function_is_longer_than_a_screen():
    """Its statements, that is: arguments and what a docstring says of them may need more room."""
    long = []
    for path in files():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[1:2] if ast.get_docstring(node) else node.body
                if first and (lines := node.end_lineno - first[0].lineno + 1) > 60:
                    long.append(f"{path.name}: {node.name}, {lines}")
    assert not long


def test_the_longest_chain_of_imports_grows_no_further():
    """docs/architecture.md says why it is no shorter: to draw takes 7 files, and the server stands on all of them."""
    depth, _ = longest_paths(graph(inside_functions=False))
    assert depth["janus_r1.introspect"] <= 7
    assert depth["janus_r1.train.sft"] <= 9
    most = {"serve": 12, "worlds": 11}  # of all other rooms 10
    longer = {name: n for name, n in depth.items() if n > most.get(name.removeprefix("janus_r1.").split(".")[0], 10)}
    assert not longer
