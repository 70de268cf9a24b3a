"""Record what the product does today, and compare two recordings: the test of a refactoring.

    python studies/record.py record before.json                  # all parts, about ten minutes on one core
    python studies/record.py record after.json --only chains,layouts
    python studies/record.py compare before.json after.json      # lists what differs

Exit code of ``compare``: 0 if ids and verdicts are equal, 1 if any of them differs. Figures of evaluations, losses,
weights, options and error lines are listed too, and left to be judged. Everything goes through the command line and
the public API; what will have other names after a refactoring stands in the next section alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: sums of several threads are not always the same

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

# ---------------------------------------------------------------------------- names that may change

MODELS = ("tiny-sft", "tiny-r1", "tiny-r1-edit")
COMMANDS = (
    "generate", "edit", "judge", "convert", "average", "data splits", "data build", "train vq", "train pretrain",
    "train vision", "train sft", "train rl", "eval world", "eval edit", "eval judge",
    "eval tokenizer",
)  # fmt: skip
MISTAKES = (
    "generate", "generate|", "generate|a red circle|--rounds|0", "generate|a red circle|--guidance|0.5",
    "generate|a red circle|--model|nowhere", "generate|a red circle|--nonsense", "generate|--file|nowhere.txt",
    "edit|nowhere.png|make it blue", "judge|nowhere.png|--text|a red circle", "judge", "convert|nowhere|{out}/x",
    "average|{out}/x|nowhere|tiny-sft", "data splits|--nonsense", "data build|--promts|3", "data build|--prompts|many",
    "train sft|--config|nowhere.yaml", "train sft|--rowz|3", "train sft|--model|nowhere|--run.out|{out}/x",
    "train rl|--credit|none", "train vq|--batch|few", "train pretrain|--vq|nowhere|--run.out|{out}/x",
    "eval world|--split|none", "eval world|--limit|0", "eval edit|--rounds|none",
    "eval judge|--model|nowhere", "eval tokenizer|--model|nowhere", "nonsense",
)  # fmt: skip
EVALUATIONS = {"world": "eval world --limit 60 --samples 2 --json", "edit": "eval edit --limit 60 --json"}
RUN = "--run.steps 20 --run.log_every 1 --run.save_every 0 --run.preview_every 0 --run.threads 1 --run.precision no"
TRAININGS = {  # in this order; {out} holds all their folders
    "vq": f"train vq {RUN} --run.out {{out}}/vq --batch 4 --codes 64 --continuous_steps 8",
    "pretrain": f"train pretrain {RUN} --run.out {{out}}/pretrain --vq {{out}}/vq/vq --draw_rows 6 --see_rows 3 "
    "--edit_rows 2 --hidden 64 --layers 2 --intermediate 96 --tokenizer_prompts 60",
    "candidates": "data build --out {out}/candidates --model tiny-base --prompts 24 --part 24 --temperatures [1.0] "
    "--renderings 1 --near_misses 1 --threads 1",
    "sft": f"train sft {RUN} --run.out {{out}}/sft --model tiny-base --candidates {{out}}/candidates "
    '--rows 10 --optimizer muon --lr 1e-3 --shares {"draw":0.2,"judge":0.2,"redraw":0.2,"see":0.2,'
    '"edit":0.1,"judge_edit":0.05,"redraw_edit":0.05}',
    "rl": f"train rl {RUN} --run.out {{out}}/rl --model tiny-sft --prompts_per_step 2 --group 3 --rounds 2 --lr 1e-4 "
    "--credit calibrated --max_reason_tokens 12",
    "rl_edits": f"train rl {RUN} --run.steps 6 --run.out {{out}}/rl_edits --model tiny-r1-edit --prompts_per_step 2 "
    "--group 2 --rounds 2 --task both --lr 1e-4 --max_reason_tokens 12",
}


def load_api(name: str, **options: Any) -> Any:
    """The public model of this name or folder."""
    from janus_r1 import JanusR1

    return JanusR1.from_pretrained(name, **options)


def layouts(folder: Path) -> Iterator[tuple[str, Any]]:
    """The wrapped model of every kind of checkpoint that can be loaded, with a name."""
    from originals import write_original

    for name in MODELS:
        yield name, load_api(name).model
    janus = load_api(MODELS[0]).model
    for name, changes in {
        "bin": {},
        "bin in shards": {"shards": 3},
        "bin in shards without index": {"shards": 3, "index": False},
        "safetensors": {"form": "safetensors"},
        "safetensors in shards": {"form": "safetensors", "shards": 2},
    }.items():
        written = write_original(janus, folder / name, **changes)
        yield name, load_api(str(written)).model
        if name == "bin":
            yield "weights beside a folder", load_api(str(written), weights=written / "pytorch_model.bin").model
    load_api(MODELS[0]).save_pretrained(folder / "saved")
    yield "saved", load_api(str(folder / "saved")).model
    yield "bfloat16", load_api(MODELS[0], dtype="bfloat16").model
    yield "int8", load_api(MODELS[0], dtype="int8").model


# -------------------------------------------------------------------------------------- what is drawn

OBJECTS = ("a red circle", "a small blue star", "a large pink heart", "two green squares", "a yellow ring")
PLACES = (" left of a blue cross", " above a small white triangle", " and a purple diamond", "")
CHANGES = ("make the circle blue", "remove the star", "add a large green ring", "replace the heart with a cross")


def chains_of(name: str) -> dict[str, Any]:
    """40 chains of 20 prompts, 20 edits of their first drafts, and verdicts on those drafts."""
    model = load_api(name)
    prompts = [thing + place for thing in OBJECTS for place in PLACES]
    chains = model.generate(prompts, samples=2, rounds=3, max_batch=16)
    sources = [chain.rounds[0].pixels for chain in chains[::2]]
    changes = [CHANGES[i % len(CHANGES)] for i in range(len(sources))]
    filtered = model.generate(prompts[:6], rounds=2, guidance=3.0, top_k=40, top_p=0.9, temperature=0.8, history="last")
    return {
        "generate": [_rounds(chain) for chain in chains],
        "generate, filtered": [_rounds(chain) for chain in filtered],
        "edit": [_rounds(chain) for chain in model.edit(sources, changes, rounds=2, max_batch=8)],
        "judge": [_said(verdict) for verdict in model.judge(sources, prompts)],
    }


def _rounds(chain: Any) -> dict[str, Any]:
    rounds = [{"ids": list(r.ids), "pixels": _hash(r.pixels.tobytes()), **_said(r.verdict)} for r in chain.rounds]
    return {"final": chain.final, "rounds": rounds}


def _said(verdict: Any) -> dict[str, Any]:
    return {"verdict": verdict.text, "accepted": verdict.accepted, "p_yes": round(verdict.p_yes, 4)}


# ---------------------------------------------------------------------------------------------- parts


def record_chains() -> dict[str, Any]:
    return {name: chains_of(name) for name in MODELS}


def record_layouts() -> dict[str, Any]:
    from originals import logits

    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name, janus in layouts(Path(folder)):
            parts = [part.float() for part in logits(janus)]
            found[name] = {
                "hash": _hash(*(part.contiguous().numpy().tobytes() for part in parts)),
                "mean": [round(float(part.mean()), 3) for part in parts],
            }
        return found


def record_evaluations() -> dict[str, Any]:
    found = {}
    for model in MODELS:
        for name, command in EVALUATIONS.items():
            done = _run([*command.split(), "--model", model])
            _must(done, command)
            found[f"{model}, {name}"] = _steady(json.loads(done.stdout))
    return found


def record_commands() -> dict[str, Any]:
    helps = {}
    for command in COMMANDS:
        done = _run([*command.split(), "--help"])
        options = sorted(set(re.findall(r"(?<![\w-])--[A-Za-z][\w.-]*", done.stdout.split("examples:")[0])))
        keys = done.stdout.split("recipe keys")[-1] if "recipe keys" in done.stdout else ""
        options = sorted({*options, *re.findall(r"^\s+(--[\w.]+)", keys, re.MULTILINE)})
        helps[command] = {"code": done.returncode, "options": options, "hash": _hash(done.stdout.encode())}
    mistakes = {}
    with tempfile.TemporaryDirectory() as folder:
        for line in MISTAKES:
            command, *values = line.replace("{out}", folder).split("|")
            done = _run([*command.split(), *values])
            said = [text for text in done.stderr.splitlines() if "rror" in text] or [""]
            mistakes[line] = {"code": done.returncode, "error": said[0].replace(folder, "{out}")}
    return {"help": helps, "mistakes": mistakes}


def record_trainings() -> dict[str, Any]:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, command in TRAININGS.items():
            _must(_run(command.replace("{out}", folder).split()), command)
            out = Path(folder) / name
            metrics = out / "metrics.jsonl"
            rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
            found[name] = {"steps": [_figures(row) for row in rows], **_weights(out)}
    return found


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "chains": record_chains,
    "layouts": record_layouts,
    "commands": record_commands,
    "trainings": record_trainings,
    "evaluations": record_evaluations,
}
DECISIVE = ("chains",)  # parts that must not differ

# ---------------------------------------------------------------------------------------------- tools


def _run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "100"}
    command = [sys.executable, "-m", "janus_r1.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL)


def _must(done: subprocess.CompletedProcess[str], command: str) -> None:
    if done.returncode:
        raise SystemExit(f"record: {command!r} failed: {done.stderr[-800:]}")


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _steady(value: Any) -> Any:
    """A report without what differs from run to run: times, versions, the commit."""
    passing = {"seconds", "environment", "training", "images_per_second", "date"}
    if isinstance(value, dict):
        return {key: _steady(item) for key, item in value.items() if not passing & {key} and "second" not in key}
    if isinstance(value, list):
        return [_steady(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def _figures(row: dict[str, Any]) -> dict[str, Any]:
    timed = ("second", "eta", "time", "per_s")
    return {key: value for key, value in row.items() if not any(word in key for word in timed)}


def _weights(out: Path) -> dict[str, Any]:
    """A hash of every file of tensors or candidates that a training left, and the norm of its tensors."""
    from safetensors.torch import load_file

    found = {}
    for file in sorted(out.rglob("*.safetensors")):
        if "checkpoints" not in file.parts:
            tensors = load_file(file)
            data = (tensors[name].float().contiguous().numpy().tobytes() for name in sorted(tensors))
            norm = sum(float(tensor.double().square().sum()) for tensor in tensors.values()) ** 0.5
            found[str(file.relative_to(out))] = {"hash": _hash(*data), "norm": round(norm, 4)}
    lines = [line for file in sorted(out.rglob("*.jsonl")) if file.name != "metrics.jsonl" for line in file.open("rb")]
    return {"weights": found, "lines": {"count": len(lines), "hash": _hash(*lines)}}


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves with their paths; a list of numbers (ids) is one leaf."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flatten(item, f"{path} > {key}" if path else key)
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        for index, item in enumerate(value):
            yield from flatten(item, f"{path} > {index}")
    else:
        yield path, value


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, list[str]]:
    """What differs between two recordings, a list a part; parts that only one of them has are left out."""
    found: dict[str, list[str]] = {}
    for part in [part for part in PARTS if part in before and part in after]:
        old, new = dict(flatten(before[part])), dict(flatten(after[part]))
        unequal = [path for path in old if path in new and not _equal(old[path], new[path])]
        found[part] = [f"{path}: {_change(old[path], new[path])}" for path in unequal]
        found[part] += [f"{path}: gone" for path in old if path not in new]
        found[part] += [f"{path}: new" for path in new if path not in old]
    return found


def _equal(old: Any, new: Any) -> bool:
    """As it is written, so that a figure that is NaN where nothing was counted equals itself."""
    return json.dumps(old) == json.dumps(new)


def _change(old: Any, new: Any) -> str:
    if isinstance(old, list) and isinstance(new, list) and all(isinstance(item, str) for item in old + new):
        gone, come = sorted({*old} - {*new}), sorted({*new} - {*old})
        return f"without {' '.join(gone) or 'none'}; with {' '.join(come) or 'none'}"
    if isinstance(old, list) and isinstance(new, list):
        unequal = sum(a != b for a, b in zip(old, new, strict=False)) + abs(len(old) - len(new))
        return f"{unequal} of {len(old)} differ"
    if isinstance(old, float) and isinstance(new, (int, float)):
        return f"{old:.6g} -> {new:.6g} ({new - old:+.2g})"
    return f"{str(old)[:110]!r} -> {str(new)[:110]!r}"


def compare(before: Path, after: Path, shown: int) -> int:
    found = differences(json.loads(before.read_text()), json.loads(after.read_text()))
    if not found:
        raise SystemExit("record: the two recordings have no part in common")
    for part, lines in found.items():
        print(f"{part}: {len(lines) or 'nothing'} differs")
        for line in lines[:shown]:
            print(f"  {line}")
        if len(lines) > shown:
            print(f"  ... and {len(lines) - shown} more")
    return int(any(found.get(part) for part in DECISIVE))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recorder = commands.add_parser("record")
    recorder.add_argument("out", type=Path)
    recorder.add_argument("--only", default=",".join(PARTS), help="some parts only")
    comparer = commands.add_parser("compare")
    comparer.add_argument("before", type=Path)
    comparer.add_argument("after", type=Path)
    comparer.add_argument("--shown", type=int, default=40, help="lines a part at most")
    options = parser.parse_args()
    if options.command == "compare":
        return compare(options.before, options.after, options.shown)
    recording = {}
    for part in options.only.split(","):
        recording[part] = PARTS[part]()
        print(f"recorded {part}", file=sys.stderr, flush=True)
    options.out.write_text(json.dumps(recording, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
