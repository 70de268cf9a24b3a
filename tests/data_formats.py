"""Small files in every format that ``data import`` reads, in that format's own schema."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROWS = 6


def picture(seed: int, side: int = 16, kind: str = "PNG") -> bytes:
    """A random image file; the seed is in its pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def struct(data: bytes) -> dict[str, Any]:
    return {"bytes": data, "path": None}


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)


def lines(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def files(folder: Path, first: int = 0, name: str = "{}.png") -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [name.format(i) for i in range(ROWS)]
    for i, file in enumerate(names):
        (folder / file).write_bytes(picture(first + i))
    return names


# ------------------------------------------------------------- each writes one and says how many images


def imagefolder_jsonl(folder: Path) -> int:
    lines(folder / "metadata.jsonl", [{"file_name": n, "text": f"cat {n}"} for n in files(folder)])
    return ROWS


def imagefolder_csv(folder: Path) -> int:
    with (folder / "metadata.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", "prompt", "score"])
        writer.writerows([n, f"a cat, {n}", 0.25] for n in files(folder))
    return ROWS


def imagefolder_parquet(folder: Path) -> int:
    parquet(folder / "metadata.parquet", [{"file_name": n, "caption": f"cat {n}"} for n in files(folder)])
    return ROWS


def imagefolder_of_edits(folder: Path) -> int:
    files(folder / "a"), files(folder / "b", 100)
    rows = [{"source_image_file_name": f"a/{i}.png", "file_name": f"b/{i}.png", "prompt": "paint it"} for i in range(6)]
    lines(folder / "metadata.jsonl", rows)
    return ROWS


def images_with_texts(folder: Path) -> int:
    for name in files(folder / "deep"):
        (folder / "deep" / name).with_suffix(".txt").write_text(f"cat {name}\n")
    return ROWS


def folder_of_pairs(folder: Path) -> int:
    files(folder / "input"), files(folder / "output", 100)
    (folder / "captions.txt").write_text("".join(f"{i}.png\tmake it {i}\n" for i in range(ROWS)))
    return ROWS


def webdataset(folder: Path) -> int:
    """As BLIP3o-60k: KEY.jpg and KEY.txt."""
    for shard in range(2):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for i in range(shard * 3, shard * 3 + 3):
                for name, data in ((f"s/{i:04d}.jpg", picture(i, kind="JPEG")), (f"s/{i:04d}.txt", b"cat %d" % i)):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return ROWS


def parquet_of_images(folder: Path) -> int:
    parquet(folder / "a.parquet", [{"image": struct(picture(i)), "caption": f"cat {i}"} for i in range(ROWS)])
    return ROWS


def json_lines(folder: Path) -> int:
    named = enumerate(files(folder / "images"))
    parts = {"score": 0.9, "reason": "the ears are right", "source": "FLUX"}
    claims = [{"text": "there is a cat", "mark": True}, ["it is red", "no"]]
    lines(folder / "r.jsonl", [{"prompt": f"{i}", "image": f"images/{n}", "claims": claims, **parts} for i, n in named])
    return ROWS


def json_list(folder: Path) -> int:
    rows = [{"prompt": f"cat {n}", "img_path": n, "label": "yes"} for n in files(folder)]
    (folder / "rows.json").write_text(json.dumps(rows, indent=1))
    return ROWS


def janus_pro_r1(folder: Path) -> int:
    """The released parquet: 16 images a prompt, in nested structs."""

    def entry(i: int) -> dict[str, Any]:
        right = i % 2 == 0
        said = {"reason": "Yes, all is there." if right else "No, the cat is missing.", "score": 0.9 if right else 0.1}
        return {"id": i, "img": {"bytes": picture(i)}, **said, "source": "Flux", "state": 4 if right else 0}

    rows = [{"promptid": p, "prompt": f"cat {p}", "data": [entry(16 * p + i) for i in range(16)]} for p in range(ROWS)]
    parquet(folder / "data" / "train-00000-of-00524.parquet", rows)
    return 16 * ROWS


def janus_pro_r1_code(folder: Path) -> int:
    """The repository's own labels."""
    files(folder / "images")
    said = {"reason": "No, wrong.", "prob": 0.3, "state": 0}
    entries = [{"id": i, "img_path": f"images/{i}.png", **said} for i in range(ROWS)]
    lines(folder / "labels" / "flux_0.7.jsonl", [{"promptid": 1, "prompt": "a cat", "data": entries}])
    return ROWS


def janus_pro_r1_edits(folder: Path) -> int:
    files(folder / "in"), files(folder / "out", 100)
    rows = [{"sample_id": i, "text": "add", "input": f"in/{i}.png", "output": f"out/{i}.png"} for i in range(ROWS)]
    (folder / "metadata").mkdir()
    (folder / "metadata" / "edits.json").write_text(json.dumps(rows))
    return ROWS


