"""Versions, machine and commit: what a result needs beside its recipe."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from typing import Any

import torch


def environment() -> dict[str, Any]:
    """What is written beside a result, for JSON."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    packages = ("janus-r1", "torch", "transformers", "accelerate")
    return {
        "versions": {name: _version(name) for name in packages},
        "python": platform.python_version(),
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "commit": commit.stdout.strip() or None,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except Exception:  # an uninstalled checkout has no metadata
        return None
