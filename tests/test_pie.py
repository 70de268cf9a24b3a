"""PIE-Bench on the benchmarks' skeleton: scripted editors whose figures are known beforehand, and the commands."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pie_bench
from janus_r1.chain import Chain, Round, Settings, Verdict
from janus_r1.cli import main
from janus_r1.errors import UserError
from janus_r1.eval.benchmark import DrawOptions, draw
from janus_r1.eval.benchmark_report import report, text
from janus_r1.eval.benchmark_score import score_folder
from janus_r1.eval.compare import boards, read_results
from janus_r1.eval.compare import text as boards_text
from janus_r1.eval.pie import MAX_PSNR, PIXELS, NotMeasured, Pie, PieScorer, at_512, mse, psnr
from janus_r1.eval.records import read_records

OPTIONS = DrawOptions(Settings(rounds=2, seed=3), batch=2)
METRICS = {
    "psnr": psnr,
    "mse": mse,
    "ssim": NotMeasured("slow"),
    "structure_distance": NotMeasured("no weights"),
    "lpips": NotMeasured("no package"),
    "clip_whole": lambda pair: 20.0 + 5 * (pair.target == "a red disc on a ground") + pair.image.mean() / 255,
    "clip_edited": lambda pair: 7.0 if pair.edited.mean() < 0.5 else None,
}


class Scripted:
    """Makes every picture 51 levels brighter first and says No, then returns the source and says Yes."""

    p_yes = (0.2, 0.9)

    def __init__(self):
        self.rows = []

    def __call__(self, tasks, settings, first_row):
        self.rows.append(range(first_row, first_row + len(tasks)))
        return [self.chain(task, settings) for task in tasks]

    def chain(self, task, settings):
        brighter = np.clip(task.source.astype(int) + 51, 0, 255).astype(np.uint8)
        images = zip((brighter, task.source), self.p_yes, strict=True)
        rounds = tuple(Round((0,) * 4, image, Verdict(p >= 0.5, "", p)) for image, p in images)
        return Chain(task.prompt, rounds, 1, settings)


TRIVIAL = {
    "copy": lambda tasks: [task.source for task in tasks],
    "tokenizer": lambda tasks: [np.full((64, 64, 3), 128, np.uint8) for _ in tasks],
}


@pytest.fixture
def data(tmp_path) -> Path:
    pie_bench.save_folder(tmp_path / "pie")
    return tmp_path / "pie"


def drawn(data: Path, out: Path, editor=None, options=OPTIONS, **extra) -> Path:
    draw(Pie(data), out, editor or Scripted(), options, trivial=TRIVIAL, **extra)
    return out


def scored(data: Path, out: Path, metrics=METRICS, partial=False):
    score_folder(Pie(data), out, PieScorer(metrics, {"judge": "script"}, 3), out / "scores-pie.jsonl")
    return report(Pie(data), [out / "scores-pie.jsonl"], out, partial)


def grey_folder(folder: Path) -> None:
    """All pictures plain, so that figures can be worked out by hand."""
    for path in folder.rglob("*.png"):
        Image.new("RGB", (512, 512), (100, 100, 100)).save(path)


def test_rounds_types_and_trivial_editors(data, tmp_path):
    grey_folder(data)
    out = drawn(data, tmp_path / "out")
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == ["copy", "round_1", "round_2", "tokenizer"]
    assert (out / "round_1" / "1_type" / "000000000001.png").is_file(), "the published script's layout"
    result = scored(data, out, METRICS | PIXELS)
    assert result["headline"] is None and not result["partial"] and list(result["arms"])[-2:] == ["copy", "tokenizer"]
    first, second = (result["arms"][arm] for arm in ("round_1", "round_2"))
    kept = [1 - (200 * 150 + 4 * 511) / 512**2] * 2 + [(512 - 41) * 510 / 512**2]
    error = first["measures"]["mse"]
    assert error["mean"] == pytest.approx(np.mean(kept) * 0.2**2) and error["n"] == 3, "one is edited everywhere"
    assert first["groups"]["change object"]["mse"]["mean"] == pytest.approx(kept[0] * 0.2**2)
    assert first["groups"]["change colour"]["mse"]["mean"] == pytest.approx(kept[2] * 0.2**2)
    assert list(first["groups"]) == ["change object", "change style", "change colour"], "in turn"
    assert first["groups"]["change style"]["mse"] is None and first["groups"]["change style"]["clip_whole"]["n"] == 1
    assert first["measures"]["psnr"]["mean"] == pytest.approx(np.mean([-10 * np.log10(k * 0.2**2) for k in kept]))
    measures = second["measures"]
    assert measures["psnr"]["mean"] == MAX_PSNR and measures["ssim"]["mean"] == pytest.approx(1)
    assert measures["clip_whole"]["mean"] == pytest.approx(25 + 100 / 255) and measures["clip_whole"]["n"] == 4
    assert measures["clip_edited"]["mean"] == 7 and measures["clip_edited"]["n"] == 3
    copy, ceiling = (result["arms"][arm]["measures"] for arm in ("copy", "tokenizer"))
    assert copy["mse"]["mean"] == 0 == copy["mse"]["high"]
    assert ceiling["mse"]["mean"] == pytest.approx(np.mean(kept) * (28 / 255) ** 2)
    assert first["counts"]["failed"] == 0 and first["counts"]["expected"] == 4


def test_what_was_not_measured_is_a_text_everywhere_and_never_a_number(data, tmp_path):
    result = scored(data, drawn(data, tmp_path / "out"))
    arms = [arm["measures"] for arm in result["arms"].values()]
    groups = [group for arm in result["arms"].values() for group in arm["groups"].values()]
    assert {figures["lpips"] for figures in (*arms, *groups)} == {"not measured: no package"}
    shown = text(json.loads(json.dumps(result)))
    assert "lpips: not measured: no package." in shown and "tokenizer's ceiling" in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("LPIPS")]
    assert line.count("not measured") == 4
    (style,) = [line for line in shown.splitlines() if line.startswith("change style")]
    assert style.split()[2:4] == ["-", "-"], "edited everywhere: nothing outside"


def test_rows_do_not_depend_on_batches_and_a_stopped_run_goes_on(data, tmp_path):
    editor = Scripted()
    whole = drawn(data, tmp_path / "whole", editor)
    assert editor.rows == [range(0, 2), range(2, 4)]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drawn(data, tmp_path / "parts", on_progress=stop)
    again = Scripted()
    drawn(data, tmp_path / "parts", again, replace(OPTIONS, batch=9))
    assert again.rows == [range(2, 4)]
    assert scored(data, whole)["arms"] == scored(data, tmp_path / "parts")["arms"]


def test_the_final_draft_may_be_the_best_one(data, tmp_path):
    class Unsure(Scripted):
        p_yes = (0.45, 0.3)

    best = drawn(data, tmp_path / "best", Unsure(), replace(OPTIONS, settings=Settings(rounds=2, final="best")))
    assert scored(data, best)["arms"]["round_2"]["measures"]["psnr"]["mean"] < 30
    last = drawn(data, tmp_path / "last", Unsure())
    assert scored(data, last)["arms"]["round_2"]["measures"]["psnr"]["mean"] == MAX_PSNR


def test_failures_are_counted_not_zero(data, tmp_path):
    entries = json.loads((data / "mapping_file.json").read_text())
    entries["000000000000"]["editing_instruction"] = " "
    pie_bench.write(data, entries)
    broken = data / "annotation_images" / entries["000000000001"]["image_path"]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:900])

    def infinite(pair):
        return float("inf") if pair.edited.all() else 1.0

    faults = []
    out = drawn(data, tmp_path / "out", on_fault=faults.append)
    assert len(faults) == 2 and "the instruction is empty" in faults[0] and "broken or truncated" in faults[1]
    with pytest.raises(UserError, match="3 of 4 images in round_1 have no score"):
        scored(data, out, METRICS | {"clip_whole": infinite})
    result = report(Pie(data), [out / "scores-pie.jsonl"], out, partial=True)
    one = result["arms"]["round_1"]
    assert one["measures"]["clip_whole"]["mean"] == 1 and one["measures"]["clip_whole"]["n"] == 1
    assert one["counts"]["missing"] == 3 and "clip_whole inf" in one["counts"]["failed_examples"][0]
    assert result["title"] == "PIE-Bench (partial)" and "3 missing" in text(result)
    # what was mended is edited the next time
    broken.write_bytes(whole)
    again = Scripted()
    assert draw(Pie(data), out, again, OPTIONS, trivial=TRIVIAL) == 1 and len(again.rows) == 1


def test_an_editor_that_breaks_its_contract_is_refused(data, tmp_path):
    class Lazy(Scripted):
        def __call__(self, tasks, settings, first_row):
            return super().__call__(tasks, settings, first_row)[::-1]

    with pytest.raises(ValueError, match="in order"):
        drawn(data, tmp_path / "out", Lazy())
    with pytest.raises(UserError, match="1 images a prompt"):
        drawn(data, tmp_path / "more", options=replace(OPTIONS, samples=2))


def test_pictures_are_compared_at_512():
    ramp = np.tile(np.linspace(0, 255, 384).astype(np.uint8)[None, :, None], (384, 1, 3))
    enlarged = at_512(ramp)
    assert enlarged.shape == (512, 512, 3) and at_512(enlarged) is enlarged
    assert np.abs(np.diff(enlarged[0, :, 0].astype(int))).max() <= 1, "smooth: bicubic, not nearest"


def test_a_folder_that_somebody_else_edited(data, tmp_path):
    """Without annotation_images/ or with it, PNG names or the sources' own; strangers and odd sizes are told of."""
    root = tmp_path / "theirs" / "annotation_images"
    for path in sorted((data / "annotation_images").rglob("*.png")):
        target = root / path.relative_to(data / "annotation_images")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).resize((256, 256)).save(target)
    (root / "notes.txt").write_text("x")
    Image.new("RGB", (1024, 512)).save(root / "9_type" / "000000000002.png")
    out = tmp_path / "s.jsonl"
    tally = score_folder(Pie(data), root.parent, PieScorer(METRICS, {"judge": "script"}, 3), out)
    assert (tally.scored, tally.failed) == (3, 1) and "notes.txt: not scored" in tally.complaints[0]
    (row,) = [row for row in read_records(out)[1] if "failed" in row]
    assert "1024 x 512" in row["failed"]
    with pytest.raises(UserError, match="holds no edited pictures of PIE-Bench"):
        Pie(data).survey(tmp_path / "theirs" / "annotation_images" / "9_type")


