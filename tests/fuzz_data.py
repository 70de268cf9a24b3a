"""Odd data and results: candidates, stores, sources of an import, judged rows, PIE folders, benchmarks, chains.

Most cases damage one file of something whole, or change one value somewhere in its JSON; such a change may be harmless,
so that these cases may be accepted, too, but never end in anything but one line.
"""

from __future__ import annotations

import json
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_formats import FORMATS
from fuzz_inputs import Case, Ground, picture, png_header
from spoiling import ODD_VALUES, changed, copied, damage, files_in, spoil


class Evil:
    """What leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


# ------------------------------------------------------------------------------------------- kinds


def odd_candidates(rng: random.Random, here: Path, ground: Ground) -> Case:
    """Parts whose images, ids, scores or files are none."""
    folder = copied(ground.root, "candidates", here)
    part = folder / "part_00000"
    rows = [json.loads(line) for line in (part / "candidates.jsonl").read_text().splitlines()]
    kind = rng.randrange(6)
    if kind == 0:
        ids = list(rows[0]["ids"])
        one = rng.choice([[], ids[:-1], ids * 2, [-1, *ids[1:]], [10**9, *ids[1:]], [4096, *ids[1:]], [0.5, *ids[1:]]])
        rng.choice(rows)["ids"] = one
    elif kind == 1:
        rng.choice(rows)["p_yes"] = rng.choice([-0.1, 1.5, "0.9", None, True, [1]])
    elif kind == 2:
        shapes = [(len(rows), 64, 64), (len(rows), 32, 32, 3), (len(rows), 64, 64, 4), (1,), (), (len(rows), 0, 0, 3)]
        kinds = [np.uint8, np.float32, bool, np.int64, "S3", np.complex64]
        images = np.zeros(rng.choice([*shapes, (len(rows), 64, 64, 3)]), rng.choice(kinds))
        if images.shape[1:] == (64, 64, 3) and images.dtype == np.uint8:
            images = images[:-1]
        np.save(part / "images.npy", images)
    elif kind == 3:
        (part / "images.npy").write_bytes(pickle.dumps(Evil(here / "ran")))
    else:
        spoil(rng, rng.choice(files_in(folder, ".npy", ".jsonl")))
    if kind < 2:
        (part / "candidates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Case(["sft", f"kind {kind}"], wrong=kind < 4, call=lambda: one_step(ground, here, candidates=str(folder)))


def one_step(ground: Ground, here: Path, **source: str) -> None:
    """Rows of a step of ``train sft`` and their loss: all that it does with data, without the rest of a run."""
    from janus_r1.train.loop import RunOptions
    from janus_r1.train.sft import Parts, SftRecipe, rows_loss, step_rows

    shares = {"draw": 0.5, "judge": 0.5}
    parts = Parts(SftRecipe(RunOptions(str(here / "run")), str(ground.model), rows=4, shares=shares, **source))
    rows_loss(parts.module, step_rows(parts, 0), parts=1, text_weight=1.0)


def odd_stores(rng: random.Random, here: Path, ground: Ground) -> Case:
    """A store with a damaged shard, or rows that are none."""
    store = copied(ground.root, "store", here)
    shard = store / "data" / "train-00000.parquet"
    if rng.random() < 0.5:
        table = pq.read_table(shard)
        columns = [table.column(name).to_pylist() for name in table.column_names]
        at = rng.randrange(len(columns))
        odd: list[Any] = [{"bytes": None, "path": None}, {"bytes": png_header(30_000, 30_000), "path": "x"}]
        odd += [None, "", "x" * 9999, -1, 2**62, float("nan"), "<begin_of_image>", "{", "[" * 9999, [], b"\xff", 1e300]
        columns[at][rng.randrange(table.num_rows)] = rng.choice(odd)
        try:
            arrays = [pa.array(column, table.schema.types[i]) for i, column in enumerate(columns)]
        except (pa.ArrowException, TypeError, OverflowError):
            columns[at] = [str(value)[:99] for value in columns[at]]
            arrays = [pa.array(c, None if i == at else table.schema.types[i]) for i, c in enumerate(columns)]
        written = pa.Table.from_arrays(arrays, table.column_names).replace_schema_metadata(table.schema.metadata)
        shard.unlink()
        pq.write_table(written, shard)
    else:
        spoil(rng, rng.choice([shard, shard, store / "report.json"]))
    model = ["--model", str(ground.model)]
    if rng.random() < 0.3:
        return Case(["sft", "store"], wrong=False, call=lambda: one_step(ground, here, data=str(store)))
    commands = [
        ["data", "look", str(store), "--sheet", str(here / "sheet.png")],
        ["data", "overlap", str(store), "--json"],
        ["eval", "judge", "--data", str(store), *model, "--json"],
    ]
    return Case(rng.choice(commands), wrong=False)


def odd_imports(rng: random.Random, here: Path, ground: Ground) -> Case:
    """People's data with something broken in it; what cannot be read is counted, the rest is imported."""
    source = here / "source"
    source.mkdir()
    FORMATS[rng.choice(list(FORMATS))](source)
    files = [path for path in sorted(source.rglob("*")) if path.is_file()]
    for _ in range(rng.choice([1, 1, 3])):
        left = [path for path in files if path.is_file() and not path.is_symlink()]
        if not left:
            break
        tables = [path for path in left if path.suffix not in (".png", ".jpg")]
        spoil(rng, rng.choice(tables if tables and rng.random() < 0.7 else left))
    options = rng.choice([[], [], [], ["--limit", "2"], ["--max-side", "8"], ["--shard-rows", "1"]])
    bad = rng.choice([["--limit", "-1"], ["--score-scale", "nan"], ["--columns", "x"], ["--columns", "zz=y"]])
    wrong = rng.random() < 0.1
    return Case(["data", "import", str(source), str(here / "out"), *(bad if wrong else options)], wrong=wrong)


