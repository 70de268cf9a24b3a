"""Malformed and odd inputs, seeded: each must end in one clear line, and must leave what belongs to the user alone.

CI runs a few hundred (``test_fuzz.py``); a longer run, with another seed:

    python tests/fuzz.py --cases 3000 --seed 1

A case is a command line, or a call from Python, in a folder of its own that holds what a user might have there, and
perhaps one damaged input. It is met badly if anything but 0 or 2 comes back, an exception escapes, the error is not one
line, a foreign file changes, code that a file brought runs, something temporary is left, JSON that is none is printed,
it takes over :data:`SECONDS` or :data:`GIGABYTES`, or if what cannot be meant is accepted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import fuzz_data
import fuzz_inputs
import pie_bench
from data_formats import json_lines
from endpoint_server import Call, Endpoint
from fuzz_inputs import Case, Ground, Kind

SECONDS = 60  # of a case, on a machine that others use, too
GIGABYTES = 4.0  # of this process, all cases together
PRECIOUS = "thesis.txt"
KINDS: dict[str, Kind] = {
    "images": fuzz_inputs.odd_images,
    "prompts": fuzz_inputs.odd_prompts,
    "options": fuzz_inputs.odd_options,
    "outputs": fuzz_inputs.odd_outputs,
    "recipes": fuzz_inputs.odd_recipes,
    "models": fuzz_inputs.odd_models,
    "resumes": fuzz_inputs.odd_resumes,
    "pairs": fuzz_inputs.odd_pairs,
    "candidates": fuzz_data.odd_candidates,
    "stores": fuzz_data.odd_stores,
    "imports": fuzz_data.odd_imports,
    "rows": fuzz_data.odd_rows,
    "pie": fuzz_data.odd_pie,
    "results": fuzz_data.odd_results,
    "benchmarks": fuzz_data.odd_benchmarks,
    "chains": fuzz_data.odd_chains,
    "builds": fuzz_data.odd_builds,
    "python": fuzz_data.odd_python,
}


def run_case(kind: str, seed: str, ground: Ground) -> tuple[Case, str]:
    """The case and what was wrong with how it was met; "" for nothing."""
    rng = random.Random(f"{kind} {seed}")
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        (here / "theirs").mkdir()
        (here / "theirs" / PRECIOUS).write_text("precious")
        case = KINDS[kind](rng, here, ground)
        out, err = io.StringIO(), io.StringIO()
        before = set(here.rglob("*"))
        with working_in(here), deadline(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = answer(case)
            except SystemExit as error:
                code = error.code
            except BaseException:
                return case, f"escaped: {traceback.format_exc(limit=-3)}"
        wrong = verdict(case, code, err.getvalue(), here)
        left = [path.name for path in here.rglob(".*") if path not in before and path.name.endswith((".tmp", ".old"))]
        if not wrong and left:
            wrong = f"left behind: {left}"
        if not wrong and code == 0 and "--json" in case.argv:
            wrong = no_json(out.getvalue())
        if not wrong and (most := peak()) > GIGABYTES:
            wrong = f"{most:.1f} GB"
        return case, wrong


def answer(case: Case) -> object:
    """The exit code of a command line; of a call from Python what the same would be."""
    from janus_r1.cli import main
    from janus_r1.errors import UserError, one_line

    if case.call is None:
        return main(case.argv)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case.call()
    except UserError as error:
        print(f"janus-r1: error: {one_line(str(error))}", file=sys.stderr)
        return 2
    return 0


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


def no_json(text: str) -> str:
    """What is wrong with the JSON that a command printed."""

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} in JSON")

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError as error:
        return f"not JSON: {error}: {text[:200]!r}"
    return ""


def peak() -> float:
    """The most memory that this process ever held, in gigabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class TooSlow(BaseException):
    """No OSError, which the command line would turn into one line."""


@contextlib.contextmanager
def deadline() -> Iterator[None]:
    def over(*_: object) -> None:
        raise TooSlow(f"over {SECONDS} s")

    signal.signal(signal.SIGALRM, over)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def run_cases(cases: int, seed: int, ground: Ground, kinds: list[str], told: bool = False) -> list[str]:
    """What was met badly, a line each, of ``cases`` cases dealt over ``kinds``."""
    bad = []
    for number in range(cases):
        kind = kinds[number % len(kinds)]
        began = time.monotonic()
        case, wrong = run_case(kind, f"{seed} {number}", ground)
        if wrong:
            bad.append(f"{kind} ({seed} {number}): {wrong}\n    {case.argv}")
        if told and (wrong or time.monotonic() - began > SECONDS / 4):
            print(f"{time.monotonic() - began:.1f} s, {bad[-1] if wrong else (kind, number, case.argv)}", flush=True)
    return bad


