"""Does memory grow with the data? Imports rows of small images and reads them all; makes SFT rows of a store; says what
it took.

python benchmarks/data_memory.py import --rows 200000
python benchmarks/data_memory.py sft --rows 200000
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from janus_r1.data import importing
from janus_r1.data.rows import Wanted
from janus_r1.data.store import SHARD_ROWS, Record, Store, shard_path, write_shard
from janus_r1.data.store_rows import StoreRows
from janus_r1.model.loading import load

ROWS_A_FILE = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("import", "sft"))
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="for the data; deleted afterwards")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        figures = measure_sft(folder, args.rows, args.side) if args.part == "sft" else measure_import(folder, args)
        print(json.dumps({"rows": args.rows, **figures}, indent=1))
    finally:
        shutil.rmtree(folder)


def measure_import(folder: Path, args: argparse.Namespace) -> dict[str, object]:
    write_source(folder / "source", args.rows, args.side)
    marks = watch_shards()
    began = time.monotonic()
    importing.import_data(folder / "source", folder / "store", importing.ImportOptions(processes=args.processes))
    seconds = time.monotonic() - began
    figures: dict[str, object] = {"import_rows_a_second": round(args.rows / seconds)}
    figures["import_mb"] = {f"{share:.0%}": marks[int((len(marks) - 1) * share)] for share in (0.1, 0.5, 1.0)}
    return figures | read_all(folder / "store")


def measure_sft(folder: Path, rows: int, side: int) -> dict[str, object]:
    """As many rows as the store has images, by the paper's shares. VQ ids are zeros that stand where a model's would:
    computing them takes its time, but nothing of this process's memory."""
    model = load("tiny-base")
    began = time.monotonic()
    write_store(folder / "store", rows, side)
    written, own = time.monotonic(), model.image_tokenizer_hash()
    for shard in Store(folder / "store").shards:
        path = folder / "store" / "codes" / own / shard.path.with_suffix(".npy").name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.zeros((shard.rows, 2, model.image_tokens), np.uint16))
    marks = [resident_mb()]
    opened = time.monotonic()
    maker = StoreRows([str(folder / "store")], model, ["draw", "judge", "redraw"], 0.5)
    figures = {
        "store_rows_a_second": round(rows / (written - began)),
        "index_seconds": round(time.monotonic() - opened, 2),
    }
    marks.append(resident_mb())
    steps, counts = rows // 64, {"draw": 13, "judge": 19, "redraw": 32}
    began = time.monotonic()
    for step in range(steps):
        wanted = Wanted(counts, step, random.Random(step), 2, 2, 0.1)
        maker.finish(maker.begin(wanted).job(), wanted)
        if step % (steps // 10) == 0:
            marks.append(resident_mb())
    figures["sft_rows_a_second"] = round(steps * 64 / (time.monotonic() - began))
    return figures | {"mb_before_index_then_over_the_epoch": marks}


def write_store(folder: Path, rows: int, side: int) -> None:
    """16 images a prompt, a third of them right."""
    rng = np.random.default_rng(0)

    def record(index: int) -> Record:
        right = index % 3 == 0
        reason = "Yes, all is as it should be." if right else "No, the ring is red and there are two of them."
        prompt = f"prompt {index // 16} with a few more words in it"
        return Record(str(index), prompt, jpeg(rng, side), 0.9 if right else 0.1, reason, width=side, height=side)

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


def jpeg(rng: np.random.Generator, side: int) -> bytes:
    small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(stream, "JPEG")
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
    opened = time.monotonic()
    marks = [resident_mb()]
    for index, record in enumerate(store):
        assert record.image
        if index % (len(store) // 10) == 0:
            marks.append(resident_mb())
    seconds = time.monotonic() - opened
    return {
        "open_seconds": round(opened - began, 3),
        "read_rows_a_second": round(len(store) / seconds),
        "read_mb": marks,
    }


if __name__ == "__main__":
    main()
