"""Imports go one way, and the command line starts without torch."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "janus_r1"

TRAINING = "worlds.shapes.training"  # the tiny world's own stages are a room above the training room that they use

# Design section 3; a package may import its own level and those before it.
LEVELS = [
    {"environment", "errors", "fields", "files", "progress", "reading"},
    {"chain", "layout", "model", "worlds", "images", "sheet"},
    {"engine"},
    {"introspect"},
    {"data", "rewards"},
    {"api", "train", "eval", "serve", "recipe", "recipe_help"},
    {TRAINING, "commands", "cli"},
]


def level(name: str) -> int:
    return next(i for i, names in enumerate(LEVELS) if name in names)


def room(module: str) -> str:
    """The room of a module, ``janus_r1.`` left out."""
    return TRAINING if module.startswith(TRAINING) else module.split(".")[0]


def imported(path: Path) -> set[str]:
    """The rooms of every janus_r1 import in a file, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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


def test_the_world_knows_no_model():
    """The verifier reads pixels only: nothing under worlds/shapes/ may import torch or the model."""
    for path in (SOURCE / "worlds" / "shapes").glob("*.py"):
        assert imported(path) <= {"worlds", "chain"}, path.name
        assert "torch" not in path.read_text(encoding="utf-8"), path.name


def test_there_is_no_heap_called_utils():
    assert not [path for path in SOURCE.rglob("*") if "util" in path.name]
