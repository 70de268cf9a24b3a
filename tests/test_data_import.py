"""Every format comes in whole; what is broken is counted by cause, and the rest is kept."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from data_formats import EDITS, FORMATS, ROWS, files, lines, picture
from janus_r1.data.checking import SPECIAL
from janus_r1.data.codes import Codes, fitted
from janus_r1.data.importing import ImportOptions, import_data
from janus_r1.data.report import look_at, show_rows
from janus_r1.data.store import Store, exclusive, is_store, write_shard
from janus_r1.errors import UserError
from janus_r1.images import decode_image, read_image
from janus_r1.model.janus import from_uint8


def made(name: str, folder: Path) -> tuple[Path, int]:
    source = folder / "source"
    source.mkdir()
    return source, FORMATS[name](source)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_comes_in_whole(name, tmp_path):
    source, count = made(name, tmp_path)
    report = import_data(source, tmp_path / "out")
    records = list(Store(tmp_path / "out"))
    assert len(records) == count == report.images and report.dropped == 0
    assert report.edits == (count if name in EDITS else 0)
    assert len({record.id for record in records}) == count
    first = 100 if name in EDITS else 0
    wanted = {decode_image(picture(first + i), "").tobytes() for i in range(ROWS)}
    if name not in ("webdataset", "reflections", "rvr", "trajectories", "janus_pro_r1"):
        assert {decode_image(record.image, "").tobytes() for record in records} == wanted
    assert all(record.prompt and record.width == 16 for record in records)
    sources = {picture(i) for i in range(ROWS)} if name in EDITS else {None}
    assert {record.source_image for record in records} == sources


def test_what_rows_say_is_kept(tmp_path):
    source, _ = made("json_lines", tmp_path)
    import_data(source, tmp_path / "out", ImportOptions(licence="cc0"))
    record = Store(tmp_path / "out")[3]
    assert (record.prompt, record.score, record.source, record.licence) == ("3", 0.9, "FLUX", "cc0")
    assert record.reason == "Yes, the ears are right"
    assert [(claim.text, claim.mark) for claim in record.claims] == [("there is a cat", True), ("it is red", False)]


def test_the_released_data_keeps_its_verdicts(tmp_path):
    source, _ = made("janus_pro_r1", tmp_path)
    report = import_data(source, tmp_path / "out")
    record = Store(tmp_path / "out")[17]
    assert (record.prompt, record.score, record.source, record.extra["state"]) == ("cat 1", 0.1, "Flux", 0)
    assert record.reason == "No, the cat is missing." and record.image == picture(17)
    assert (report.yes, report.scored, report.prompts) == (48, 96, 6)


def test_a_pair_says_which_image_mends_which(tmp_path):
    source, _ = made("reflections", tmp_path)
    import_data(source, tmp_path / "out")
    wrong, right = Store(tmp_path / "out")[4], Store(tmp_path / "out")[5]
    assert (wrong.score, right.score, right.repair_of) == (0.0, 1.0, wrong.id)
    assert wrong.reason == "No, the cat is blue" and right.image == picture(102)


def test_an_edit_keeps_its_source(tmp_path):
    source, _ = made("omniedit", tmp_path)
    import_data(source, tmp_path / "out")
    record = Store(tmp_path / "out")[2]
    assert (record.prompt, record.source_image, record.image) == ("make it 2", picture(2), picture(102))
    assert record.extra["o_score"] == 9.2 and record.score is None
    assert Store(tmp_path / "out").without_images(2).source_image == b""


def test_candidates_keep_what_is_said_of_them(tmp_path):
    source, _ = made("candidates", tmp_path)
    report = import_data(source, tmp_path / "out")
    assert report.imported["container"] == "candidates" and report.scored == report.yes == ROWS
    records = list(Store(tmp_path / "out"))
    first = records[0]
    assert (first.prompt, first.score, first.reason, first.source) == ("a cat 0", 0.9, "Yes.", "draft@1")
    assert not first.extra and [record.prompt for record in records] == [f"a cat {n}" for n in range(ROWS)]
    np.save(source / "part_00001" / "images.npy", np.zeros((2, 16, 16, 3), np.uint8))
    report = import_data(source, tmp_path / "fewer")
    assert report.images == ROWS - 1 and report.imported["dropped"] == {"no picture": 1}


def test_own_column_names(tmp_path):
    rows = [{"words": f"cat {n}", "photo": n, "stars": 7} for n in files(tmp_path / "s")]
    lines(tmp_path / "s" / "rows.jsonl", rows)
    with pytest.raises(UserError, match=r"unknown columns.*photo, stars, words"):
        import_data(tmp_path / "s", tmp_path / "none")
    import_data(
        tmp_path / "s",
        tmp_path / "out",
        ImportOptions(score_scale=10),
        columns={"prompt": "words", "image": "photo", "score": "stars"},
    )
    assert [record.score for record in Store(tmp_path / "out")] == [0.7] * ROWS
    with pytest.raises(UserError, match="columns names promt"):
        import_data(tmp_path / "s", tmp_path / "other", columns={"promt": "words"})


def test_datasets_reads_the_store(tmp_path):
    datasets = pytest.importorskip("datasets")
    source, _ = made("ultraedit", tmp_path)
    import_data(source, tmp_path / "out", ImportOptions(shard_rows=4))
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == ROWS
    assert np.array_equal(np.asarray(loaded[5]["image"]), decode_image(picture(105), ""))
    assert np.array_equal(np.asarray(loaded[5]["source_image"]), decode_image(picture(5), ""))


def test_a_store_can_be_imported_again(tmp_path):
    source, _ = made("json_lines", tmp_path)
    import_data(source, tmp_path / "out")
    import_data(tmp_path / "out", tmp_path / "again")
    before, after = list(Store(tmp_path / "out")), list(Store(tmp_path / "again"))
    assert before == after


# --------------------------------------------------------------------------------------- what is broken


def broken_pictures() -> dict[str, bytes]:
    huge = io.BytesIO()
    Image.new("1", (20_001, 10)).save(huge, "PNG")
    return {
        "image is broken": picture(0)[:-40],
        "image is not an image": b"<html>404 Not Found</html>",
        "image is too large": huge.getvalue(),
        "image is too small": picture(0, side=4),
        "image is missing": b"",
    }


@pytest.mark.parametrize("cause", broken_pictures())
def test_a_bad_image_is_counted_and_the_rest_kept(cause, tmp_path):
    source, _ = made("imagefolder_jsonl", tmp_path)
    (source / "3.png").write_bytes(broken_pictures()[cause])
    report = import_data(source, tmp_path / "out")
    assert report.images == ROWS - 1 and report.imported["dropped"] == {cause: 1}
    assert "metadata.jsonl, line 4" in report.imported["examples"][cause][0]


ODD_ROWS = {
    "image is missing": {"prompt": "x", "image": "nowhere.png"},
    "image lies outside the folder": {"prompt": "x", "image": "../../outside.png"},
    "image is an address": {"prompt": "x", "image": "https://example.com/a.png"},
    "prompt is empty": {"prompt": "  ", "image": "0.png"},
    "prompt is not text": {"prompt": 7, "image": "0.png"},
    "prompt is too long": {"prompt": "x" * 5000, "image": "0.png"},
    "prompt contains a special token": {"prompt": "a <begin_of_image> cat", "image": "0.png"},
    "prompt is not UTF-8": {"prompt": "\ud800", "image": "0.png"},
    "reason contains a special token": {"prompt": "x", "image": "0.png", "reason": "Yes<｜end▁of▁sentence｜>"},
    "score is outside [0, 1]": {"prompt": "x", "image": "0.png", "score": 7},
    "score is not a number": {"prompt": "x", "image": "0.png", "score": "high"},
    "claims cannot be read": {"prompt": "x", "image": "0.png", "claims": [{"mark": True}]},
    "unknown columns": {"foo": 1},
    "not an object": [1, 2],
}


@pytest.mark.parametrize("cause", ODD_ROWS)
def test_an_odd_row_is_counted_and_the_rest_kept(cause, tmp_path):
    (tmp_path / "outside.png").write_bytes(picture(1))
    names = files(tmp_path / "far" / "s")
    lines(tmp_path / "far" / "s" / "r.jsonl", [*({"prompt": "a cat", "image": n} for n in names), ODD_ROWS[cause]])
    report = import_data(tmp_path / "far" / "s", tmp_path / "out")
    assert report.images == ROWS
    assert [key.partition(":")[0] for key in report.imported["dropped"]] == [cause]


def test_a_nan_score_is_no_right_image(tmp_path):
    files(tmp_path / "s")
    (tmp_path / "s" / "r.jsonl").write_text(
        '{"prompt": "x", "image": "0.png", "score": NaN}\n{"prompt": "y", "image": "1.png"}'
    )
    report = import_data(tmp_path / "s", tmp_path / "out")
    assert report.images == 1 and report.imported["dropped"] == {"score is outside [0, 1]": 1}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_ends_in_counts_or_one_line(name, seed, tmp_path):
    """One file of the format is cut, overwritten or emptied: a report or a UserError, and what is whole is kept."""
    source, count = made(name, tmp_path)
    rng = random.Random(f"{name} {seed}")
    victim = rng.choice(sorted(path for path in source.rglob("*") if path.is_file()))
    data = bytearray(victim.read_bytes())
    place = rng.randrange(len(data))
    damage = seed % 5
    if damage == 0:
        data = data[:place]
    elif damage == 1:
        data[place : place + 20] = rng.randbytes(20)
    elif damage == 2:
        data = bytearray(rng.randbytes(len(data)))
    elif damage == 3:
        data = bytearray()
    else:
        data[place:place] = b"\x00[{[{<html>"
    victim.write_bytes(data)
    try:
        report = import_data(source, tmp_path / "out")
    except UserError as error:
        assert "\n" not in str(error)
        assert victim.suffix not in (".png", ".txt"), f"one bad image of {count} stopped all: {error}"
        return
    assert report.images == len(list(Store(tmp_path / "out")))
    if report.images < count and victim.suffix == ".png":
        assert report.dropped >= 1


def test_a_pipe_is_not_read(tmp_path):
    source, _ = made("imagefolder_jsonl", tmp_path)
    (source / "2.png").unlink()
    os.mkfifo(source / "2.png")
    report = import_data(source, tmp_path / "out")
    assert report.imported["dropped"] == {"image is missing: no such file": 1}


def test_nothing_to_import_says_why(tmp_path):
    (tmp_path / "s").mkdir()
    with pytest.raises(UserError, match="holds no images and no rows"):
        import_data(tmp_path / "s", tmp_path / "out")
    files(tmp_path / "s")
    with pytest.raises(UserError, match="6 images without a text"):
        import_data(tmp_path / "s", tmp_path / "out")
    with pytest.raises(UserError, match="no such file or folder"):
        import_data(tmp_path / "nowhere", tmp_path / "out")


def test_what_stands_in_the_way_is_left_alone(tmp_path):
    source, _ = made("imagefolder_jsonl", tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        import_data(source, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["thesis.txt"]


# -------------------------------------------------------------------------------- shards and resuming


def test_processes_and_shards_change_nothing(tmp_path):
    source, _ = made("janus_pro_r1", tmp_path)
    import_data(source, tmp_path / "one")
    import_data(source, tmp_path / "many", ImportOptions(shard_rows=10, processes=2))
    assert list(Store(tmp_path / "one")) == list(Store(tmp_path / "many"))
    assert len(Store(tmp_path / "many").shards) == 6  # cut between prompts: 16 images each


def test_a_second_import_needs_resume_and_the_same_options(tmp_path):
    source, _ = made("janus_pro_r1", tmp_path)
    import_data(source, tmp_path / "out")
    with pytest.raises(UserError, match="already holds data"):
        import_data(source, tmp_path / "out")
    with pytest.raises(UserError, match="another licence"):
        import_data(source, tmp_path / "out", ImportOptions(licence="mit"), resume=True)
    assert import_data(source, tmp_path / "out", resume=True).images == 96


IMPORT = """
import sys, time
from pathlib import Path
from janus_r1.data import importing
slow = importing._check_row
importing._check_row = lambda *a: (time.sleep(0.05), slow(*a))[1]
sevens = importing.ImportOptions(shard_rows=7)
importing.import_data(Path(sys.argv[1]), Path(sys.argv[2]), sevens, resume=len(sys.argv) > 3)
"""


def test_a_killed_import_goes_on(tmp_path):
    source = tmp_path / "source"
    names = files(source)
    rows = [{"prompt": f"cat {i}", "image": names[i % ROWS] if i % 9 else "none.png", "id": f"{i}"} for i in range(60)]
    lines(source / "rows.jsonl", rows)
    process = subprocess.Popen([sys.executable, "-c", IMPORT, str(source), str(tmp_path / "out")])
    while not (tmp_path / "out" / "data" / "train-00001.parquet").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert is_store(tmp_path / "out") and len(Store(tmp_path / "out")) < 53
    with pytest.raises(UserError, match="--resume"):
        import_data(source, tmp_path / "out", ImportOptions(shard_rows=7))
    resumed = import_data(source, tmp_path / "out", ImportOptions(shard_rows=7), resume=True)
    straight = import_data(source, tmp_path / "straight", ImportOptions(shard_rows=7))
    assert list(Store(tmp_path / "out")) == list(Store(tmp_path / "straight"))
    assert resumed.as_dict() == straight.as_dict() and resumed.dropped == 7
    assert not list((tmp_path / "out" / "data").glob(".*")), "what the killed process left is cleared away"


def test_two_imports_do_not_share_a_folder(tmp_path):
    source, _ = made("json_lines", tmp_path)
    with exclusive(tmp_path / "out"), pytest.raises(UserError, match="in use by another"):
        import_data(source, tmp_path / "out")


def test_resuming_skips_rows_in_every_container(tmp_path):
    for name in FORMATS:
        (tmp_path / name).mkdir()
        source, _ = made(name, tmp_path / name)
        import_data(source, tmp_path / name / "whole")
        import_data(source, tmp_path / name / "parts", ImportOptions(shard_rows=2))
        for shard in sorted((tmp_path / name / "parts" / "data").glob("*.parquet"))[1:]:
            shard.unlink()
        import_data(source, tmp_path / name / "parts", ImportOptions(shard_rows=2), resume=True)
        assert list(Store(tmp_path / name / "parts")) == list(Store(tmp_path / name / "whole")), name


# ------------------------------------------------------------------------------------------- the store


def test_a_report_counts_overlap_duplicates_and_licences(tmp_path):
    names = files(tmp_path / "s")
    rows = [{"prompt": "A photo of a  Cat.", "image": names[0], "licence": "cc0"} for _ in range(3)]
    lines(tmp_path / "s" / "r.jsonl", [*rows, {"prompt": "a dog", "image": names[1]}])
    lines(tmp_path / "tests.jsonl", [{"prompt": "a photo of a cat"}, {"prompt": "a photo of a bus"}])
    report = import_data(tmp_path / "s", tmp_path / "out", prompts=[tmp_path / "tests.jsonl"])
    assert report.overlap == {"tests.jsonl": 1} and report.duplicates == 2
    assert report.licences == {"cc0": 3, "not stated": 1}
    assert json.loads((tmp_path / "out" / "report.json").read_text())["images"] == 4


def test_a_shard_appears_whole_or_not_at_all(tmp_path):
    source, _ = made("json_lines", tmp_path)
    import_data(source, tmp_path / "out")

    def failing():
        yield Store(tmp_path / "out")[0]
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        write_shard(tmp_path / "shards" / "a.parquet", failing(), {})
    assert os.listdir(tmp_path / "shards") == []


def test_a_broken_shard_is_one_line(tmp_path):
    source, _ = made("json_lines", tmp_path)
    import_data(source, tmp_path / "out")
    shard = tmp_path / "out" / "data" / "train-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a whole shard"):
        Store(tmp_path / "out")
    pq.write_table(pq.read_table(FORMATS["ultraedit"](tmp_path) and tmp_path / "FreeForm.parquet"), shard)
    with pytest.raises(UserError, match="not a shard of this project"):
        Store(tmp_path / "out")


def test_special_tokens_are_those_of_the_tokenizer():
    from janus_r1.model.tokenizer import SPECIAL_TOKENS

    for token in SPECIAL_TOKENS:
        assert any(part in token for part in SPECIAL), token


def test_a_look_shows_rows_and_a_sheet(tmp_path, capsys):
    source, _ = made("janus_pro_r1", tmp_path)
    import_data(source, tmp_path / "out")
    rows = look_at(tmp_path / "out", rows=7, sheet=tmp_path / "sheet.png")
    assert len(rows) == 7 and rows == look_at(tmp_path / "out", rows=7)
    records = Store(tmp_path / "out")
    assert all(records[row["row"]].prompt == row["prompt"] for row in rows)
    show_rows(rows)
    assert rows[0]["id"] in capsys.readouterr().out
    assert read_image(tmp_path / "sheet.png").shape[1] > 5 * 192
    with pytest.raises(UserError, match="holds no data"):
        look_at(tmp_path)


def test_codes_are_computed_once_and_belong_to_a_tokenizer(tiny, tmp_path, monkeypatch):
    source, _ = made("folder_of_pairs", tmp_path)
    import_data(source, tmp_path / "out", ImportOptions(shard_rows=4))
    store = Store(tmp_path / "out")
    codes = Codes(store, tiny)
    pixels = np.stack([fitted(data, tiny.image_size, True) for data in (store[5].image, store[5].source_image)])
    wanted = tiny.encode_image(from_uint8(pixels)).tolist()
    assert [list(codes.image(5)), list(codes.source(5))] == wanted
    monkeypatch.setattr(tiny, "encode_image", lambda *a: pytest.fail("computed again"))
    assert Codes(Store(tmp_path / "out"), tiny).image(5) == codes.image(5)
    with torch.no_grad():
        next(tiny.core.model.vqmodel.parameters()).add_(1)
    assert not (tmp_path / "out" / "codes" / tiny.image_tokenizer_hash()).exists()


def test_a_picture_to_draw_is_cropped_and_one_to_edit_is_padded():
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, 8:24] = 255
    stream = io.BytesIO()
    Image.fromarray(wide).save(stream, "PNG")
    assert fitted(stream.getvalue(), 16, edit=False).min() > 200
    padded = fitted(stream.getvalue(), 16, edit=True)
    assert (padded[0] == 127).all() and (padded[8, 0] == 0).all()
