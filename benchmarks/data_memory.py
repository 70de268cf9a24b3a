"""Does memory grow with the data? Imports rows of small images and reads them all; makes one epoch of SFT rows of a
store; says what it took.

    python benchmarks/data_memory.py import --rows 200000
    python benchmarks/data_memory.py sft --rows 200000

Memory is what this one process holds, after 10, 50 and 100 % of the rows. Rows a CPU second are what a machine that has
nothing else to do gives a core. Results are appended to
benchmarks/results/data.jsonl.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import machine
from janus_r1.data import importing
from janus_r1.data.rows import Wanted
from janus_r1.data.store import SHARD_ROWS, Record, Store, shard_path, write_shard
from janus_r1.data.store_rows import StoreRows
from janus_r1.environment import environment
from janus_r1.model.janus import Janus
from janus_r1.model.loading import load

RESULTS = Path(__file__).parent / "results" / "data.jsonl"
ROWS_A_FILE = 10_000
COUNTS = {"draw": 13, "judge": 19, "redraw": 32}  # 64 rows by the paper's shares
SHARES = (0.1, 0.5, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("import", "sft"))
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="for the data; deleted afterwards")
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a stopped run deletes its data
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        figures = measure_sft(folder, args.rows, args.side) if args.part == "sft" else measure_import(folder, args)
    finally:
        shutil.rmtree(folder)
    asked = {"part": args.part, "rows": args.rows, "side": args.side, "processes": args.processes}
    print(json.dumps({**asked, **figures}, indent=1))
    if not args.no_save:
        place = {"machine": machine.name("cpu"), "environment": environment()}
        machine.append(RESULTS, {"date": str(date.today()), **asked, **figures, **place})


def measure_import(folder: Path, args: argparse.Namespace) -> dict[str, object]:
    write_source(folder / "source", args.rows, args.side)
    marks = watch_shards()
    began, busy = time.monotonic(), time.process_time()
    importing.import_data(folder / "source", folder / "store", importing.ImportOptions(processes=args.processes))
    figures: dict[str, object] = {"import_rows_a_second": round(args.rows / (time.monotonic() - began))}
    if args.processes == 1:
        figures["import_rows_a_cpu_second"] = round(args.rows / (time.process_time() - busy))
    figures["import_mb"] = over_the_rows(marks)
    return figures | read_all(folder / "store")


def measure_sft(folder: Path, rows: int, side: int) -> dict[str, object]:
    """As many rows as the store has images, by the paper's shares; no model's forward pass is among it."""
    model = load("tiny-base")
    began = time.monotonic()
    write_store(folder / "store", rows, side)
    written = time.monotonic()
    pretend_codes(folder / "store", model)
    before = resident_mb()
    opened = time.monotonic()
    maker = StoreRows([str(folder / "store")], model, list(COUNTS), 0.5)
    figures: dict[str, object] = {
        "store_rows_a_second": round(rows / (written - began)),
        "index_seconds": round(time.monotonic() - opened, 2),
        "mb_before_index": before,
        "mb_after_index": resident_mb(),
    }
    steps, marks = rows // sum(COUNTS.values()), []
    began, busy = time.monotonic(), time.process_time()
    for step in range(steps):
        wanted = Wanted(COUNTS, step, random.Random(step), 2, 2, 0.1)
        maker.finish(maker.begin(wanted).job(), wanted)
        marks.append(resident_mb())
    made = steps * sum(COUNTS.values())
    figures["sft_rows_a_second"] = round(made / (time.monotonic() - began))
    figures["sft_rows_a_cpu_second"] = round(made / (time.process_time() - busy))
    return figures | {"sft_mb": over_the_rows(marks)}


def pretend_codes(folder: Path, model: Janus) -> None:
    """VQ ids are zeros that stand where a model's would: computing them takes its time, but nothing of our memory."""
    for shard in Store(folder).shards:
        path = folder / "codes" / model.image_tokenizer_hash() / shard.path.with_suffix(".npy").name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.zeros((shard.rows, 2, model.image_tokens), np.uint16))


def over_the_rows(marks: list[int]) -> dict[str, int]:
    """Of marks that were made one after another, those after some shares of them."""
    return {f"{share:.0%}": marks[int((len(marks) - 1) * share)] for share in SHARES}


def write_store(folder: Path, rows: int, side: int, grain: float = 0.0) -> None:
    """16 images a prompt, a third of them right."""
    rng = np.random.default_rng(0)

    def record(index: int) -> Record:
        right = index % 3 == 0
        reason = "Yes, all is as it should be." if right else "No, the ring is red and there are two of them."
        prompt = f"prompt {index // 16} with a few more words in it"
        image = jpeg(rng, side, grain)
        return Record(str(index), prompt, image, 0.9 if right else 0.1, reason, width=side, height=side)

    for number, start in enumerate(range(0, rows, SHARD_ROWS)):
        shard = map(record, range(start, min(rows, start + SHARD_ROWS)))
        write_shard(shard_path(folder, number), shard, {})


def write_source(folder: Path, rows: int, side: int) -> None:
    """Parquet of JPEGs with captions and scores; every image is another one."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for start in range(0, rows, ROWS_A_FILE):
        images = [jpeg(rng, side) for _ in range(min(ROWS_A_FILE, rows - start))]
        table = {
            "image": [{"bytes": data, "path": None} for data in images],
            "prompt": [f"prompt {(start + i) // 16} with a few more words in it" for i in range(len(images))],
            "score": rng.random(len(images)),
            "reason": ["No, the ring is red and there are two of them."] * len(images),
        }
        pq.write_table(pa.table(table), folder / f"{start:09d}.parquet", row_group_size=500)


def jpeg(rng: np.random.Generator, side: int, grain: float = 0.0) -> bytes:
    """Soft blots; ``grain`` (grey levels) makes it as hard to decode as a photograph."""
    small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
    if grain:
        noise = rng.normal(0.0, grain, (side, side, 1)).astype(np.float32)
        image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90 if grain else 75)
    return stream.getvalue()


def resident_mb() -> int:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 // 1_000_000


def watch_shards() -> list[int]:
    """Resident memory after every shard of an import."""
    marks: list[int] = []
    plain = importing.write_shard

    def watched(*args: object) -> None:
        plain(*args)  # type: ignore[arg-type]
        marks.append(resident_mb())

    importing.write_shard = watched  # type: ignore[assignment]
    return marks


def read_all(folder: Path) -> dict[str, object]:
    began = time.monotonic()
    store = Store(folder)
    opened, marks = time.monotonic(), []
    for record in store:
        assert record.image
        marks.append(resident_mb())
    return {
        "open_seconds": round(opened - began, 3),
        "read_rows_a_second": round(len(store) / (time.monotonic() - opened)),
        "read_mb": over_the_rows(marks),
    }


if __name__ == "__main__":
    main()
