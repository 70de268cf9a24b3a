"""T2I-CompBench: the rules by hand, BLIP-VQA, a detector and CLIP on random tiny networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from janus_r1.commands import benchmarks as commands
from janus_r1.errors import UserError
from janus_r1.eval.benchmark import Item, save_png
from janus_r1.eval.benchmark_report import report
from janus_r1.eval.benchmark_score import Outcome, score_folder
from janus_r1.eval.compbench import (
    Box,
    CompBench,
    counted,
    distinct,
    iou,
    locality,
    numeracy_score,
    position_score,
    spatial_score,
)
from janus_r1.eval.compbench_scorers import BlipVqa, Boxes, ClipCosine, blip_input, questions
from tiny_scorers import blip, clip, detr


def box(label: str, x: float, y: float, side: float = 40, score: float = 1.0) -> Box:
    return Box(label, score, x, y, x + side, y + side)


# ------------------------------------------------------------------------------------- 2D spatial


def test_one_object_never_scores():
    assert spatial_score("a cat on the left of a dog", ["cat", "dog"], [box("cat", 0, 0)]) == 0
    assert spatial_score("a cat", ["cat"], [box("cat", 0, 0)]) is None


def test_two_objects_and_their_position():
    prompt, nouns = "a cat on the left of a dog", ["cat", "dog"]
    right = [box("cat", 0, 0, score=0.8), box("dog", 100, 0, score=0.6)]
    assert spatial_score(prompt, nouns, right) == pytest.approx(0.25 * 1.4 + 0.5)
    assert spatial_score(prompt, ["dog", "cat"], right) == 0  # 0.35 alone is below one half
    sure = [box("cat", 100, 0), box("dog", 0, 0)]
    assert spatial_score(prompt, nouns, sure) == 0.5  # both surely there, wrongly placed
    # the most confident box of each counts
    assert spatial_score(prompt, nouns, [*sure, box("cat", -100, 0, score=0.9)]) == 0.5
    assert spatial_score("a woman on the left of a dog", ["woman", "dog"], [box("person", 0, 0), right[1]]) > 0.5


def test_the_axis_of_a_side_must_dominate():
    a, b = box("a", 0, 0), box("b", 100, 60)
    assert position_score("on the left of", a, b) == 1 and position_score("on the right of", a, b) == 0
    assert position_score("on the top of", a, b) == 0  # 60 down, but 100 across
    assert position_score("on the top of", a, box("b", 60, 100)) == 1
    assert position_score("on the bottom of", box("b", 60, 100), a) == 1


def test_overlap_lowers_a_side():
    a, b = box("a", 0, 0), box("b", 20, 0)  # share 20 of 60 columns
    assert iou(a, b) == pytest.approx(1 / 3) and position_score("on the left of", a, b) == pytest.approx(0.3)


def test_near_is_near_on_either_axis():
    assert position_score("near", box("a", 0, 0), box("b", 140, 400)) == 1
    assert position_score("next to", box("a", 0, 0), box("b", 300, 200)) == pytest.approx(0.5)
    assert locality("a cat next to a dog on the left of a cow") == "next to"


def test_on_top_of_is_known_and_never_scores():
    assert locality("a cat on top of a dog") == "on top of"
    assert position_score("on top of", box("a", 0, 0), box("b", 0, 100)) == 0


# --------------------------------------------------------------------------------------- numeracy

LABELS = ["dog", "boat", "person", "wine glass", "knife"]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("three dogs and a ship", [(3, "dog"), (1, "boat")]),
        ("Two wine glasses, four knives", [(2, "wine glass"), (4, "knife")]),
        ("eight women", [(8, "person")]),
        ("five cherries and an apple", [(5, "cherry"), (1, "apple")]),
        ("dogs", []),
    ],
)
def test_numbers_and_what_they_count(prompt, expected):
    assert counted(prompt, LABELS) == expected


def test_half_for_presence_and_half_for_the_number():
    assert numeracy_score([(3, "dog"), (1, "boat")], {"dog": 3, "boat": 2}) == pytest.approx(0.75)
    assert numeracy_score([(1, "glass")], {"wine glass": 1}) == 1  # a label that contains the name
    assert numeracy_score([(1, "dog")], {}) == 0 and numeracy_score([], {"dog": 1}) is None


def test_one_object_seen_twice_is_one():
    big = Box("dog", 0.9, 0, 0, 100, 100)
    inside = Box("dog", 0.8, 10, 10, 50, 50)  # contained, though its IoU is 0.16
    assert distinct([big, inside, Box("dog", 0.7, 95, 0, 195, 100), Box("cat", 0.7, 0, 0, 100, 100)]) == {
        "dog": 2,
        "cat": 1,
    }


# --------------------------------------------------------------------------------------- networks


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 48, 3), dtype=np.uint8)


def test_questions_are_noun_chunks():
    assert questions(["A Red (bench)", "the left", "a blue bowl"]) == ["a red bench?", "a blue bowl?"]
    assert len(questions([f"thing {i}" for i in range(12)])) == 8


def _first_logits(model, words, pixels, start) -> torch.Tensor:
    """By transformers' own forward pass, its decoder caught at work."""
    seen = {}
    hook = model.text_decoder.register_forward_hook(lambda module, args, output: seen.update(output=output))
    mask = words["attention_mask"]
    model(words["input_ids"], pixels, start, attention_mask=mask, interpolate_pos_encoding=True)
    hook.remove()
    return seen["output"].logits[0, 0]