# ---------------------------------------------------------------------------------------- the ground


@contextlib.contextmanager
def ground(folder: Path) -> Iterator[Ground]:
    """Everything that cases damage copies of, and a server that judges."""
    from janus_r1.model.loading import resolve

    with Endpoint(judging) as server:
        recipe = ("train", "vq", "--batch", "2", "--codes", "16", "--run.save_every", "1", "--run.trackers", "[]")
        made = Ground(resolve("tiny-base"), folder, recipe, server.url)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            make_ground(made)
        yield made


def judging(call: Call) -> None:
    call.probabilities(yes=0.75, no=0.25)


def make_ground(made: Ground) -> None:
    root, model = made.root, ["--model", str(made.model)]
    questions = [["Is there a circle?", "Yes"]]
    prompts = [f"a {color} circle" for color in ("red", "blue")]
    rows = [{"prompt": prompt, "vqa_list": questions, "skills": ["object"], "atom_count": 1} for prompt in prompts]
    (root / "geneval2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "source").mkdir()
    json_lines(root / "source")
    pie_bench.save_folder(root / "pie")
    keep_first(root / "pie")
    drawn, named = str(root / "drawn"), ["--data", str(root / "geneval2.jsonl")]
    report = ["eval", "geneval2", "report", drawn, *named]
    small = ["--limit", "2", "--samples", "1", "--rounds", "1", "--no-controls", "--variety", "0"]
    few = ["--temperatures", "[1.0]", "--renderings", "1", "--near_misses", "1"]
    for argv in (
        [*made.recipe, "--run.out", str(root / "run"), "--run.steps", "2"],
        ["data", "build", *model, "--out", str(root / "candidates"), "--prompts", "2", *few],
        ["data", "import", str(root / "source"), str(root / "store")],
        ["generate", "a red circle", *model, "--samples", "1", "--rounds", "2", "--out", str(root / "chain")],
        ["eval", "geneval2", "draw", drawn, *named, *model, "--rounds", "2", "--controls"],
        ["eval", "geneval2", "score", drawn, *named, "--url", made.url, "--model", "judge"],
        ["eval", "pie", "draw", str(root / "edited"), "--data", str(root / "pie"), *model, "--rounds", "1"],
        ["eval", "pie", "score", str(root / "edited"), "--data", str(root / "pie"), "--clip", "none", "--dino", "none"],
        [*report, "--out", str(root / "results" / "geneval2.json")],
        ["eval", "world", *model, *small, "--out", str(root / "results" / "world.json")],
    ):
        run(argv)
    cited = [{"benchmark": "geneval", "model": "X", "value": 0.8, "source": "a paper"}]
    (root / "results" / "cited.json").write_text(json.dumps(cited))
    official = {"tag": "single_object", "correct": True, "metadata": "{}", "filename": "a.png"}
    (root / "results" / "official.jsonl").write_text((json.dumps(official) + "\n") * 4)


def run(argv: list[str]) -> None:
    from janus_r1.cli import main

    if (code := main(argv)) != 0:
        raise RuntimeError(f"the ground of all cases cannot be made: {argv} ended with {code}")


def keep_first(pie: Path) -> None:
    """One edit is enough."""
    name, entry = next(iter(json.loads((pie / "mapping_file.json").read_text()).items()))
    pie_bench.write(pie, {name: entry})
    for path in (pie / "annotation_images").rglob("*.png"):
        if not str(path).endswith(entry["image_path"]):
            path.unlink()


@cache
def loaded(made: Ground) -> Any:
    from janus_r1 import JanusR1

    return JanusR1.from_pretrained(str(made.model))


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ground(Path(folder)) as made:
        bad = run_cases(args.cases, args.seed, made, args.kinds, told=True)
    counts = Counter(line.split(" ")[0] for line in bad)
    print(f"{len(bad)} of {args.cases} met badly: {dict(counts)}; {time.monotonic() - began:.0f} s, {peak():.1f} GB")
    return int(len(bad) > 0.01 * args.cases)


if __name__ == "__main__":
    sys.exit(_main())
