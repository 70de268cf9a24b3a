"""Does memory grow with the data? Imports rows of small images, then reads every row, and says what it took.

python benchmarks/data_memory.py --rows 200000 --folder somewhere
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from janus_r1.data import importing
from janus_r1.data.store import Store

ROWS_A_FILE = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="for the data; deleted afterwards")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        write_source(folder / "source", args.rows, args.side)
        marks = watch_shards()
        began = time.monotonic()
        importing.import_data(folder / "source", folder / "store", processes=args.processes)
        seconds = time.monotonic() - began
        figures = {"rows": args.rows, "import_rows_a_second": round(args.rows / seconds)}
        figures["import_mb"] = {f"{share:.0%}": marks[int((len(marks) - 1) * share)] for share in (0.1, 0.5, 1.0)}
        print(json.dumps(figures | read_all(folder / "store"), indent=1))
    finally:
        shutil.rmtree(folder)


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