def test_blip_is_asked_with_its_encoders_token_and_answers_at_the_first_step():
    model, tokenizer = blip()
    chunks = {"p": ["a red bench", "a bowl"]}
    scorer = BlipVqa(model, tokenizer, lambda prompt: chunks.get(prompt, []), {})
    image = noise()
    found = scorer.p_yes(image, ["a red bench?", "a bowl?"])
    assert found != pytest.approx([0.5, 0.5], abs=0.02)
    for question, p in zip(["a red bench?", "a bowl?"], found, strict=True):
        words = tokenizer([question], return_tensors="pt")
        words["input_ids"][0, 0] = len(tokenizer) - 1
        start = torch.tensor([[model.config.text_config.bos_token_id]])
        with torch.inference_mode():
            logits = _first_logits(model, words, blip_input(image)[None], start)
        yes, no = (float(logits[i].exp()) for i in tokenizer.convert_tokens_to_ids(["yes", "no"]))
        assert p == pytest.approx(yes / (yes + no), abs=1e-5)
    product, none = scorer.score([(Item("0", "p", "color"), image), (Item("1", "?", "color"), image)])
    assert product.value == pytest.approx(round(found[0], 4) * round(found[1], 4))
    assert none.failed and none.value is None


def test_blips_picture_is_squeezed_not_cut():
    wide = Image.new("RGB", (96, 32))
    wide.paste((255, 255, 255), (0, 0, 48, 32))
    made = blip_input(np.asarray(wide))
    assert made.shape == (3, 480, 480) and made[0, 0, 0] > 1.9 and made[0, 0, 479] < -1.7


def test_a_detectors_boxes_are_in_pixels_of_480():
    model, processor = detr()
    scorer = Boxes(model, processor, "numeracy", None, {})
    found = scorer.find(noise())
    assert all(0 <= one.x1 <= one.x2 <= 480.01 and one.y2 <= 320.01 and one.score > 0.5 for one in found)
    outcome = scorer.score([(Item("0", "one dog", "numeracy"), noise()), (Item("1", "dogs", "numeracy"), noise())])
    assert outcome[0].value in (0.0, 0.5, 1.0) and outcome[1].failed


def test_clips_cosine_is_not_scaled():
    model, tokenizer = clip()
    (found,) = ClipCosine(model, tokenizer, {}).score([(Item("0", "a dog", "non_spatial"), noise())])
    assert -1 <= found.value <= 1
    with pytest.raises(ValueError):
        Outcome(-0.1)


# ----------------------------------------------------------------------------------------- folder


def test_images_are_named_after_their_prompts(tmp_path):
    (tmp_path / "color_val.txt").write_text("a red bench\na blue bowl\na red bench\n")
    bench = CompBench("color", tmp_path / "color_val.txt", "BLIP-VQA")
    bench.images = 2
    assert [item.prompt for item in bench.items()] == ["a red bench", "a blue bowl"]  # once each
    for item in bench.items():
        bench.write(tmp_path / "out", item, [noise(), noise(1)])
    names = sorted(path.name for path in (tmp_path / "out" / "samples").iterdir())
    assert names[0] == "a blue bowl_000002.png" and names[-1] == "a red bench_000001.png"
    save_png(tmp_path / "out" / "samples" / "a green bench_000009.png", noise())

    class Half:
        record, batch = {}, 4

        def score(self, shots):
            return [Outcome(0.5 if "red" in item.prompt else 0.25) for item, _ in shots]

    tally = score_folder(bench, tmp_path / "out", Half(), tmp_path / "s.jsonl")
    assert tally.complaints == [
        "samples/a green bench_000009.png: not scored, since it is not named <prompt>_<number>.png"
    ]
    found = report(bench, [tmp_path / "s.jsonl"], tmp_path / "out")
    assert found["headline"]["mean"] == pytest.approx(0.375) and found["title"] == "T2I-CompBench color (BLIP-VQA)"
    (tmp_path / "bad.txt").write_text("a/b\n")
    with pytest.raises(UserError, match="file's name"):
        CompBench("color", tmp_path / "bad.txt")


def test_what_is_missing_is_said_with_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "p.txt").write_text("a dog\n")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="hf download Salesforce/blip-vqa-capfilt-large"):
        commands.score_compbench("color", tmp_path / "out", data=tmp_path / "p.txt")
    with pytest.raises(UserError, match="needs --weights"):
        commands.score_compbench("spatial", tmp_path / "out", data=tmp_path / "p.txt")