def test_the_leaderboard_ranks_every_measure(data, tmp_path):
    result = scored(data, drawn(data, tmp_path / "out"))
    (tmp_path / "r.json").write_text(json.dumps(result))
    found = {board.title: board for board in boards(read_results(tmp_path / "r.json"))}
    errors, likeness = (
        [entry.figure["mean"] for entry in found[f"PIE-Bench: {title}"].entries] for title in ("MSE ×10⁴ ↓", "PSNR ↑")
    )
    assert errors == sorted(errors) and likeness == sorted(likeness, reverse=True) and len(likeness) == 4
    assert "source copied" in boards_text(list(found.values())) and not any("LPIPS" in title for title in found)


# ------------------------------------------------------------------------------------ command line


def test_the_commands(tiny_folder, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lpips", None)
    out, result_file = tmp_path / "out", tmp_path / "result.json"
    weights = [
        *("--clip", str(pie_bench.save_clip(tmp_path / "clip"))),
        *("--dino", str(pie_bench.save_dino(tmp_path / "dino"))),
    ]
    drawing = ["eval", "pie", "draw", str(out), "--data", str(data), "--model", str(tiny_folder), "--limit", "3"]
    assert main([*drawing, "--rounds", "2", "--batch", "2"]) == 0
    assert main(["eval", "pie", "score", str(out), "--data", str(data), *weights]) == 0
    told = capsys.readouterr().out
    assert "3 pictures edited" in told and "note: lpips not measured: " in told
    reporting = ["eval", "pie", "report", str(out), "--data", str(data), "--out", str(result_file)]
    assert main(reporting) == 2, "one picture is missing"
    assert main([*reporting, "--partial", "--json"]) == 0
    result = json.loads(result_file.read_text())
    last = result["arms"]["round_2"]["measures"]
    for metric in ("structure_distance", "psnr", "mse", "ssim", "clip_whole", "clip_edited"):
        assert set(last[metric]) == {"mean", "low", "high", "n"}, metric
        assert last[metric]["low"] <= last[metric]["mean"] <= last[metric]["high"]
    assert last["psnr"]["n"] == 2 and last["clip_whole"]["n"] == 3
    assert last["lpips"].startswith("not measured: ") and result["draw"]["settings"]["temperature"] == 0.5
    copy, ceiling = (result["arms"][arm]["measures"] for arm in ("copy", "tokenizer"))
    assert copy["structure_distance"]["mean"] == 0 < ceiling["structure_distance"]["mean"]
    other = [*drawing[:3], str(tmp_path / "whole"), *drawing[4:], "--rounds", "2", "--batch", "3", "--no-baselines"]
    assert main(other) == 0
    for path in (out / "round_2").rglob("*.png"):
        same = tmp_path / "whole" / path.relative_to(out)
        change = np.asarray(Image.open(path)).astype(int) - np.asarray(Image.open(same))
        assert np.abs(change).max() <= 1, "random numbers belong to pictures, not to batches"
    capsys.readouterr()
    assert main(["eval", "compare", str(result_file), "--no-cited"]) == 0
    assert "PIE-Bench (partial): PSNR" in capsys.readouterr().out


def outside(folder: Path) -> None:
    entry = pie_bench.entry(0, 1, [])
    pie_bench.write(folder, {"a": {**entry, "image_path": "../../thesis.png"}})


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda folder: (folder / "mapping_file.json").unlink(), "no mapping_file.json in"),
        (lambda folder: next(folder.rglob("*2.png")).unlink(), "no such file: "),
        (
            lambda folder: pie_bench.write(folder, {"a": pie_bench.entry(0, 1, [3])}),
            "mask has 1 entries, an odd",
        ),
        (lambda folder: pie_bench.write(folder, {"a": pie_bench.entry(0, 12, [])}), "unknown editing_type_id '12'"),
        (outside, "lies outside annotation_images/"),
    ],
)
def test_a_malformed_folder_is_one_line_before_anything_is_loaded(data, spoil, complaint, tmp_path, capsys):
    spoil(data)
    for step in ("draw", "score"):
        assert main(["eval", "pie", step, str(tmp_path / "out"), "--data", str(data)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and len(err.strip().splitlines()) == 1
        assert err.startswith("janus-r1: error: ") and complaint in err
    assert not (tmp_path / "out").exists()
