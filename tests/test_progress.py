"""Reports of long work: the time left counts this session's work only; NaN is not averaged in."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from janus_r1.progress import Lines, LiveTable


def test_lines_come_every_so_often_and_at_the_end(capsys, monkeypatch):
    clock = iter([0.0, 4.0, 10.0])
    monkeypatch.setattr("janus_r1.progress.time.monotonic", lambda: next(clock))
    lines = Lines(start=10, total=15, unit="part", every=4)
    for done in range(11, 16):
        lines.update(done, {"loss": 0.5})
    first, last = capsys.readouterr().out.splitlines()
    assert first == "part 12/15  loss 0.5  2.00 s/part  0.1 min left"  # two parts in four seconds, not twelve
    assert last.startswith("part 15/15") and last.endswith("0.0 min left")


def test_the_table_shows_now_and_the_mean_without_nan():
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    live = LiveTable("run", 0, 3, console)
    for done, value in enumerate([1.0, float("nan"), 3.0], 1):
        live.update(done, {"fixed": value, "never": float("nan")})
    live.stop()
    console.file.truncate(0)
    console.print(live.table())
    text = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())
    assert re.search(r"fixed\s+3\s+2\b", text) and re.search(r"never\s+nan\s+-", text)


@pytest.mark.parametrize("total", [1, 3])
def test_the_last_line_is_always_printed(capsys, total):
    lines = Lines(0, total, "step", every=100)
    for done in range(1, total + 1):
        lines.update(done, {})
    assert len(capsys.readouterr().out.splitlines()) == 1
