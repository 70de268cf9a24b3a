"""A disk that fills under every command that writes, seeded: one line, what was there stays, the work can go on.

CI does it once each (``test_kills.py``); more often, and as root also on real small disks:

    python tests/full_disk.py --times 10 --seed 1 --tmpfs

A file may not grow beyond a random size (RLIMIT_FSIZE), or the folder lies on a tmpfs that is too small. The command
must end with exit code 2 and one line, or have had space enough; then it goes on without the limit and must come to
what it comes to undisturbed, or, where it was to replace something, that must still be there.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import kills
from kills import Ground, Kind, compare, ended, of_files, start, to_the_end

MODEL = "{made}/pretrain/model"
REPLACING: dict[str, Kind] = {
    "generate": Kind(
        f"generate cat --model {MODEL} --rounds 2 --samples 2 --out {{out}} --overwrite", of_files("**/*")
    ),
    "convert": Kind(f"convert {MODEL} {{out}} --overwrite", of_files("*")),
    "average": Kind(f"average {{out}} {MODEL} {MODEL} --overwrite", of_files("*")),
    "look": Kind("data look {made}/import --sheet {out} --overwrite", lambda out: {"": kills.digest(out)}),
    "report": Kind(
        f"eval geneval2 report {{made}}/draw {kills.DATA} --scores {{made}}/score --out {{out}} --overwrite",
        lambda out: {"": kills.digest(out)},
    ),
    "compare": Kind("eval compare {root}/cited.json --out {out} --overwrite", lambda out: {"": kills.digest(out)}),
}
"""Commands that write at once, over what they wrote before."""


def told(log: Path) -> str:
    """What is wrong with how a full disk was told."""
    text = log.read_text()
    errors = [line for line in text.splitlines() if line.startswith("janus-r1: error: ")]
    return "" if len(errors) == 1 and "Traceback" not in text else text[-1500:] or "nothing was said"


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """``folder`` on a disk of its own."""
    page = 4096
    size = max(2, size // page) * page
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def disturbed(argv: list[str], out: Path, log: Path, size: int) -> bool:
    """Run under a limit on files; whether it was hit. Raises AssertionError where that was not told in one line."""
    code = ended(start(argv, log, size), 600)
    if code == 0:
        return False
    assert code == 2 and not told(log), f"{' '.join(argv)} with {size} bytes ended with {code}: {told(log)}"
    return True


def on_a_small_disk(kind: Kind, ground: Ground, name: str, rng: random.Random, log: Path) -> bool:
    """As :func:`disturbed`, on a tmpfs; what the command left there is then moved to where there is room."""
    out = ground.root / "full" / name
    used = sum(path.stat().st_size for path in [ground.made(name), *ground.made(name).rglob("*")] if path.is_file())
    moved = ground.root / "moved"
    with small_disk(out.parent, rng.randrange(1, used + 4096)):
        code = ended(start(kind.argv(ground, out), log), 600)
        assert code in (0, 2), f"{name} on a small disk ended with {code}: {told(log)}"
        assert code == 0 or not told(log), f"{name} on a small disk: {told(log)}"
        shutil.rmtree(moved, ignore_errors=True)
        shutil.copytree(out.parent, moved, symlinks=True)
    shutil.copytree(moved, out.parent, dirs_exist_ok=True)
    return code != 0


def goes_on(name: str, ground: Ground, rng: random.Random, whole: kills.Found, tmpfs: bool) -> bool:
    """Fill the disk once, go on, compare; whether there was too little space."""
    kind, out, log = kills.KINDS[name], ground.root / "full" / name, ground.root / "log"
    shutil.rmtree(out.parent, ignore_errors=True)
    out.parent.mkdir()
    if tmpfs:
        full = on_a_small_disk(kind, ground, name, rng, log)
    else:
        files = [path for path in [ground.made(name), *ground.made(name).rglob("*")] if path.is_file()]
        size = rng.randrange(max(path.stat().st_size for path in files))
        full = disturbed(kind.argv(ground, out), out, log, size)
    if full:
        to_the_end([*kind.argv(ground, out), *kind.resume], log)
    compare(name, whole, kind.found(out), out.parent)
    return full


def keeps(name: str, ground: Ground, rng: random.Random) -> bool:
    """Write, then write again on a full disk: what was there stays."""
    kind, out, log = REPLACING[name], ground.root / "full" / name, ground.root / "log"
    shutil.rmtree(out.parent, ignore_errors=True)
    out.parent.mkdir()
    to_the_end(kind.argv(ground, out), log)
    before = kind.found(out)
    files = [path for path in [out, *out.rglob("*")] if path.is_file()]
    full = disturbed(kind.argv(ground, out), out, log, rng.randrange(max(path.stat().st_size for path in files)))
    if full:
        assert kind.found(out) == before, f"{name}: what was there did not stay"
    left = [path.name for path in out.parent.rglob(".*") if path.name.endswith((".tmp", ".old", ".lock"))]
    assert not left, f"{name} leaves {left}"
    return full


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, help="of each command")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tmpfs", action="store_true", help="every other time on a small disk; needs root")
    parser.add_argument("--kinds", nargs="*", default=[*kills.KINDS, *REPLACING])
    args = parser.parse_args()
    kills.prepare()
    failures = 0
    with tempfile.TemporaryDirectory() as folder, kills.make_ground(Path(folder)) as ground:
        for name in [*kills.KINDS, *REPLACING]:
            whole = kills.run_whole(name, ground) if name in kills.KINDS else {}
            rng, began, full = random.Random(f"{name} {args.seed}"), time.monotonic(), 0
            for number in range(args.times if name in args.kinds else 0):
                try:
                    small = args.tmpfs and number % 2 == 1
                    full += goes_on(name, ground, rng, whole, small) if whole else keeps(name, ground, rng)
                except AssertionError as error:
                    failures += 1
                    print(f"FAILED {error}", flush=True)
            print(f"{name}: {full} of {args.times} met a full disk; {time.monotonic() - began:.0f} s", flush=True)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{failures} failures; {spent.ru_utime + spent.ru_stime:.0f} s of CPU")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(_main())
