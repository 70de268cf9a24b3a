"""What a result needs beside its recipe (versions, machine and commit), and the Python that users bring."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zlib import crc32

from janus_r1.errors import UserError, first_line


def environment() -> dict[str, Any]:
    """What is written beside a result, for JSON."""
    import torch  # only where it is needed

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


def own_module(name: str) -> Any:
    """A module of the user's: a file that ends in ``.py``, or one that is installed. Its code is run.

    Raises:
        UserError: if there is none, or it fails when it is run.
    """
    path = Path(name).resolve()
    is_file = name.endswith(".py")
    if is_file and not path.is_file():
        raise UserError(f"no such file: {name}")
    try:
        return _run(path) if is_file else importlib.import_module(name)
    except Exception as error:  # whatever the user's code does
        raise UserError(f"{name} cannot be imported: {type(error).__name__}: {first_line(error)}") from error


def _run(path: Path) -> Any:
    # Two files of one name do not meet, and every process calls a file the same: what it defines may be pickled.
    name = f"janus_r1_user_{path.stem}_{crc32(str(path).encode()):08x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "its name ends in .py"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickle look for it here
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
