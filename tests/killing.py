"""Programs that are killed in the middle of training, and go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from janus_r1.train.checkpoint import newest_checkpoint


def run_code(code: str, *arguments: str) -> None:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def kill_after_first_checkpoint(code: str, out: Path) -> None:
    """Start the program and kill -9 it as soon as its first checkpoint stands."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while newest_checkpoint(out) is None:
        assert process.poll() is None, "the run ended before its first checkpoint"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
