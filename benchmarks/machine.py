"""How speed is measured, and against what: arms by turns, this machine's name, its copy bandwidth and memory."""

from __future__ import annotations

import gc
import json
import platform
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch

from janus_r1.environment import environment

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def name(device: str) -> str:
    """GPU name, or the processor's."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0]}, {len(models)} threads" if models else platform.processor() or platform.machine()


def synchronize(device: str) -> None:
    """Wait until the device is done; a CPU always is."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def copy_bandwidth(device: str, repeats: int = 7) -> float:
    """Bytes a second read and written by the best of ``repeats`` plain copies of a tensor far beyond any cache."""
    size = (4 if torch.device(device).type == "cuda" else 1) * 2**28
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(repeats):
        synchronize(device)
        began = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size / best


def forget_peak(device: str) -> None:
    """Start a new count of :func:`peak_memory`."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif RESET.exists():
        RESET.write_text("5")


def peak_memory(device: str) -> int:
    """Bytes: largest allocation on a GPU; on a CPU the largest resident set (weights and Python included)."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@dataclass
class Turns:
    """What an arm did: seconds and results of its turns but the first, peak bytes of all."""

    seconds: list[float] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)


def take_turns(arms: Mapping[str, Callable[[], Any]], repeats: int, device: str) -> dict[str, Turns]:
    """Every arm ``repeats`` times, by turns, so that a busy moment favours none; a turn before them warms up."""
    found = {name: Turns() for name in arms}
    for turn in range(repeats + 1):
        for name, arm in arms.items():
            forget_peak(device)
            began = time.perf_counter()
            result = arm()
            synchronize(device)
            took = time.perf_counter() - began
            found[name].peaks.append(peak_memory(device))
            if turn:
                found[name].seconds.append(took)
                found[name].results.append(result)
    return found


def append(path: Path, record: dict[str, Any]) -> None:
    """One line of JSON more."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def report(path: Path, measured: Mapping[str, Any], save: bool) -> None:
    """Print what was measured today in this environment, and append it to ``path`` where it is to be kept."""
    record = {"date": str(date.today()), **measured, "environment": environment()}
    print(json.dumps(record, indent=1))
    if save:
        append(path, record)


@contextmanager
def saving(path: Path, record: Mapping[str, Any], save: bool) -> Iterator[list[dict[str, Any]]]:
    """Rows to fill, appended with ``record`` at the end: also of a run that fails, or is told to stop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows: list[dict[str, Any]] = []
    try:
        yield rows
    finally:
        if rows and save:
            append(path, {**record, "rows": rows})
