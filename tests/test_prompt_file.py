"""Prompt files, which drawing and reinforcement learning read alike."""

from __future__ import annotations

import io
import json

import pytest

from janus_r1.data.task_files import read_prompts
from janus_r1.errors import UserError


def test_text_may_have_blanks_comments_and_a_byte_order_mark(tmp_path, monkeypatch):
    path = tmp_path / "prompts.txt"
    path.write_text("\ufeff# two of them\n a ring \n\n\ta star\n", encoding="utf-8")
    assert read_prompts(str(path)) == ["a ring", "a star"]
    monkeypatch.setattr("sys.stdin", io.StringIO("a heart\n"))
    assert read_prompts("-") == ["a heart"]


def test_jsonl_holds_objects(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt, "id": 1}) + "\n\n" for prompt in ("# a ring", "a star")))
    assert read_prompts(str(path)) == ["# a ring", "a star"]


@pytest.mark.parametrize("line", ['{"text": "a ring"}', '{"prompt": " "}', '{"prompt": 3}', "[]", "a ring"])
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a star"}\n\n' + line)
    with pytest.raises(UserError, match=r"prompts\.jsonl, line 3: expected an object"):
        read_prompts(str(path))


def test_files_without_prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    for content, complaint in (
        (b"\n# only a comment\n", "holds no prompt"),
        (b"\xff\xfe\x00", "cannot read the prompt"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=complaint):
            read_prompts(str(path))
    with pytest.raises(UserError, match="no such prompt file"):
        read_prompts(str(tmp_path / "none.txt"))