def odd_rows(rng: random.Random, here: Path, ground: Ground) -> Case:
    """Rows (image, text, label) to measure judges on."""
    for number in range(3):
        picture(here / f"{number}.png", rng)
    rows = [{"image": f"{n}.png", "text": "a red circle", "label": "yes" if n else "no"} for n in range(3)]
    path = here / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spoil(rng, rng.choice([path, path, here / "1.png"]))
    rewards = here / "rewards.yaml"
    odd = ["rewards: 3", "rewards: [3]", "rewards: [{kind: x}]", "- 1", "rewards: []", "rewards: [{kind: python}]"]
    odd += ["rewards: [{kind: endpoint, url: 'http://127.0.0.1:1/v1', model: m, tries: 1}]", "x: &a [*a]"]
    rewards.write_text(rng.choice(odd))
    more = ["--rewards", str(rewards)] if rng.random() < 0.3 else []
    argv = ["eval", "judge", "--data", str(path), "--model", str(ground.model), "--max-batch", "4", "--json", *more]
    return Case(argv, wrong=bool(more))


def odd_pie(rng: random.Random, here: Path, ground: Ground) -> Case:
    """PIE-Bench folders, edited ones and their scores that are damaged; what cannot be read is counted."""
    data, edited = copied(ground.root, "pie", here), copied(ground.root, "edited", here)
    kind = rng.randrange(5)
    if kind == 0:
        path = rng.choice(files_in(data, ".png"))
        path.unlink()
        picture(path, rng)  # 64 x 64
    elif kind == 1:
        damage(rng, rng.choice(files_in(data, ".png")))
    elif kind == 2:
        spoil(rng, data / "mapping_file.json")
    else:
        spoil(rng, rng.choice([path for path in files_in(edited, ".json", ".jsonl", ".png") if path.name[0] != "."]))
    named, model = ["--data", str(data)], ["--model", str(ground.model), "--rounds", "1"]
    commands = [
        ["eval", "pie", "draw", str(here / "new"), *named, *model, "--no-baselines"],
        ["eval", "pie", "draw", str(edited), *named, *model],
        ["eval", "pie", "score", str(edited), *named, "--clip", "none", "--dino", "none"],
        ["eval", "pie", "report", str(edited), *named, "--json", "--partial"],
    ]
    return Case(rng.choice(commands), wrong=False)


def odd_results(rng: random.Random, here: Path, ground: Ground) -> Case:
    """Result files for the leaderboard and for the page of results."""
    from janus_r1.eval.report import page

    folder = copied(ground.root, "results", here)
    path = rng.choice(files_in(folder, ".json", ".jsonl"))
    spoil(rng, path)
    if rng.random() < 0.15:
        path = here / "new.json"
        path.write_text(json.dumps(rng.choice(ODD_VALUES)))
    if rng.random() < 0.4:
        return Case(["janus_r1.eval.report", str(path)], wrong=False, call=lambda: page([str(path)]))
    return Case(["eval", "compare", str(path), "--out", str(here / "page.html"), "--json"], wrong=False)


def odd_benchmarks(rng: random.Random, here: Path, ground: Ground) -> Case:
    """A drawn and scored folder that is damaged: drawn on, scored anew, reported."""
    folder, data = copied(ground.root, "drawn", here), here / "data.jsonl"
    shutil.copyfile(ground.root / "geneval2.jsonl", data)
    text = [path for path in files_in(folder, ".json", ".jsonl") if not path.name.startswith(".")]
    spoil(rng, rng.choice([*text, *text, *files_in(folder, ".png"), data]))
    named = ["--data", str(data)]
    draw = ["eval", "geneval2", "draw", str(folder), *named, "--model", str(ground.model), "--rounds", "2"]
    judge = ["--url", ground.url, "--model", "judge"]
    commands = [
        draw,
        ["eval", "geneval2", "score", str(folder), *named, *judge],
        ["eval", "geneval2", "report", str(folder), *named, "--json", "--partial"],
        ["eval", "geneval2", "report", str(folder), *named, "--out", str(here / "report.json")],
    ]
    return Case(rng.choice(commands), wrong=False)


