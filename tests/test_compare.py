"""The leaderboard, contamination, and GenEval as a reward."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from janus_r1.chain import Task
from janus_r1.commands import data
from janus_r1.data.report import overlap, plain
from janus_r1.errors import UserError
from janus_r1.eval import compare, geneval_reward
from janus_r1.eval.benchmark import draw
from janus_r1.eval.benchmark_report import report
from janus_r1.eval.benchmark_score import score_folder
from janus_r1.eval.compare import boards, page, published, read_results, text
from janus_r1.eval.geneval import flow_grpo_reward, judge, prompts
from janus_r1.eval.geneval_benchmark import GenEvalScorer
from janus_r1.eval.geneval_detector import Detector
from janus_r1.rewards.python import PythonReward, load_function
from test_benchmark import FEW, OPTIONS, Critic, Painter
from tiny_scorers import mask2former


@pytest.fixture
def result(tmp_path):
    folder = tmp_path / "out"
    draw(FEW, folder, Painter(), OPTIONS)
    score_folder(FEW, folder, Critic(), tmp_path / "s.jsonl")
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(report(FEW, [tmp_path / "s.jsonl"], folder)))
    return path


def official(path, share: int):
    """A result file as the original writes it; of every ten verdicts ``share`` are right."""
    rows = [
        {"filename": "x", "tag": row["tag"], "prompt": row["prompt"], "correct": (n + i) % 10 < share}
        | {"reason": "", "metadata": json.dumps(row), "details": "{}"}
        for n, row in enumerate(prompts())
        for i in range(4)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_reports_and_other_peoples_verdicts_share_a_board(result, tmp_path):
    theirs = official(tmp_path / "sd3.jsonl", 7)
    entries = [*read_results(result), *read_results(theirs)]
    (board,) = boards(entries)
    assert board.title == "GenEval"
    models = {entry.model for entry in board.entries}
    assert models == {"mine, round 1", "mine, round 2", "mine, round 3", "sd3"}
    means = [entry.figure["mean"] for entry in board.entries]
    assert means == sorted(means, reverse=True)
    sd3 = next(entry for entry in board.entries if entry.model == "sd3")
    assert sd3.figure["mean"] == pytest.approx(0.7, abs=0.01) and sd3.figure["low"] < 0.7 < sd3.figure["high"]
    assert "draft" not in text([board])


def test_published_figures_stand_beside_as_their_authors(tmp_path):
    (board,) = boards(read_results(official(tmp_path / "a.jsonl", 8)), published())
    cited = [entry for entry in board.entries if not entry.measured]
    assert {"Janus-Pro-7B", "Janus-Pro-R1-7B"} <= {entry.model for entry in cited}
    assert all(entry.note.startswith("by ") and entry.source for entry in cited)
    shown = page([board])
    assert "class=cited" in shown and "arXiv 2506.01480" in shown and shown.count("<circle") == len(board.entries)
    assert "0.860 [" not in shown  # no interval is made up for them


def test_partial_results_have_boards_of_their_own(tmp_path):
    path = official(tmp_path / "a.jsonl", 8)
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    (board,) = boards(read_results(path), published())
    assert board.title == "GenEval (partial)" and all(entry.measured for entry in board.entries)


def test_imported_figures(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"benchmark": "tiif", "model": "<b>", "value": 0.5, "source": "somewhere"}]))
    (board,) = boards(read_results(path), published())
    assert board.title == "tiif" and [entry.model for entry in board.entries] == ["<b>"]
    assert "&lt;b&gt;" in page([board]) and "<b>" not in page([board])


@pytest.mark.parametrize(
    "content",
    ["[]x", '{"a": 1}', '[{"benchmark": "b", "model": "m", "value": 80, "source": "s"}]', '{"arms": {"r": 1}}', "1\n2"],
)
def test_files_that_are_no_results(content, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match=r"x\.json"):
        read_results(tmp_path / "x.json")


def test_the_command_writes_a_page(result, tmp_path, capsys):
    compare.compare([result, official(tmp_path / "sd3.jsonl", 6)], tmp_path / "page.html")
    assert "sd3" in capsys.readouterr().out
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    compare.compare([result], cited=False, json=True)
    assert json.loads(capsys.readouterr().out)[0]["entries"]


# ---------------------------------------------------------------------------------- contamination


def test_overlap_is_blind_to_case_marks_and_a_photo_of():
    assert plain("A photo of a red  apple.") == plain("a red apple") == "a red apple"
    found = overlap(
        ["A BENCH", "a bench!", "a green bench", "two cats"], {"g": ["a photo of a bench", "a photo of a cow"]}
    )
    assert found["g"].prompts == 1 and found["g"].rows == 2 and found["g"].of == 2
    assert found["g"].examples == ("a photo of a bench",)


def test_the_overlap_of_a_prompt_file(tmp_path, capsys):
    (tmp_path / "p.txt").write_text("a photo of a bench\nsomething else\nA photo of a bench\n")
    data.overlap(tmp_path / "p.txt")
    assert "geneval: 1 of its 553 prompts stand in 2 rows" in capsys.readouterr().out
    (tmp_path / "color_val.txt").write_text("something else\n")
    data.overlap(tmp_path / "p.txt", data=[f"compbench-color={tmp_path / 'color_val.txt'}"], json=True)
    assert json.loads(capsys.readouterr().out)["compbench-color"]["prompts"] == 1


# ---------------------------------------------------------------------------------------- rewards


@pytest.fixture
def eyes(monkeypatch):
    """A tiny detector at a tiny size, which surely sees something."""
    import torch

    from janus_r1.eval import geneval_detector

    monkeypatch.setattr(geneval_detector, "LONG", 166)
    monkeypatch.setattr(geneval_detector, "SHORT", 100)
    model = mask2former()
    with torch.no_grad():
        model.class_predictor.weight.mul_(200)
    scorer = GenEvalScorer(Detector(model), None, {}, no_colors="run `hf download`")
    monkeypatch.setattr(geneval_reward, "_scorer", lambda: scorer)
    return scorer


def test_geneval_as_a_reward(eyes):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (found,) = eyes.detector.find([image])
    name = found[0].name
    row = {"tag": "single_object", "include": [{"class": name, "count": 1}]}
    items = [(Task("my own prompt", columns=row), image), (Task("no metadata"), image)]
    for path, rule in (("geneval", lambda r, d: float(judge(r, d)[0])), ("flow_grpo", flow_grpo_reward)):
        reward = PythonReward(load_function(f"janus_r1.eval.geneval_reward:{path}"))
        first, second = reward.score(items)
        (seen,) = eyes.see([image], [{**row, "prompt": "p"}])
        expected = rule({**row, "prompt": "p"}, seen)
        assert first == pytest.approx(max(0.0, expected[1]) if path == "flow_grpo" else expected)
        assert not isinstance(second, float)  # it abstains
    assert geneval_reward.geneval(["p"], [Image.fromarray(image)], [row["tag"]], [row["include"]]) == [1.0]


def test_the_benchmarks_own_prompts_are_no_training_data(eyes):
    image = Image.new("RGB", (64, 64))
    with pytest.raises(UserError, match="a prompt of GenEval itself"):
        geneval_reward.geneval(["A photo of a bench."], [image], ["single_object"], [prompts()[0]["include"]])


def test_a_reward_without_clip_says_so(eyes):
    clause = [{"class": "dog", "count": 1, "color": "red"}]
    with pytest.raises(UserError, match="hf download"):
        geneval_reward.geneval(["mine"], [Image.new("RGB", (64, 64))], ["colors"], [clause])


# ---------------------------------------------------------------------------- agreement of scorers


def test_agreement_of_two_scorers(tmp_path, capsys, monkeypatch):
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "studies"))
    import geneval_agreement as study

    def verdicts(name, marks):
        rows = [
            {
                "filename": f"{name}/{i:05}/samples/00000.png",
                "tag": "colors",
                "prompt": str(i),
                "correct": mark,
                "reason": "",
            }
            for i, mark in enumerate(marks)
        ]
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
        return str(tmp_path / name)

    ours, theirs = verdicts("a", [True, True, False, False]), verdicts("b", [True, False, False, False])
    study.main([ours, theirs, "--out", str(tmp_path / "o.json")])
    found = json.loads((tmp_path / "o.json").read_text())
    assert found["agreement"]["mean"] == 0.75 and found["difference"]["mean"] == 0.25
    assert found["kappa"] == pytest.approx(0.5)  # chance: 0.5 * 0.25 + 0.5 * 0.75 = 0.5
    assert found["examples"][0]["image"] == "00001/samples/00000.png"
    assert "0.7500" in capsys.readouterr().out


# ------------------------------------------------------------------------------- on the command line


def test_the_command_line_reaches_them(result, tmp_path, capsys):
    from janus_r1.cli import main

    assert main(["eval", "compare", str(result), str(official(tmp_path / "sd3.jsonl", 6)), "--no-cited"]) == 0
    assert "sd3" in capsys.readouterr().out
    (tmp_path / "p.txt").write_text("a photo of a bench\n")
    (tmp_path / "color_val.txt").write_text("a bench\n")
    assert (
        main(["data", "overlap", str(tmp_path / "p.txt"), "--data", f"compbench-color={tmp_path}/color_val.txt"]) == 0
    )
    assert "compbench-color: 1 of its 1" in capsys.readouterr().out
    assert main(["data", "overlap", str(tmp_path / "p.txt"), "--data", "dpg"]) == 2
    assert main(["eval", "dpg", "score", str(tmp_path), "--url", "http://localhost:1/v1"]) == 2
    assert "--url needs --model" in capsys.readouterr().err
    thinking = "{chat_template_kwargs: {enable_thinking: false}}"
    extra = ["--url", "http://localhost:1/v1", "--model", "m", "--extra", thinking]
    assert main(["eval", "wise", "score", str(tmp_path), *extra]) == 2
    assert "name your folder data_verified with --data" in capsys.readouterr().err


@pytest.mark.parametrize("mean", [None, "x", 1e308, float("inf")])
def test_a_figure_that_no_plot_can_show_is_refused(tmp_path, mean):
    figure = {"mean": mean, "low": 0.1, "high": 0.9, "n": 3}
    report = {"draw": {}, "benchmark": "b", "title": "B", "scale": 1.0, "judge": {}, "arms": {"": {"overall": figure}}}
    (tmp_path / "r.json").write_text(json.dumps(report))
    with pytest.raises(UserError, match=r"r\.json"):
        read_results(tmp_path / "r.json")
