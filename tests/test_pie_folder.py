"""A PIE-Bench folder: how its masks decode, what is read of it, and one clear line for whatever is wrong with it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import pie_bench
from janus_r1.errors import UserError
from janus_r1.eval.pie import decode_mask, read_folder


@pytest.fixture
def entries(tmp_path):
    return pie_bench.save_folder(tmp_path)


def inner(mask: np.ndarray) -> list[int]:
    """What is marked, as pixel numbers, apart from the border."""
    marked = np.zeros_like(mask)
    marked[1:-1, 1:-1] = mask[1:-1, 1:-1]
    return np.flatnonzero(marked).tolist()


def test_runs_go_row_by_row_and_may_wrap():
    assert inner(decode_mask([7, 2], side=6)) == [7, 8]
    assert inner(decode_mask([9, 5, 25, 1], side=6)) == [9, 10, 13, 25], "12 and 11 are border"


def test_the_border_always_belongs_to_the_edited_region():
    mask = decode_mask([], side=6)
    assert mask.sum() == 20 and not mask[1:-1, 1:-1].any()
    assert mask[0].all() and mask[-1].all() and mask[:, 0].all() and mask[:, -1].all()


def test_a_run_past_the_end_is_cut():
    assert decode_mask([13, 1000], side=6)[2:].all()
    assert (decode_mask([36, 4, 99, 1], side=6) == decode_mask([], side=6)).all()


def test_what_is_read(entries, tmp_path):
    cases = read_folder(tmp_path)
    assert [case.name for case in cases] == list(entries), "in the order of the mapping"
    assert [case.kind for case in cases] == ["change object", "change object", "change style", "change colour"]
    assert cases[1].instruction == "make disc 1 red" and cases[1].target == "a red disc on a ground"
    assert (cases[1].picture() == pie_bench.picture(1)).all()
    edited = cases[1].edited()
    assert edited[100:300, 100:250].all() and edited.sum() == 200 * 150 + 4 * 511
    assert cases[2].edited().all()


def test_a_limit_takes_the_types_in_turn_and_needs_no_other_pictures(entries, tmp_path):
    (tmp_path / "annotation_images" / entries["000000000001"]["image_path"]).unlink()
    assert [case.kind for case in read_folder(tmp_path, 3)] == ["change object", "change style", "change colour"]
    with pytest.raises(UserError, match=r"no such file: .*000000000001\.png"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"mask": [0, 5, 7]}, "mask has 3 entries, an odd number: it must be starts and lengths in turn"),
        ({"mask": [0, -5]}, "mask is not a list of whole numbers"),
        ({"mask": "0 5"}, "mask is not a list of whole numbers"),
        ({"editing_type_id": "10"}, "unknown editing_type_id '10': the types are 0 to 9"),
        ({"editing_instruction": None}, "editing_instruction is not text"),
        ({"editing_prompt": ...}, "has no editing_prompt"),
    ],
)
def test_a_malformed_entry_is_named(entries, tmp_path, change, complaint):
    entries["000000000003"] |= change
    entries["000000000003"] = {key: value for key, value in entries["000000000003"].items() if value is not ...}
    pie_bench.write(tmp_path, entries)
    with pytest.raises(UserError, match=complaint) as caught:
        read_folder(tmp_path, 1)
    assert "000000000003" in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_is_none(entries, tmp_path):
    with pytest.raises(UserError, match=r"no mapping_file\.json in .*annotation_images"):
        read_folder(tmp_path / "annotation_images")
    for content, complaint in (
        ([], "must hold an object"),
        ({}, "must hold an object"),
        ({"a": 1}, "a is not an object"),
    ):
        pie_bench.write(tmp_path, content)
        with pytest.raises(UserError, match=complaint):
            read_folder(tmp_path)
    (tmp_path / "mapping_file.json").write_text("{")
    with pytest.raises(UserError, match="as JSON"):
        read_folder(tmp_path)


def test_a_picture_of_another_size_has_no_mask(entries, tmp_path):
    path = tmp_path / "annotation_images" / entries["000000000000"]["image_path"]
    Image.new("RGB", (640, 512)).save(path)
    with pytest.raises(UserError, match="is 640 x 512: PIE-Bench's pictures, and so its masks, are 512 x 512"):
        read_folder(tmp_path)
