"""PIE-Bench on scripted editors, whose figures are known beforehand, and through the command line."""

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
from janus_r1.eval.pie.benchmark import PieOptions, at_512, evaluate_pie
from janus_r1.eval.pie.folder import read_folder
from janus_r1.eval.pie.metrics import MAX_PSNR, PIXELS, NotMeasured
from janus_r1.eval.report import markdown

OPTIONS = PieOptions(rounds=(1, 2), settings=Settings(seed=3), batch=2)
METRICS = {
    **PIXELS,
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

    def edit(self, sources, instructions, settings, first_row):
        self.rows.append(range(first_row, first_row + len(sources)))
        return [self.chain(*pair, settings) for pair in zip(sources, instructions, strict=True)]

    def chain(self, source, text, settings):
        brighter = np.clip(source.astype(int) + 51, 0, 255).astype(np.uint8)
        images = zip((brighter, source), self.p_yes, strict=True)
        rounds = tuple(Round((0,) * 4, image, Verdict(p >= 0.5, "", p)) for image, p in images)
        return Chain(text, rounds, 1, settings)

    def reconstruct(self, images):
        return [np.full((64, 64, 3), 128, np.uint8) for _ in images]


@pytest.fixture
def folder(tmp_path) -> Path:
    pie_bench.save_folder(tmp_path)
    return tmp_path


def grey_folder(folder: Path) -> None:
    """All pictures plain, so that figures can be worked out by hand."""
    for path in folder.rglob("*.png"):
        Image.new("RGB", (512, 512), (100, 100, 100)).save(path)


def test_rounds_types_and_trivial_editors(folder):
    grey_folder(folder)
    result = evaluate_pie(Scripted(), read_folder(folder), METRICS, OPTIONS)
    first, second = result["rounds"]["1"], result["rounds"]["2"]
    kept = [1 - (200 * 150 + 4 * 511) / 512**2] * 2 + [(512 - 41) * 510 / 512**2]
    assert first["mse"]["mean"] == pytest.approx(np.mean(kept) * 0.2**2)
    assert first["mse"]["n"] == 3, "one picture is edited everywhere"
    assert first["types"]["change object"]["mse"]["mean"] == pytest.approx(kept[0] * 0.2**2)
    assert first["types"]["change colour"]["mse"]["mean"] == pytest.approx(kept[2] * 0.2**2)
    assert list(first["types"]) == ["change object", "change colour", "change style"]
    assert first["types"]["change style"]["mse"] is None and first["types"]["change style"]["clip_whole"]["n"] == 1
    assert first["psnr"]["mean"] == pytest.approx(np.mean([-10 * np.log10(k * 0.2**2) for k in kept]))
    assert second["psnr"]["mean"] == MAX_PSNR and second["ssim"]["mean"] == pytest.approx(1)
    assert result["psnr"] == second["psnr"], "at the top: after the most rounds"
    assert second["clip_whole"]["mean"] == pytest.approx(25 + 100 / 255) and second["clip_whole"]["n"] == 4
    assert second["clip_edited"]["mean"] == 7 and second["clip_edited"]["n"] == 3
    assert result["baselines"]["copy"]["mse"]["mean"] == 0 == result["baselines"]["copy"]["mse"]["high"]
    assert result["baselines"]["tokenizer"]["mse"]["mean"] == pytest.approx(np.mean(kept) * (28 / 255) ** 2)
    assert result["failures"] == {"images": 0, "examples": []} and result["cost"]["images"] == 8


def test_what_was_not_measured_is_a_text_everywhere_and_never_a_number(folder):
    result = evaluate_pie(Scripted(), read_folder(folder), METRICS, OPTIONS)
    reports = [result, *result["rounds"].values(), *result["baselines"].values()]
    reports += [report for arm in reports[1:] for report in arm["types"].values()]
    assert {report["lpips"] for report in reports} == {"not measured: no package"}
    text = markdown(json.loads(json.dumps(result)))
    assert "lpips not measured: no package." in text and "| LPIPS ×10³ ↓ | not measured |" in text
    assert "tokenizer's ceiling" in text and "| change style | n/a | n/a | n/a |" in text


def test_chunks_belong_to_their_rows(folder):
    editor, cases = Scripted(), read_folder(folder)
    parts = evaluate_pie(editor, cases, METRICS, OPTIONS)
    assert editor.rows == [range(0, 2), range(2, 4)]
    whole = evaluate_pie(Scripted(), cases, METRICS, replace(OPTIONS, batch=9))
    assert parts["rounds"] == whole["rounds"] and parts["baselines"] == whole["baselines"]


def test_the_final_draft_may_be_the_best_one(folder):
    class Unsure(Scripted):
        p_yes = (0.45, 0.3)

    cases = read_folder(folder, 1)
    best = evaluate_pie(Unsure(), cases, METRICS, replace(OPTIONS, settings=Settings(final="best"), baselines=False))
    assert best["psnr"]["mean"] < 30 and best["baselines"] is None
    assert evaluate_pie(Unsure(), cases, METRICS, OPTIONS)["psnr"]["mean"] == MAX_PSNR


def test_failures_are_counted_not_zero(folder):
    entries = json.loads((folder / "mapping_file.json").read_text())
    entries["000000000000"]["editing_instruction"] = " "
    pie_bench.write(folder, entries)
    broken = folder / "annotation_images" / entries["000000000001"]["image_path"]
    broken.write_bytes(broken.read_bytes()[:900])

    def infinite(pair):
        return float("inf") if pair.edited.all() else 1.0

    result = evaluate_pie(Scripted(), read_folder(folder), METRICS | {"clip_whole": infinite}, OPTIONS)
    assert result["failures"]["images"] == 3
    assert result["clip_whole"]["mean"] == 1 and result["clip_whole"]["n"] == 1
    empty, cut, wild = result["failures"]["examples"]
    assert "the instruction is empty" in empty and "broken or truncated" in cut and "clip_whole inf" in wild
    assert "3 pictures failed" in markdown(result)
    with pytest.raises(UserError, match="no picture could be scored: 000000000000: the instruction is empty"):
        evaluate_pie(Scripted(), read_folder(folder, 1), METRICS, OPTIONS)


def test_an_editor_that_breaks_its_contract_is_refused(folder):
    class Lazy(Scripted):
        def edit(self, sources, instructions, settings, first_row):
            return super().edit(sources, instructions, settings, first_row)[::-1]

    with pytest.raises(ValueError, match="in order"):
        evaluate_pie(Lazy(), read_folder(folder), METRICS, OPTIONS)
    with pytest.raises(UserError, match="rounds"):
        PieOptions(rounds=(0,))


def test_pictures_are_compared_at_512():
    ramp = np.tile(np.linspace(0, 255, 384).astype(np.uint8)[None, :, None], (384, 1, 3))
    enlarged = at_512(ramp)
    assert enlarged.shape == (512, 512, 3) and at_512(enlarged) is enlarged
    assert np.abs(np.diff(enlarged[0, :, 0].astype(int))).max() <= 1, "smooth: bicubic, not nearest"


# ------------------------------------------------------------------------------------ command line


def test_the_command(tiny_folder, folder, tmp_path_factory, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lpips", None)
    weights = tmp_path_factory.mktemp("weights")
    argv = ["eval", "pie", str(folder), "--model", str(tiny_folder), "--limit", "3", "--rounds", "1,2"]
    argv += ["--clip", str(pie_bench.save_clip(weights / "clip")), "--dino", str(pie_bench.save_dino(weights / "dino"))]
    argv += ["--max-batch", "2", "--out", str(weights / "result.json")]
    assert main([*argv, "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert json.loads(Path(argv[-1]).read_text()) == result and "note: lpips not measured" in err
    for metric in ("structure_distance", "psnr", "mse", "ssim", "clip_whole", "clip_edited"):
        assert set(result[metric]) == {"mean", "low", "high", "n"}, metric
        assert result[metric]["low"] <= result[metric]["mean"] <= result[metric]["high"]
    assert result["psnr"]["n"] == 2 and result["clip_whole"]["n"] == 3
    assert result["lpips"].startswith("not measured: ") and result["run"]["folder"] == str(folder)
    assert set(result["rounds"]) == {"1", "2"} and len(result["rounds"]["1"]["types"]) == 3
    copy, ceiling = result["baselines"]["copy"], result["baselines"]["tokenizer"]
    assert copy["structure_distance"]["mean"] == 0 < ceiling["structure_distance"]["mean"]
    plain = [*argv, "--overwrite", "--no-baselines", "--clip", "none", "--dino", "none"]
    assert main([*plain, "--max-batch", "3", "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["psnr"] == pytest.approx(result["psnr"]), "random numbers belong to pictures, not to batches"
    assert main(plain) == 0
    assert "CLIP whole ↑" in capsys.readouterr().out


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
    ],
)
def test_a_malformed_folder_is_one_line_before_anything_is_loaded(folder, spoil, complaint, capsys):
    spoil(folder)
    assert main(["eval", "pie", str(folder), "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.strip().splitlines()) == 1
    assert err.startswith("janus-r1: error: ") and complaint in err
