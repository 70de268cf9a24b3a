"""Whatever a file holds, the answer is its value or one clear line, at once."""

from __future__ import annotations

import os

import pytest

from janus_r1.errors import UserError
from janus_r1.fields import Typed, convert
from janus_r1.reading import field, open_regular, parse_json, read_json, read_jsonl, read_table, read_text, read_yaml


def wrote(path, data: str | bytes):
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_pipes_devices_and_folders_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(UserError, match=r"is a (folder|device or a pipe)"):
            read_text(path)
    with pytest.raises(UserError, match="no such file"):
        read_text(tmp_path / "none")
    with pytest.raises(UserError, match="cannot read"):
        read_text("a\0b")


def test_size_is_limited_before_anything_is_read(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: no disk is used
    with pytest.raises(UserError, match="larger"):
        read_text(path)
    with open_regular(path) as file:
        assert file.read(1) == b"\0"


@pytest.mark.parametrize(
    "text",
    ["{", "", "[1,", "[" * 100_000, "{\"a\":" * 500, "[" * 70 + "]" * 70, '{"x": NaN}', "[-Infinity]", '"\\ud800"',
     '{"\\udfff": 1}', "1" * 5000, "nul", "'a'"],
)  # fmt: skip
def test_broken_json_is_one_clear_line(tmp_path, text):
    with pytest.raises(UserError) as caught:
        read_json(wrote(tmp_path / "a.json", text))
    assert "a.json" in str(caught.value) and "\n" not in str(caught.value)


def test_json_at_the_limits_is_read(tmp_path):
    deep = "[" * 60 + "]" * 60
    assert read_json(wrote(tmp_path / "a", f'{{"x": {deep}, "y": "\\ud83d\\ude00é", "z": 1e-3}}'))["y"] == "😀é"


def test_jsonl_names_the_line(tmp_path):
    path = wrote(tmp_path / "a.jsonl", '\ufeff{"a": 1}\n\n[2]\r\n"\u2028"\n')
    assert [value for _, value in read_jsonl(path)] == [{"a": 1}, [2], "\u2028"]
    with pytest.raises(UserError, match="line 3"):
        list(read_jsonl(wrote(path, "1\n\n{\n4")))


def test_tables(tmp_path):
    rows = dict(read_table(wrote(tmp_path / "a.csv", 'prompt,score\n"a, ""b""",1\n\nc,2\n')))
    assert [row["prompt"] for row in rows.values()] == ['a, "b"', "c"] and list(rows)[1].endswith("line 4")
    assert next(read_table(wrote(tmp_path / "a.tsv", "x\ty\n1\t2")))[1] == {"x": "1", "y": "2"}
    for broken in ("", "a,a\n1,2", "a,\n1,2", "a,b\n1", 'a\n"1'):
        with pytest.raises(UserError, match=r"a\.csv"):
            list(read_table(wrote(tmp_path / "a.csv", broken)))


@pytest.mark.parametrize(
    "text", ["a: [", "- 1", "a: 2001-13-40", "x: &a [*a", "a: " + "[" * 20_000, "!!python/object/apply:os.system [id]"]
)
def test_broken_yaml_is_one_clear_line(tmp_path, text):
    with pytest.raises(UserError, match=r"a\.yaml"):
        read_yaml(wrote(tmp_path / "a.yaml", text))


def test_yaml_in_which_a_little_stands_for_a_lot_is_refused(tmp_path):
    with pytest.raises(UserError, match="nests too deep"):
        read_yaml(wrote(tmp_path / "a.yaml", "x: &a [*a]"))
    bomb = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 9)}]\n" for i in range(12))
    with pytest.raises(UserError, match="holds too much"):
        read_yaml(wrote(tmp_path / "a.yaml", bomb))
    with pytest.raises(UserError, match="nests too deep"):
        convert(Typed("&a [*a]"), list[int], "a")


def test_text_that_is_not_utf_8(tmp_path):
    with pytest.raises(UserError, match="byte 1"):
        read_text(wrote(tmp_path / "a", b"a\xff"))


def test_fields_have_their_kind():
    assert field({"a": 1}, "a", float, "x") == 1
    for record, kind in (([], int), ({}, int), ({"a": "1"}, int), ({"a": True}, int), ({"a": None}, str)):
        with pytest.raises(UserError, match="here"):
            field(record, "a", kind, "here")
    with pytest.raises(UserError):
        parse_json("x", "here")
