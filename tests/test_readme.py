"""The README's code runs: Python blocks as they stand, janus-r1 lines that draw or judge, too."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from janus_r1.cli import main, parse

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("janus-r1 ")]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


def test_generate_and_judge_lines_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ran = [c for c in commands() if c[0] in ("generate", "judge")]
    assert ran, "the README shows no generate or judge line"
    for command in ran:
        assert main(command) == 0, command


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_line_parses(command):
    parse(command)


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)", TEXT) + re.findall(r'src="(?!http)([^"]+)"', TEXT):
        assert (ROOT / target).exists(), target


def test_the_file_map_names_every_package():
    for folder in (ROOT / "src" / "janus_r1").iterdir():
        if folder.is_dir() and (folder / "__init__.py").exists():
            assert f"{folder.name}/" in MAP, folder.name
