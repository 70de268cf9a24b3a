"""Seconds from process start to written images, and to the first line of help.

    python benchmarks/startup.py

The rival is python itself: the time to import torch and transformers and do nothing.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = {
    "import torch, transformers' Janus": ["-c", "import torch; from transformers import JanusForConditionalGeneration"],
    "janus-r1 --help": ["-m", "janus_r1.cli", "--help"],
    "janus-r1 generate, 4 samples, up to 3 rounds": [
        *["-m", "janus_r1.cli", "generate", "a red circle left of a blue square"],
        *["--samples", "4", "--rounds", "3", "--out", "OUT"],
    ],
}


def seconds(arguments: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *(str(Path(folder) / "out") if a == "OUT" else a for a in arguments)]
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - began


def main() -> None:
    for name, arguments in COMMANDS.items():
        times = sorted(seconds(arguments) for _ in range(5))
        print(f"{name:48} {statistics.median(times):6.2f} s   (least {times[0]:.2f}, most {times[-1]:.2f}, 5 runs)")


if __name__ == "__main__":
    main()
