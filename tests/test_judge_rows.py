"""Judges on one's own labelled images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from data_formats import lines
from janus_r1.cli import main
from janus_r1.errors import UserError
from janus_r1.eval.judge import judge_rows
from janus_r1.images import read_image
from janus_r1.rewards.janus import JanusReward
from janus_r1.rewards.python import PythonReward


def by_brightness(images):
    return [image.getpixel((0, 0))[0] / 255 for image in images]


@pytest.fixture
def rows(tmp_path):
    """Ten grey images of rising brightness; the brighter half is right, but for one."""
    folder = tmp_path / "own"
    folder.mkdir()
    listed = []
    for number in range(10):
        Image.fromarray(np.full((16, 16, 3), 25 * number + 10, np.uint8)).save(folder / f"{number}.png")
        label = "yes" if number > 5 or number == 2 else "no"
        listed.append({"image": f"{number}.png", "text": f"text {number % 5}", "label": label})
    lines(folder / "rows.jsonl", listed)
    return folder / "rows.jsonl"


def test_figures_are_those_of_the_rows(rows, tmp_path):
    result = judge_rows(rows, {"mine": PythonReward(by_brightness)}, sheets=tmp_path / "sheets")
    judged = result["judges"]["mine"]
    assert (result["rows"], result["yes"], judged["answered"]) == (10, 5, 10)
    assert judged["accuracy"]["mean"] == pytest.approx(0.8)  # 5 is above 0.5 and labelled no, 2 the other way round
    assert judged["accuracy"]["low"] < 0.8 < judged["accuracy"]["high"]
    assert judged["auroc"]["mean"] == pytest.approx(22 / 25)
    assert [error["text"] for error in judged["worst"]] == ["text 2", "text 0"]
    assert read_image(tmp_path / "sheets" / "mine.png").shape[0] > 192
    json.dumps(result)


def test_abstentions_are_counted_and_left_out(rows):
    def half(images):
        return [None if index % 2 else 0.9 for index, _ in enumerate(images)]

    result = judge_rows(rows, {"mine": PythonReward(by_brightness), "half": PythonReward(half)})
    assert result["judges"]["half"]["answered"] == 5
    assert result["judges"]["half"]["abstained"] == {"none given": 5}
    assert result["judges"]["mine"]["answered"] == 10
    with pytest.raises(UserError, match=r"the judge none answered no row: none given \(10\)"):
        judge_rows(rows, {"none": PythonReward(lambda images: [None] * len(images))})


def test_bad_rows_are_counted_and_passed_over(rows):
    with rows.open("a") as stream:
        stream.write(
            '{"image": "none.png", "text": "x", "label": 1}\n{"image": "1.png", "text": "no label"}\n{broken\n'
        )
    (rows.parent / "3.png").write_bytes(b"nothing")
    result = judge_rows(rows, {"mine": PythonReward(by_brightness)})
    assert result["rows"] == 9
    assert sorted(cause.partition(":")[0] for cause in result["dropped"]) == [
        "image is missing",
        "image is not an image",
        "not JSON",
        "row without a label",
    ]


def test_rows_without_labels_are_one_line(rows):
    lines(rows, [{"image": "1.png", "text": "x"}])
    with pytest.raises(UserError, match=r"no row with a label: row without a label \(1\)"):
        judge_rows(rows, {"mine": PythonReward(by_brightness)})


def test_a_janus_judge_beside_another(rows, tiny):
    result = judge_rows(rows, {"janus": JanusReward(tiny), "mine": PythonReward(by_brightness)}, limit=4)
    assert result["rows"] == 4 and set(result["judges"]) == {"janus", "mine"}


def test_the_command(rows, tiny_folder, tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def score(images):\n    return [0.9 for _ in images]\n")
    (tmp_path / "judges.yaml").write_text(
        f"rewards: [{{kind: python, path: '{tmp_path}/mine.py:score', name: mine}}]\n"
    )
    argv = ["eval", "judge", "--model", str(tiny_folder), "--rewards", str(tmp_path / "judges.yaml"), "--json"]
    assert main([*argv, "--data", str(rows), "--limit", "6", "--sheets", str(tmp_path / "sheets")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["rows"] == 6 and set(result["judges"]) == {str(tiny_folder), "mine"}
    assert (tmp_path / "sheets" / "mine.png").is_file()
    assert main(argv) == 2
    assert "--rewards goes with --data" in capsys.readouterr().err
