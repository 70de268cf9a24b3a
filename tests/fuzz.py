"""Malformed and odd inputs, seeded: each must end in one clear line, and must leave what belongs to the user alone.

CI runs a few hundred (``test_fuzz.py``); a longer run, with another seed:

    python tests/fuzz.py --cases 3000 --seed 1

A case is a command line in a folder of its own that holds what a user might have there, and perhaps one damaged input.
It is met badly if anything but 0 or 2 comes back, an exception escapes, the error is not one line, a foreign file
changes, code that a file brought runs, it takes over :data:`SECONDS`, or if what cannot be meant is accepted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SECONDS = 20
PRECIOUS = "thesis.txt"


@dataclass(frozen=True)
class Case:
    argv: list[str]
    wrong: bool = True
    """Whether it cannot be meant, so that exit code 0 is wrong, too."""


@dataclass(frozen=True)
class Ground:
    """What the cases stand on: an untrained tiny model, and a run of two steps to be resumed."""

    model: Path
    run: Path
    recipe: list[str]


Kind = Callable[[random.Random, Path, Ground], Case]
ODD_NUMBERS = ["nan", "inf", "-inf", "-1", "0.5.1", "", "x", "1e999", "9" * 400, "0x10", "1,2", "[1]", "null"]


def odd_images(rng: random.Random, here: Path, ground: Ground) -> Case:
    """``judge`` and ``edit`` with files that are no pictures, or broken ones."""
    path = here / rng.choice(["a.png", "a.jpg", "a\x1b[31m.png", "a\nb.png", "ä.png"])
    picture(here / "whole.png", rng)
    whole = (here / "whole.png").read_bytes()
    kind = rng.randrange(8)
    if kind == 0:
        path.write_bytes(whole[: rng.randrange(len(whole) - 12)])
    elif kind == 1:
        path.write_bytes(bytes(rng.randrange(256) for _ in range(rng.randrange(200))))
    elif kind == 2:
        path.write_bytes(png_header(rng.choice([1, 3, 30_000, 2**31 - 1]), rng.choice([1, 2, 30_000, 2**31 - 1])))
    elif kind == 3:
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n%%EOF\n")
    elif kind == 4:
        os.mkfifo(path)
    elif kind == 5:
        path.symlink_to(rng.choice([path, here, Path("/dev/zero"), here / "missing"]))
    elif kind == 6:
        path.mkdir()
    else:
        path = here / "missing.png"
    if rng.random() < 0.5:
        return Case(["judge", str(path), "--text", "a red circle", "--model", str(ground.model)])
    return Case(["edit", str(path), "make it red", "--model", str(ground.model), "--rounds", "1"])


def odd_prompts(rng: random.Random, here: Path, ground: Ground) -> Case:
    """Prompt files and prompts that hold nothing to draw."""
    path = here / rng.choice(["p.txt", "p.jsonl", "p.json", "p.csv", "p.tsv"])
    texts = [b"", b"\n\n# comment\n", b"\xff\xfe\x00a"]
    if path.suffix != ".txt":  # where most of these are prompts, if odd ones
        texts += [b'{"prompt": ', b'{"prompt": 3}', b'{"text": ""}', b"[" * 100_000, b'{"prompt": "\\ud800"}', b"null"]
        texts += [b"[[]]", b'["a", 3]', b'a,b\n"1', b"prompt,prompt\na,b", b"a\tb\n1\t2\t3", b"[NaN]"]
    path.write_bytes(rng.choice(texts))
    if rng.random() < 0.3:
        return Case(["generate", rng.choice(["", "  ", "\n", "a <begin_of_image>"]), "--model", str(ground.model)])
    return Case(["generate", "--file", str(path), "--model", str(ground.model), "--samples", "1", "--rounds", "1"])


def odd_options(rng: random.Random, here: Path, ground: Ground) -> Case:
    """Numbers that are none, and words that are no option."""
    numbers = ["--guidance", "--temperature", "--top-p", "--top-k", "--rounds", "--samples", "--seed", "--max-batch"]
    words = ["--dtype", "--device", "--final", "--history", "--guidnace", "--kv", "--model"]
    if rng.random() < 0.7:
        option = [rng.choice(numbers), rng.choice(ODD_NUMBERS)]
    else:
        option = [rng.choice(words), rng.choice(["float99", "cudaa", "x\0y", "-", "é", "\x1b[0m"])]
    return Case(["generate", "a red circle", "--model", str(ground.model), "--out", str(here / "o"), *option])


def odd_outputs(rng: random.Random, here: Path, ground: Ground) -> Case:
    """``--out`` that belongs to somebody else, or is no place to write."""
    (here / "file").write_text("x")
    (here / "link").symlink_to(here / "theirs")
    os.mkfifo(here / "pipe")
    places = [here / "theirs", here / "file", here / "link", here / "pipe", here / "file" / "x", Path("/dev/null")]
    out = str(rng.choice([*places, Path("/proc/nothing/x"), ".", "..", "", "a\0b"]))
    over = rng.choice([[], ["--overwrite"]])
    model = ["--model", str(ground.model)]
    if rng.random() < 0.5:
        return Case(["generate", "a red circle", "--samples", "1", "--rounds", "1", "--out", out, *model, *over])
    if out == str(here / "file") and over:
        out = str(here / "theirs")  # a plain file may be replaced when the user says so
    return Case(["convert", str(ground.model), out, *over])


def odd_recipes(rng: random.Random, here: Path, ground: Ground) -> Case:
    """YAML that is none, unknown keys, values that cannot be meant."""
    path = here / "r.yaml"
    stage = rng.choice(["vq", "pretrain", "sft", "rl"])
    texts = ["a: [", "- 1", "run: fast", "run: {steps: -1}", "run: {steps: x}", "run: {stepz: 1}", "lr: [1]", "3"]
    texts += ["run: 2001-13-40", "lr: .nan", "lr: -1", "lr: .inf", "run: {precision: fp8x}", "run: {log_every: 0}"]
    texts += ["x: &a [*a]", "[" * 5000, "!!python/object/apply:os.system [touch ran]", "run: {steps: 1e400}", "\x00"]
    path.write_text(rng.choice(texts) + "\n")
    if rng.random() < 0.4:
        path.write_text("")
        options = ["--lr", "--run.steps", "--run.warmup", "--run.grad_clip", "--run.log_every", "--weight_decay"]
        extra = [rng.choice(options), rng.choice([n for n in ODD_NUMBERS if n != "0x10"])]
        return Case(["train", stage, "--config", str(path), "--run.out", str(here / "run"), *extra])
    return Case(["train", stage, "--config", str(path), "--run.out", str(here / "run")])


def odd_models(rng: random.Random, here: Path, ground: Ground) -> Case:
    """A model folder with one damaged, missing or hostile file."""
    folder = shutil.copytree(ground.model, here / "model")
    path = rng.choice([p for p in sorted(folder.iterdir()) if p.name in ("config.json", "model.safetensors")])
    kind = rng.randrange(5)
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size // 2)])
    elif kind == 2:
        (folder / "config.json").write_text(rng.choice(["[]", "null", "{}", "[" * 100_000, '{"model_type": 3}', "x"]))
    elif kind == 3:
        (folder / "evil.py").write_text(f"open({str(here / 'ran')!r}, 'w')\nclass Evil: pass\n")
        config = json.loads((folder / "tokenizer_config.json").read_text())
        hostile = {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"}
        (folder / "tokenizer_config.json").write_text(json.dumps(config | hostile))
    else:
        (folder / "tokenizer.json").write_text(rng.choice(["", "{}", "[]", "{" * 1000]))
    argv = ["generate", "a red circle", "--samples", "1", "--rounds", "1", "--out", str(here / "o")]
    return Case([*argv, "--model", str(folder)], wrong=kind not in (3, 4))


def odd_resumes(rng: random.Random, here: Path, ground: Ground) -> Case:
    """A run whose checkpoint or record is damaged."""
    run = shutil.copytree(ground.run, here / "run")
    files = [p for p in sorted(run.glob("checkpoints/*/*")) if p.suffix in (".json", ".safetensors", ".pt")]
    path = rng.choice([*files, run / "recipe.json"])
    if path.suffix == ".json":
        path.write_text(rng.choice(["", "[]", "null", "{}", "{", '{"step": "x"}', '{"step": NaN}', "[" * 100_000]))
    else:
        data = bytearray(path.read_bytes())
        if rng.random() < 0.5:
            data = data[: rng.randrange(len(data))]
        else:
            data[rng.randrange(len(data))] ^= 255
        path.write_bytes(bytes(data))
    return Case([*ground.recipe, "--run.out", str(run), "--run.steps", "3", "--resume"])


def odd_pairs(rng: random.Random, here: Path, ground: Ground) -> Case:
    """Edit pairs for SFT that are broken before the first step."""
    path = here / rng.choice(["pairs.jsonl", "pairs.json"])
    row = {"instruction": "make it red", "source": "theirs/thesis.txt", "target": "missing.png"}
    changed: dict[str, object] = dict(row)
    changed[rng.choice([*row])] = rng.choice(["", None, 3, [], {}, "\ud800", "<begin_of_image>", "../../etc/passwd"])
    path.write_bytes(rng.choice([b"", b"{", b"[]", b"[" * 50_000, json.dumps(changed).encode(), b"\xff", b"null"]))
    argv = ["train", "sft", "--model", str(ground.model), "--edits", str(path), "--run.out", str(here / "run")]
    return Case([*argv, "--run.steps", "1", "--shares", "{edit: 1.0}"])


KINDS: dict[str, Kind] = {
    "images": odd_images,
    "prompts": odd_prompts,
    "options": odd_options,
    "outputs": odd_outputs,
    "recipes": odd_recipes,
    "models": odd_models,
    "resumes": odd_resumes,
    "pairs": odd_pairs,
}


def picture(path: Path, rng: random.Random) -> None:
    Image.fromarray(np.random.default_rng(rng.randrange(2**31)).integers(0, 256, (64, 64, 3), np.uint8)).save(path)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and holds none."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def run_case(kind: str, seed: str, ground: Ground) -> tuple[Case, str]:
    """The case and what was wrong with how it was met; "" for nothing."""
    from janus_r1.cli import main

    rng = random.Random(f"{kind} {seed}")
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        (here / "theirs").mkdir()
        (here / "theirs" / PRECIOUS).write_text("precious")
        case = KINDS[kind](rng, here, ground)
        out, err = io.StringIO(), io.StringIO()
        with working_in(here), deadline(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code: object = main(case.argv)
            except SystemExit as error:
                code = error.code
            except BaseException:
                return case, f"escaped: {traceback.format_exc(limit=-3)}"
        return case, verdict(case, code, err.getvalue(), here)


def verdict(case: Case, code: object, err: str, here: Path) -> str:
    errors = [line for line in err.splitlines() if line.startswith("janus-r1: error: ")]
    if (here / "ran").exists():
        return "code that a file brought was run"
    if (here / "theirs" / PRECIOUS).read_text() != "precious" or len(list((here / "theirs").iterdir())) != 1:
        return "a foreign file was touched"
    if code == 0:
        return "accepted" if case.wrong else ""
    if code != 2:
        return f"exit code {code}"
    if len(errors) != 1 or "Traceback" in err:
        return f"not one line: {err[-500:]!r}"
    if any(ord(c) < 32 or ord(c) == 127 for c in errors[0]):
        return f"control characters reach the terminal: {errors[0]!r}"
    return ""


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def deadline() -> Iterator[None]:
    def over(*_: object) -> None:
        raise TimeoutError(f"over {SECONDS} s")

    signal.signal(signal.SIGALRM, over)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def run_cases(cases: int, seed: int, ground: Ground, kinds: list[str]) -> list[str]:
    """What was met badly, a line each, of ``cases`` cases dealt over ``kinds``."""
    bad = []
    for number in range(cases):
        kind = kinds[number % len(kinds)]
        case, wrong = run_case(kind, f"{seed} {number}", ground)
        if wrong:
            bad.append(f"{kind} ({seed} {number}): {wrong}\n    {case.argv}")
    return bad


def make_ground(folder: Path) -> Ground:
    """Trains the image tokenizer for two steps, which makes a run to resume."""
    from janus_r1.cli import main
    from janus_r1.model.loading import resolve

    recipe = ["train", "vq", "--batch", "2", "--codes", "16", "--run.save_every", "1"]
    assert main([*recipe, "--run.out", str(folder / "run"), "--run.steps", "2"]) == 0
    return Ground(resolve("tiny-base"), folder / "run", recipe)


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bad = run_cases(args.cases, args.seed, make_ground(Path(folder)), args.kinds)
    print("\n".join(bad))
    counts = Counter(line.split(" ")[0] for line in bad)
    print(f"{len(bad)} of {args.cases} met badly: {dict(counts)}")
    return int(len(bad) > 0.01 * args.cases)


if __name__ == "__main__":
    sys.exit(_main())
