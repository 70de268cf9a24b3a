"""GenEval from end to end: a tiny Janus draws, tiny detectors score, the report is whole."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from janus_r1.chain import Settings
from janus_r1.commands import benchmarks as commands
from janus_r1.commands.model import ModelOptions
from janus_r1.errors import UserError
from janus_r1.eval import geneval_detector
from janus_r1.eval.benchmark import Item, save_png
from janus_r1.eval.geneval import judge, prompts, summary
from janus_r1.eval.geneval_benchmark import GenEval, GenEvalScorer
from janus_r1.eval.geneval_detector import ColorClassifier, Detector
from janus_r1.eval.records import read_records
from tiny_scorers import clip, mask2former, save_clip


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """A network input of a hundredth of the size, an empty cache, and no Hub."""
    monkeypatch.setattr(geneval_detector, "LONG", 166)
    monkeypatch.setattr(geneval_detector, "SHORT", 100)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A detector that sees something in noise, and a CLIP."""
    folder = tmp_path_factory.mktemp("weights")
    model = mask2former()
    with torch.no_grad():
        model.class_predictor.weight.mul_(200)
    model.save_pretrained(folder / "detector")
    save_clip(folder / "clip")
    return folder


def some(monkeypatch, *numbers):
    whole = GenEval().items()
    monkeypatch.setattr(GenEval, "items", lambda self: [whole[number] for number in numbers])


def test_draw_score_report(monkeypatch, tmp_path, tiny_folder, weights, capsys):
    some(monkeypatch, 0, 180, 260, 353)
    out = tmp_path / "out"
    commands.draw("geneval", out, settings=Settings(rounds=2), using=ModelOptions(str(tiny_folder)), controls=True)
    eyes = {"detector": str(weights / "detector"), "clip": str(weights / "clip")}
    commands.score_geneval(out, **eyes)
    assert "0 failed" in capsys.readouterr().out
    commands.score_geneval(out, **eyes)
    assert "0 images scored" in capsys.readouterr().out
    commands.report("geneval", out, out=tmp_path / "report.json", verdicts=tmp_path / "official.jsonl")
    printed = capsys.readouterr().out
    assert "overall" in printed and "prompt rewriting off" in printed and "sha256:" in printed
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["arms"]) == {"round_1", "round_2", "draft_2"} and report["arm"] == "round_2"
    official = [json.loads(line) for line in (tmp_path / "official.jsonl").read_text().splitlines()]
    last = summary([row for row in official if row["filename"].startswith("round_2/")])
    assert report["headline"]["mean"] == pytest.approx(last.overall) and last.images == 16
    rows = [row for row in read_records(out / "scores-geneval.jsonl")[1] if "file" in row]
    assert any(row["detail"]["detections"] for row in rows), "the detector saw nothing: this would test nothing"
    for row in rows:  # a verdict can be had again from its row
        assert (row["value"] == 1.0, row["detail"]["reason"]) == judge(
            row["detail"]["row"], row["detail"]["detections"]
        )


def test_colors_are_told_exactly_where_they_are_asked_for(weights):
    model = mask2former()
    with torch.no_grad():
        model.class_predictor.weight.mul_(200)
    scorer = GenEvalScorer(Detector(model), ColorClassifier(*clip()), {})
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    (found,) = (Detector(model).find([image]),)
    name = found[0][0].name
    asks = {"tag": "colors", "prompt": "p", "include": [{"class": name, "count": 1, "color": "red"}]}
    plain = {"tag": "single_object", "prompt": "p", "include": [{"class": name, "count": 1}]}
    with_color, without = scorer.see([image, image], [asks, plain])
    assert with_color[name][0]["color"] in geneval_detector.COLORS
    assert all(one["color"] is None for group in without.values() for one in group)
    assert sum(one["color"] is not None for group in with_color.values() for one in group) == 1
    outcome = scorer.score([(Item("1", "p", "colors", {"row": asks}), image)])[0]
    assert outcome.value == float(with_color[name][0]["color"] == "red")


def test_without_clip_the_other_tags_are_scored(monkeypatch, tmp_path, weights, capsys):
    some(monkeypatch, 0, 260)
    for number in (0, 260):
        own = tmp_path / "images" / f"{number}"
        own.mkdir(parents=True)
        (own / "metadata.jsonl").write_text(json.dumps(prompts()[number]))
        for index in range(4):
            save_png(own / "samples" / f"{index}.png", np.full((64, 64, 3), 60 * index, np.uint8))
    commands.score_geneval(tmp_path / "images", detector=str(weights / "detector"))
    assert "4 images scored" in capsys.readouterr().out
    with pytest.raises(UserError, match="not measured: the weights openai/clip-vit-large-patch14 are not on this"):
        commands.report("geneval", tmp_path / "images")
    commands.report("geneval", tmp_path / "images", partial=True)
    assert "GenEval (partial)" in capsys.readouterr().out


def test_nothing_is_downloaded_unasked(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match="run `hf download facebook/mask2former-swin-small-coco-instance"):
        commands.score_geneval(tmp_path / "images")


def test_wrong_weights_are_one_line(tmp_path, weights):
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match="holds a clip model, not mask2former"):
        commands.score_geneval(tmp_path / "images", detector=str(weights / "clip"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text((weights / "detector" / "config.json").read_text())
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(UserError, match="cannot load the model"):
        commands.score_geneval(tmp_path / "images", detector=str(tmp_path / "broken"))
    with pytest.raises(UserError, match="no such folder"):
        commands.score_geneval(tmp_path / "images", detector=str(tmp_path / "no" / "such" / "folder"))


@pytest.mark.parametrize("shard", ["4/4", "a/b", "1", "-1/2", "1/0", ""])
def test_shards_that_are_none(shard):
    with pytest.raises(UserError, match="use 0/4"):
        commands.parse_shard(shard)


def test_an_unknown_benchmark_is_told_the_known_ones():
    with pytest.raises(UserError, match="choose geneval"):
        commands.benchmark("geneval3")
