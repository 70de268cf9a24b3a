"""Odd inputs of the kinds that a user hands to the command line: pictures, prompts, options, recipes, models.

Each function makes a case of its kind in the folder ``here``, by chance; :mod:`fuzz` runs it, and :mod:`fuzz_data`
has the kinds that belong to data and results.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from spoiling import spoil


@dataclass(frozen=True)
class Case:
    argv: list[str]
    wrong: bool = True
    """Whether it cannot be meant, so that exit code 0 is wrong, too."""
    call: Callable[[], Any] | None = None
    """What is called in place of the command line."""


@dataclass(frozen=True)
class Ground:
    """What the cases stand on, made once by :func:`fuzz.make_ground`; cases work on copies of it."""

    model: Path
    """An untrained tiny model's folder."""
    root: Path
    """With ``run`` (two steps, to be resumed) and other folders."""
    recipe: tuple[str, ...]
    """The command line of ``run``."""
    url: str
    """A server that judges."""


Kind = Callable[[random.Random, Path, Ground], Case]
ODD_NUMBERS = ["nan", "inf", "-inf", "-1", "0.5.1", "", "x", "1e999", "9" * 400, "0xg", "1,2", "[1]", "null"]


def odd_images(rng: random.Random, here: Path, ground: Ground) -> Case:
    """``judge`` and ``edit`` with files that are no pictures, or broken ones."""
    path = here / rng.choice(["a.png", "a.jpg", "a\x1b[31m.png", "a\nb.png", "ä.png"])
    picture(here / "whole.png", rng)
    whole = (here / "whole.png").read_bytes()
    kind = rng.randrange(8)
    if kind == 0:
        path.write_bytes(whole[: rng.randrange(len(whole) - 40)])
    elif kind == 1:
        path.write_bytes(bytes(rng.randrange(256) for _ in range(rng.randrange(200))))
    elif kind == 2:
        path.write_bytes(png_header(rng.choice([1, 3, 30_000, 2**31 - 1]), rng.choice([1, 2, 30_000, 2**31 - 1])))
    elif kind == 3:
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n%%EOF\n")
    elif kind == 4:
        os.mkfifo(path)
    elif kind == 5:
        path.symlink_to(rng.choice([path, here / "theirs", Path("/dev/zero"), here / "missing"]))
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
        option = [rng.choice(numbers), rng.choice(ODD_NUMBERS[:-1])]  # null: the default
    else:
        option = [rng.choice(words), rng.choice(["float99", "cudaa", "x\0y", "-", "é", "\x1b[0m"])]
    argv = ["generate", "a red circle", "--model", str(ground.model), "--rounds", "1", "--samples", "1", *option]
    return Case([*argv, "--out", str(here / "o")], wrong=option != ["--seed", "-1"])


def odd_outputs(rng: random.Random, here: Path, ground: Ground) -> Case:
    """``--out`` that belongs to somebody else, or is no place to write."""
    (here / "file").write_text("x")
    (here / "link").symlink_to(here / "theirs")
    os.mkfifo(here / "pipe")
    places = [here / "theirs", here / "file", here / "link", here / "pipe", here / "file" / "x", Path("/dev/null")]
    out = str(rng.choice([*places, Path("/proc/nothing/x"), ".", "..", "", "a\0b"]))
    over = rng.choice([[], ["--overwrite"]])
    model = ["--model", str(ground.model)]
    if rng.random() < 0.3:
        return Case(["generate", "a red circle", "--samples", "1", "--rounds", "1", "--out", out, *model, *over])
    if rng.random() < 0.3:
        return Case(["convert", str(ground.model), out, *over])
    if out == str(here / "file") and over:
        out = str(here / "theirs")  # a plain file may be replaced when the user says so
    elif not over and rng.random() < 0.3:
        out = str(here / "theirs" / "thesis.txt")
    made = str(ground.root)
    commands = [
        ["eval", "compare", f"{made}/results/cited.json", "--out", out],
        ["data", "look", f"{made}/store", "--sheet", out],
        ["eval", "geneval2", "report", f"{made}/drawn", "--data", f"{made}/geneval2.jsonl", "--out", out],
        ["eval", "judge", "--data", f"{made}/store", *model, "--out", out],
        ["eval", "world", *model, "--limit", "1", "--samples", "1", "--rounds", "1", "--out", out],
    ]
    return Case([*rng.choice(commands), *over])


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
        extra = [rng.choice(options), rng.choice(ODD_NUMBERS)]
        return Case(["train", stage, "--config", str(path), "--run.out", str(here / "run"), *extra])
    return Case(["train", stage, "--config", str(path), "--run.out", str(here / "run")])


def odd_models(rng: random.Random, here: Path, ground: Ground) -> Case:
    """A model folder with one damaged, missing or hostile file."""
    folder = shutil.copytree(ground.model, here / "model")
    path = rng.choice([p for p in sorted(folder.iterdir()) if p.name in ("config.json", "model.safetensors")])
    kind = rng.randrange(7)
    if kind == 0:
        path.unlink()
    elif kind == 5:
        spoil(rng, rng.choice([path for path in sorted(folder.iterdir()) if path.is_file()]))
    elif kind == 6:
        outside = rng.choice(["../theirs/thesis.txt", "/etc/passwd", 3, None, "model.safetensors/.."])
        index = {"metadata": {}, "weight_map": rng.choice([{"lm_head.weight": outside}, [], None, {}])}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
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
    return Case([*argv, "--model", str(folder)], wrong=kind < 3)


def odd_resumes(rng: random.Random, here: Path, ground: Ground) -> Case:
    """A run whose checkpoint or record is damaged."""
    run = shutil.copytree(ground.root / "run", here / "run")
    files = [p for p in sorted(run.glob("checkpoints/*/*")) if p.suffix in (".json", ".safetensors", ".pt")]
    path = rng.choice([*files, run / "recipe.json"])
    command = [*ground.recipe, "--run.out", str(run), "--run.steps", "3", "--resume"]
    if rng.random() < 0.4:
        spoil(rng, rng.choice([path, run / "metrics.jsonl"]))
        return Case(command, wrong=False)
    if path.suffix == ".json":
        path.write_text(rng.choice(["", "[]", "null", "{}", "{", '{"step": "x"}', '{"step": NaN}', "[" * 100_000]))
    else:
        data = bytearray(path.read_bytes())
        if rng.random() < 0.5:
            data = data[: rng.randrange(len(data))]
        else:
            data[rng.randrange(len(data))] ^= 255
        path.write_bytes(bytes(data))
    return Case(command)


def odd_pairs(rng: random.Random, here: Path, ground: Ground) -> Case:
    """Edit pairs for SFT that are broken before the first step."""
    path = here / rng.choice(["pairs.jsonl", "pairs.json"])
    row = {"instruction": "make it red", "source": "theirs/thesis.txt", "target": "missing.png"}
    changed: dict[str, object] = dict(row)
    changed[rng.choice([*row])] = rng.choice(["", None, 3, [], {}, "\ud800", "<begin_of_image>", "../../etc/passwd"])
    path.write_bytes(rng.choice([b"", b"{", b"[]", b"[" * 50_000, json.dumps(changed).encode(), b"\xff", b"null"]))
    argv = ["train", "sft", "--model", str(ground.model), "--edits", str(path), "--run.out", str(here / "run")]
    return Case([*argv, "--run.steps", "1", "--shares", "{edit: 1.0}"])


def picture(path: Path, rng: random.Random) -> None:
    Image.fromarray(np.random.default_rng(rng.randrange(2**31)).integers(0, 256, (64, 64, 3), np.uint8)).save(path)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises so many pixels and holds none."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
