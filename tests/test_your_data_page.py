"""docs/your-data.md from top to bottom: every block runs, on a tiny model, with no world involved."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janus_r1.api import JanusR1
from janus_r1.cli import main
from serve_house import pixels_of, serving

PAGE = Path(__file__).parent.parent / "docs" / "your-data.md"


def blocks() -> list[tuple[str, str]]:
    """(language, code) in order; a block that begins with a file's name is that file."""
    return re.findall(r"```(python|sh|yaml)\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def run(language: str, code: str) -> None:
    name = re.match(r"# (\S+\.(?:py|yaml))\n", code)
    if name:
        Path(name.group(1)).write_text(code)
    elif language == "python":
        exec(compile(code, str(PAGE), "exec"), {})
    else:
        for line in code.splitlines():
            command = shlex.split(line, comments=True)
            assert command[0] == "janus-r1"
            assert main(command[1:]) == 0, line


def test_the_newcomers_path(tmp_path, monkeypatch, capsys):
    pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)
    found = blocks()
    assert [language for language, _ in found].count("sh") == 5
    for language, code in found:
        run(language, code)
    losses = [json.loads(line)["image_loss"] for line in Path("runs/mine/metrics.jsonl").read_text().splitlines()]
    assert np.isfinite(losses).all()
    rewards = [json.loads(line)["reward_draw"] for line in Path("runs/mine-rl/metrics.jsonl").read_text().splitlines()]
    assert all(0 < reward < 1 for reward in rewards)
    assert Path("errors").is_dir() or "12 of 12" in capsys.readouterr().out
    assert Image.open("edited.png").size == (64, 64)
    made = json.loads(Path("data/made/report.json").read_text())
    assert made["images"] == 6 and made["sources"] == {"tiny-base": 4, "pictures": 2} and made["scored"] == 6
    model = JanusR1.from_pretrained("runs/mine-rl/adapter")  # what was trained is served
    with serving(model) as running:
        drawn = running.client().images.generate(prompt="a red circle", extra_body={"seed": 7, "rounds": 1})
    alone = JanusR1.from_pretrained("runs/mine-rl/adapter").generate("a red circle", seed=7, rounds=1)[0]
    assert (pixels_of(drawn.data[0].b64_json) == alone.pixels).all()
