"""Nothing is half-written: old content survives a failed write, temporary names never stay behind."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from janus_r1.errors import UserError
from janus_r1.files import (
    MARKER,
    appending,
    check_new_files,
    check_replaceable,
    clear_left,
    locked,
    write_atomically,
    write_json,
)
from janus_r1.reading import read_json


def folder_with(text: str):
    def write(path: Path) -> None:
        path.mkdir()
        (path / "a.txt").write_text(text)

    return write


def test_a_folder_is_replaced_whole(tmp_path):
    target = tmp_path / "out"
    write_atomically(target, folder_with("old"))
    (target / "stray.txt").write_text("x")
    write_atomically(target, folder_with("new"))
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert {p.name: p.read_text() for p in target.iterdir()} == {"a.txt": "new", MARKER: ""}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("a bug")])
def test_a_failed_write_leaves_what_was_there(tmp_path, error):
    target = tmp_path / "out"
    write_atomically(target, folder_with("old"))

    def fail(path: Path) -> None:
        folder_with("half")(path)
        raise error

    with pytest.raises(UserError if isinstance(error, OSError) else RuntimeError):
        write_atomically(target, fail)
    assert [p.name for p in tmp_path.iterdir()] == ["out"] and (target / "a.txt").read_text() == "old"


def test_a_folder_that_cannot_be_renamed_comes_back(tmp_path, monkeypatch):
    """The second of the two renames fails: the old folder must stand where it stood."""
    target, real, calls = tmp_path / "out", os.replace, []
    write_atomically(target, folder_with("old"))

    def second_fails(source, destination):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        real(source, destination)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(UserError, match="Input/output"):
        write_atomically(target, folder_with("new"))
    assert (target / "a.txt").read_text() == "old"


def test_json_that_is_none_is_one_clear_line(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    assert read_json(tmp_path / "a.json") == {"x": 1}
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(UserError, match="as JSON"):
        read_json(tmp_path / "b.json")
    with pytest.raises(UserError, match="no such file"):
        read_json(tmp_path / "c.json")


def test_a_folder_of_the_users_is_never_replaced(tmp_path):
    theirs = tmp_path / "results"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="is a folder"):
        write_json(theirs, {})
    with pytest.raises(UserError, match="not written by janus-r1"):
        write_atomically(theirs, folder_with("new"))
    assert [(p.name, p.read_text()) for p in theirs.iterdir()] == [("thesis.txt", "x")]
    assert [p.name for p in tmp_path.iterdir()] == ["results"]


def test_links_and_pipes_are_never_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "file", "nothing"):
        (tmp_path / f"to-{name}").symlink_to(tmp_path / name)
    for name in ("pipe", "to-folder", "to-file", "to-nothing"):
        for kind in ("file", "folder"):
            with pytest.raises(UserError, match="link, a device or a pipe"):
                check_replaceable(tmp_path / name, kind)
        with pytest.raises(UserError, match="link, a device or a pipe"):
            write_json(tmp_path / name, {})
    assert (tmp_path / "file").read_text() == "x" and (tmp_path / "to-folder").is_symlink()


def test_a_device_is_never_replaced():
    with pytest.raises(UserError, match="link, a device or a pipe"):
        write_json(Path("/dev/null"), {})
    assert Path("/dev/null").is_char_device()


def test_a_full_disk_under_torch_is_one_clear_line(tmp_path):
    def fail(path: Path) -> None:
        path.mkdir()
        raise RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file")

    with pytest.raises(UserError, match="cannot write"):
        write_atomically(tmp_path / "out", fail)
    assert not list(tmp_path.iterdir())


def test_one_process_at_a_time(tmp_path):
    """flock is held by an open file, so that a second holder in the same process is refused, too."""
    with locked(tmp_path / "run"):
        with pytest.raises(UserError, match="in use by another"), locked(tmp_path / "run"):
            pass
        with locked(tmp_path / "another"):
            pass
    with locked(tmp_path / "run"):
        pass
    assert not list(tmp_path.iterdir())


def test_what_a_killed_writer_left_goes_and_what_it_moved_comes_back(tmp_path):
    (tmp_path / ".model.123.tmp").mkdir()
    (tmp_path / ".best.json.7.tmp.json").touch()
    for name, text in ((".best.123.old", "moved"), (".model.9.old", "old"), ("model", "new"), (".mine", "mine")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(text)
    clear_left(tmp_path)
    assert {path.name: (path / "a").read_text() for path in tmp_path.iterdir()} == {
        "best": "moved",
        "model": "new",
        ".mine": "mine",
    }


def test_a_disk_that_refuses_a_line_is_told_in_one(tmp_path):
    with (
        pytest.raises(UserError, match=r"run: No space left.*free some space, then go on"),
        appending(tmp_path / "run"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ConnectionError), appending(tmp_path / "run"):
        raise ConnectionError("not the disk's")


def test_a_file_of_the_users_goes_only_when_it_is_given_up(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    check_new_files(False, tmp_path / "new", None)
    check_new_files(True, tmp_path / "thesis.txt")
    with pytest.raises(UserError, match="--overwrite"):
        check_new_files(False, tmp_path / "new", tmp_path / "thesis.txt")


def test_text_that_is_no_character_is_spelt_out(tmp_path):
    write_json(tmp_path / "a.json", {"text": "a \ud800 ü"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"text": "a \ud800 ü"}
