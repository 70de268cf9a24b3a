"""All that takes long is killed once at a random moment, and its disk fills once; the scripts do it more often."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import kills

HERE = Path(__file__).parent


@pytest.mark.parametrize("script", [["kills.py", "--kills", "1"], ["full_disk.py", "--times", "1"]], ids=lambda s: s[0])
def test_what_is_killed_or_runs_out_of_disk_goes_on(script):
    """In a process of its own, which forks: one that has run torch must not."""
    command = [sys.executable, str(HERE / script[0]), *script[1:], "--seed", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    assert all(f"{name}: " in done.stdout for name in kills.KINDS), done.stdout


def test_a_difference_is_noticed(tmp_path):
    with pytest.raises(AssertionError, match=r"\['a'\] differ"):
        kills.compare("x", {"a": 1, "b": 2}, {"a": 3, "b": 2}, tmp_path)
    (tmp_path / ".model.3.tmp").touch()
    with pytest.raises(AssertionError, match="leaves"):
        kills.compare("x", {}, {}, tmp_path)
