"""Lists of prompts in every form that people have them in."""

from __future__ import annotations

import io
import json
import sys

import pytest

from janus_r1.data.task_files import read_prompt_list, read_tasks
from janus_r1.errors import UserError

WANTED = ["a red circle", "two stars, one above the other"]
FORMS = {
    "a.txt": "# two\na red circle\n\n  two stars, one above the other\n",
    "a": "a red circle\r\ntwo stars, one above the other",
    "a.jsonl": '{"prompt": "a red circle"}\n\n{"prompt": "two stars, one above the other", "seed": 1}\n',
    "b.jsonl": '{"text": "a red circle"}\n{"caption": "two stars, one above the other"}\n',
    "a.json": '["a red circle", {"text": "two stars, one above the other"}]',
    "a.csv": 'id,Prompt\n1,a red circle\n2,"two stars, one above the other"\n',
    "a.tsv": "caption\tid\na red circle\t1\ntwo stars, one above the other\t2\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form(tmp_path, name):
    (tmp_path / name).write_text(FORMS[name], encoding="utf-8-sig")
    assert [prompt for prompt, _ in read_prompt_list(str(tmp_path / name))] == WANTED


def test_a_text_may_begin_with_a_bracket(tmp_path):
    (tmp_path / "a.txt").write_text("[a red circle]\n{a star}\n")
    assert [prompt for prompt, _ in read_prompt_list(str(tmp_path / "a.txt"))] == ["[a red circle]", "{a star}"]


def test_what_else_an_entry_says_is_kept(tmp_path):
    (tmp_path / "a.jsonl").write_text(FORMS["a.jsonl"])
    assert [row for _, row in read_prompt_list(str(tmp_path / "a.jsonl"))] == [{}, {"seed": 1}]
    (tmp_path / "a.csv").write_text(FORMS["a.csv"])
    assert [row for _, row in read_prompt_list(str(tmp_path / "a.csv"))] == [{"id": "1"}, {"id": "2"}]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json"])
def test_standard_input(monkeypatch, name):
    monkeypatch.setattr(sys, "stdin", io.StringIO(FORMS[name]))
    assert [prompt for prompt, _ in read_prompt_list("-")] == WANTED


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.txt", "\n# only a comment\n", "holds no prompt"),
        ("a.txt", json.dumps(WANTED), "looks like JSON: name it .json"),
        ("a.txt", json.dumps(WANTED, indent=1), "looks like JSON: name it .json"),
        ("a.txt", FORMS["a.jsonl"], "looks like JSON: name it .json"),
        ("a.json", "[]", "holds no prompt"),
        ("a.json", '{"prompt": "x"}', "must hold a JSON list"),
        ("a.json", '["a", 5]', "entry 2: expected a text"),
        ("a.json", '["a", " "]', "entry 2: expected a text"),
        ("a.json", '["\\ud800"]', "surrogate"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": null}', "line 2: expected a text"),
        ("a.jsonl", '{"prompt": "a"}\nb', "line 2 as JSON"),
        ("a.csv", "a red circle\ntwo stars\n", "line 2: expected a text under prompt or text or caption"),
        ("a.csv", "prompt,id\na red circle\n", "1 cells under 2 columns"),
        ("a.png", "x", "a list of prompts is text"),
        ("a.yaml", "- x", "a list of prompts is text"),
    ],
)
def test_what_is_none_is_refused_with_its_place(tmp_path, name, text, complaint):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=complaint) as caught:
        read_prompt_list(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_what_is_no_text_or_not_there(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        read_prompt_list(str(tmp_path / "a.txt"))
    with pytest.raises(UserError, match="no such file"):
        read_prompt_list(str(tmp_path / "b.txt"))
    with pytest.raises(UserError, match="a folder"):
        read_prompt_list(str(tmp_path))


def test_tasks_keep_what_else_an_entry_says(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "# a ring", "id": 1}\n')
    [task] = read_tasks(str(path))
    assert task.prompt == "# a ring" and task.columns == {"id": 1} and task.source is None


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.txt", "a ring\n\na <begin_of_image>\n"), ("a.jsonl", '{"prompt": "a ring"}\n\n{"text": "<|User|>"}\n')],
)
def test_special_tokens_are_refused_with_their_line_before_any_work(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=r"line 3.*special token"):
        read_tasks(str(tmp_path / name))
