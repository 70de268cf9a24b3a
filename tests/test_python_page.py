"""docs/python.md says what the code says, and its example runs."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import janus_r1
from janus_r1.chain import Settings

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
HOMES = {"JanusR1": "api", "Chain": "chain", "Round": "chain", "Verdict": "chain", "JanusReward": "rewards/janus"}
OF_REWARDS = {"score", "explain"}  # of a reward among others, not for users


def told(node: ast.ClassDef, dunders: frozenset[str] = frozenset()) -> dict[str, str]:
    """Public fields and functions of a class, with their types and defaults."""
    found = {}
    for item in node.body:
        if isinstance(item, ast.AnnAssign):
            found[ast.unparse(item.target)] = ast.unparse(item.annotation)
        elif isinstance(item, ast.FunctionDef) and (not item.name.startswith("_") or item.name in dunders):
            kind = " ".join(ast.unparse(one) for one in item.decorator_list)
            found[item.name] = f"{kind} ({ast.unparse(item.args)}) -> {ast.unparse(item.returns)}"
    return found


def classes(source: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}


def test_every_signature_is_that_of_the_code():
    page = classes("\n".join(re.findall(r"```pyi\n(.*?)```", PAGE, flags=re.DOTALL)))
    assert page.keys() == HOMES.keys()
    for name, home in HOMES.items():
        code = classes((ROOT / "src" / "janus_r1" / f"{home}.py").read_text(encoding="utf-8"))[name]
        dunders = frozenset({"__call__"} if name == "JanusReward" else ())
        own = {key: value for key, value in told(code, dunders).items() if key not in OF_REWARDS or home == "api"}
        assert told(page[name], dunders) == own
    assert {*janus_r1.__all__} <= {*re.findall(r"\w+", PAGE)}


def test_every_setting_is_listed_with_its_default():
    listed = re.findall(r"^\| `(\w+)` \| .+ \| `(\S+)` \|$", PAGE, flags=re.MULTILINE)
    assert listed == [(one.name, str(one.default)) for one in dataclasses.fields(Settings)]


def test_the_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names: dict = {}
    exec(compile(code, "python.md", "exec"), names)
    assert names["verdict"].p_yes <= 1 and names["edited"].image.size == (64, 64) and isinstance(names["answer"], str)