def ultraedit(folder: Path) -> int:
    def row(i: int) -> dict[str, Any]:
        captions = {"source_caption": "a cat", "target_caption": "a dog", "edit_prompt": f"make it a dog {i}", "idx": i}
        scores = {"clip_sim_source": 0.3, "clip_sim_dir": 0.2, "ssim": 0.8}
        images = {"source_image": struct(picture(i)), "edited_image": struct(picture(100 + i)), "mask_image": None}
        return {**scores, **captions, **images}

    parquet(folder / "FreeForm.parquet", [row(i) for i in range(ROWS)])
    return ROWS


def omniedit(folder: Path) -> int:
    def row(i: int) -> dict[str, Any]:
        images = {"src_img": struct(picture(i)), "edited_img": struct(picture(100 + i))}
        texts = {"edited_prompt_list": [f"make it {i}", "another wording"], "sc_reasoning": "fine", "o_score": 9.2}
        return {"omni_edit_id": f"t_{i}", "task": "swap", **images, **texts, "width": 16, "height": 16}

    parquet(folder / "train-0.parquet", [row(i) for i in range(ROWS)])
    return ROWS


def anyedit(folder: Path) -> int:
    def row(i: int) -> dict[str, Any]:
        images = {"image_file": struct(picture(i)), "edited_file": struct(picture(100 + i)), "visual_input": None}
        captions = {"input": "a cat", "output": "a dog"}
        return {"image_id": i, "edit_instruction": f"edit {i}", "edit_type": "add", **images, **captions}

    parquet(folder / "a.parquet", [row(i) for i in range(ROWS)])
    return ROWS


def instructpix2pix(folder: Path) -> int:
    def row(i: int) -> dict[str, Any]:
        images = {"original_image": struct(picture(i)), "edited_image": struct(picture(100 + i))}
        return {"original_prompt": "a", "edit_prompt": f"do {i}", "edited_prompt": "b", **images}

    parquet(folder / "a.parquet", [row(i) for i in range(ROWS)])
    return ROWS


def reflections(folder: Path) -> int:
    files(folder, name="w{}.png"), files(folder, 100, "r{}.png")
    row = {"prompt": "a red cat", "reason": "the cat is blue"}
    lines(folder / "p.jsonl", [{**row, "wrong": f"w{i}.png", "right": f"r{i}.png"} for i in range(ROWS)])
    return 2 * ROWS


def rvr(folder: Path) -> int:
    files(folder / "im", name="w{}.png"), files(folder / "im", 100, "r{}.png")
    rows = [{"image_list": [f"im/w{i}.png", f"im/r{i}.png"], "user_prompt": ["a cat"]} for i in range(ROWS)]
    parquet(folder / "a.parquet", rows)
    return 2 * ROWS


def trajectories(folder: Path) -> int:
    files(folder)
    steps = [
        {"reflection": "it is blue", "action": "continue", "edit": "make it red"},
        {"reflection": "", "action": "stop"},
    ]
    images = [{"uri": "0.png", "sha256": "x"}, {"uri": "1.png", "sha256": "y"}]
    row = {"trajectory_id": "t", "pipeline_variant": "pair_0_1_turn", "prompt": "a red cat", "images": images}
    lines(folder / "t.jsonl", [{**row, "steps": steps}])
    return 2


def candidates(folder: Path) -> int:
    """As ``data build`` writes them: parts of rows, and their pictures in an array beside them."""
    for part in range(2):
        rows = [
            {
                "prompt_id": n,
                "prompt": f"a cat {n}",
                "ids": [n] * 4,
                "p_yes": 0.9,
                "reason": "Yes.",
                "source": "draft@1",
            }
            for n in range(3 * part, 3 * part + 3)
        ]
        lines(folder / f"part_{part:05d}" / "candidates.jsonl", rows)
        pixels = [np.asarray(Image.open(io.BytesIO(picture(row["prompt_id"])))) for row in rows]
        np.save(folder / f"part_{part:05d}" / "images.npy", np.stack(pixels))
    return ROWS


FORMATS: dict[str, Callable[[Path], int]] = {
    write.__name__: write
    for write in (
        imagefolder_jsonl,
        imagefolder_csv,
        imagefolder_parquet,
        imagefolder_of_edits,
        images_with_texts,
        folder_of_pairs,
        webdataset,
        parquet_of_images,
        json_lines,
        json_list,
        candidates,
        janus_pro_r1,
        janus_pro_r1_code,
        janus_pro_r1_edits,
        ultraedit,
        omniedit,
        anyedit,
        instructpix2pix,
        reflections,
        rvr,
        trajectories,
    )
}
EDITS = {
    "imagefolder_of_edits",
    "folder_of_pairs",
    "janus_pro_r1_edits",
    "ultraedit",
    "omniedit",
    "anyedit",
    "instructpix2pix",
}