def odd_chains(rng: random.Random, here: Path, ground: Ground) -> Case:
    """Saved chains: read back in Python, and run folders whose chains a page shows."""
    from janus_r1.chain import load_chain

    folder = copied(ground.root, "chain", here)
    inner = sorted(path.parent for path in folder.rglob("chain.json"))[0]
    record = json.loads((inner / "chain.json").read_text())
    kind = rng.randrange(4)
    if kind == 0:
        record["rounds"][0]["image"] = rng.choice(["../../theirs/thesis.txt", "/dev/zero", "..", "", "a\0b", 3])
        (inner / "chain.json").write_text(json.dumps(record))
    elif kind == 1:
        record["final"] = rng.choice([-1, 99, "0", None, True, 0.5])
        (inner / "chain.json").write_text(json.dumps(record))
    else:
        spoil(rng, rng.choice(files_in(inner, ".json", ".png")))
    return Case(["load_chain", str(inner)], wrong=kind < 2, call=lambda: load_chain(inner))


def odd_builds(rng: random.Random, here: Path, ground: Ground) -> Case:
    """Recipes of ``data make`` and ``data build`` that cannot be meant, and prompts of RL."""
    prompts = here / "prompts.jsonl"
    prompts.write_text('{"prompt": "a red circle"}\n{"prompt": "a blue square"}\n')
    drawer = {"kind": "janus", "model": str(ground.model)}
    recipe = {"prompts": str(prompts), "out": str(here / "made"), "drawers": [drawer], "part": 2}
    which = rng.randrange(3)
    if which == 0:
        path = here / "make.yaml"
        path.write_text(json.dumps(changed(rng, recipe)).replace("NaN", ".nan").replace("Infinity", ".inf"))
        return Case(["data", "make", "--config", str(path)], wrong=False)
    if which == 1:
        bad = [["--temperatures", "[-1]"], ["--temperatures", "x"], ["--families", "[zz]"], ["--guidance", "nan"]]
        bad += [["--prompts", "0"], ["--part", "0"], ["--world", "zz"], ["--renderings", "-1"], ["--dtype", "x"]]
        argv = ["data", "build", "--model", str(ground.model), "--out", str(here / "built"), "--prompts", "1"]
        return Case([*argv, *rng.choice(bad)])
    spoil(rng, prompts)
    argv = ["train", "rl", "--model", str(ground.model), "--prompts", str(prompts), "--run.out", str(here / "run")]
    tiny = ["--prompts_per_step", "1", "--group", "2", "--rounds", "1", "--eval_every", "0", "--run.steps", "1"]
    reward = ["--rewards", f"[{{kind: endpoint, url: '{ground.url}', model: m, tries: 1}}]"]
    return Case([*argv, *tiny, *reward, "--run.trackers", "[]"], wrong=False)


def odd_python(rng: random.Random, here: Path, ground: Ground) -> Case:
    """What Python callers pass: odd arrays, settings and lists."""
    from fuzz import loaded

    model = loaded(ground)
    whole = np.zeros((64, 64, 3), np.uint8)
    images: list[Any] = [whole.astype(np.float32), whole[..., :2], whole[:0], None, 3, "missing.png", here, object()]
    images += [[whole, None], [], whole.astype(bool), b"", {"a": 1}]
    settings: list[dict[str, Any]] = [{"rounds": 0}, {"rounds": "3"}, {"guidance": float("nan")}, {"temprature": 1}]
    settings += [{"samples": 0}, {"samples": 1.5}, {"seed": "x"}, {"seed": [1, 2, 3]}, {"max_batch": 0}, {"top_p": 2}]
    settings += [{"first_row": -1}, {"window": 0}, {"window": "x"}, {"history": "x"}, {"seed": 2**70}]
    texts: list[Any] = [None, 3, "", "  ", ["a", None], [], {"a": 1}, b"a", "a <begin_of_image>", "a\ud800", [["a"]]]
    image, setting, text = rng.choice(images), rng.choice(settings), rng.choice(texts)
    small = {"rounds": 1}
    calls = {
        f"generate(prompt, {setting})": lambda: model.generate("a red circle", **(small | setting)),
        f"generate({text!r})": lambda: model.generate(text, **small),
        f"edit(image, {text!r})": lambda: model.edit(whole, text, **small),
        f"edit({type(image)})": lambda: model.edit(image, "make it red", **small),
        f"judge({type(image)})": lambda: model.judge(image, "a red circle"),
        f"judge(image, {text!r})": lambda: model.judge(whole, text),
    }
    name = rng.choice(list(calls))
    empty = name.startswith(("generate([])", "judge(<class 'list'>", "judge(image, [])"))  # of nothing, nothing
    return Case([name], wrong=not empty, call=calls[name])
