"""Build a wheel of this tree, install it outside of it, and use it: ``make wheel``.

    python tests/wheel.py               # everything, a few minutes
    python tests/wheel.py --keep DIR    # leave the environment and what was written in DIR

What the package needs besides itself is taken from the environment that runs this, so that torch is not downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HELP = """
import contextlib, io, time
from janus_r1.cli import COMMANDS, GROUPS, main
for name in [*COMMANDS, *GROUPS]:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main([*name.split(), "--help"])
    assert shown.getvalue().startswith(f"usage: janus-r1 {name}".strip()), name
print(len(COMMANDS), "commands and", len(GROUPS), "groups print their help")
"""
COMMANDS = (
    'generate "a red circle left of a blue square" --samples 1 --out drawn --json',
    'judge drawn/01/round_1.png --text "a red circle left of a blue square"',
    'edit drawn/01/round_1.png "make the red circle green" --out edited',
    "train sft --config shapes/sft --print_config",
    "data build --config shapes/candidates --model tiny-base --prompts 16 --part 16 --threads 1 --out few",
    "train sft --config shapes/sft --run.steps 2 --run.out run --run.threads 1 --model tiny-base --candidates few "
    "--compile false --micro_batch 8",
)


def install(folder: Path) -> Path:
    """The folder of executables of a new environment that holds the wheel and, by a path file, what it needs."""
    source = folder / "source"  # a copy: building leaves things behind
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = [*pip, "wheel", str(source), "--no-deps", "--no-build-isolation", "-w", str(folder / "dist")]
    subprocess.run(built, check=True)
    wheel = next((folder / "dist").glob("*.whl"))
    venv.create(folder / "env", with_pip=False)
    site = next((folder / "env" / "lib").glob("python*")) / "site-packages"
    inside = ["--python", str(folder / "env" / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*pip, *inside], check=True)
    (site / "needed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, {len(list(site.rglob('*.yaml')))} YAML files installed")
    return folder / "env" / "bin"


def use(executables: Path, place: Path) -> None:
    """Run all commands in ``place``, in which there is nothing else.

    Raises:
        CalledProcessError: for the first that fails.
    """
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    python = [str(executables / "python"), "-c"]
    where = subprocess.run(
        [*python, "import janus_r1; print(janus_r1.__file__)"], cwd=place, env=clean, check=True, capture_output=True
    )
    home = Path(where.stdout.decode().strip())
    assert executables.parent in home.parents, f"not the wheel's own package: {home}"
    subprocess.run([*python, HELP], cwd=place, env=clean, check=True)
    for command in COMMANDS:
        print(f"janus-r1 {command}", flush=True)
        began = time.monotonic()
        words = [str(executables / "janus-r1"), *shlex.split(command)]
        done = subprocess.run(words, cwd=place, env=clean, check=True, stdout=subprocess.PIPE, text=True)
        if "--json" in words:
            json.loads(done.stdout)
        print(f"    {time.monotonic() - began:.1f} s")
    unmade = [str(executables / "janus-r1"), "train", "sft", "--config", "shapes/sft"]
    refused = subprocess.run(unmade, cwd=place, env=clean, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "makes it" in refused.stderr, refused.stderr
    print(refused.stderr.strip())
    assert (place / "run" / "model" / "config.json").is_file()


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--keep", metavar="DIR", type=Path, help="a new folder that is not removed")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as temporary:
        folder = (keep or Path(temporary)).absolute()
        place = folder / "place"
        place.mkdir(parents=True)
        use(install(folder), place)


if __name__ == "__main__":
    main()
