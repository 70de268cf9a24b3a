"""The metrics of PIE-Bench by hand, against recorded values, and on tiny random models."""

from __future__ import annotations

import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import pie_bench
from janus_r1.eval.pie import MAX_PSNR, NotMeasured, Pair, mse, psnr, ssim
from janus_r1.eval.pie_learned import ClipScore, StructureDistance, learned_metrics, prepared, self_similarity
from janus_r1.eval.similarity import C1
from test_similarity import pictures, plain

NOTHING, EVERYTHING = np.zeros((20, 20), dtype=bool), np.ones((20, 20), dtype=bool)
TOP = np.arange(400).reshape(20, 20) < 100  # the upper quarter


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> ClipScore:
    return ClipScore.from_folder(pie_bench.save_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def dino(tmp_path_factory) -> StructureDistance:
    return StructureDistance.from_folder(pie_bench.save_dino(tmp_path_factory.mktemp("dino")))


# ------------------------------------------------------------------------------------------ pixels


def test_pixels_by_hand():
    """The edited quarter counts as equal: three quarters of the pixels are off by 5 levels."""
    pair = Pair(plain(100), plain(105), TOP, "")
    assert mse(pair) == pytest.approx(0.75 * (5 / 255) ** 2)
    assert psnr(pair) == pytest.approx(20 * math.log10(255 / 5) - 10 * math.log10(0.75))
    expected = (2 * 100 * 150 + C1) / (100**2 + 150**2 + C1)
    assert ssim(Pair(plain(100), plain(150), NOTHING, "")) == pytest.approx(expected)


def test_what_happens_inside_the_edited_region_does_not_count():
    image = plain(100)
    image[:5] = 7
    pair = Pair(plain(100), image, TOP, "")
    assert (mse(pair), psnr(pair), ssim(pair)) == (0, MAX_PSNR, pytest.approx(1))
    everywhere = pair._replace(edited=NOTHING)
    assert mse(everywhere) > 0 and psnr(everywhere) < 20 and ssim(everywhere) < 0.9


def test_without_an_outside_there_is_nothing_to_measure():
    pair = Pair(plain(100), plain(105), EVERYTHING, "")
    assert mse(pair) is psnr(pair) is ssim(pair) is None


def test_recorded_values_of_torchmetrics():
    """1.2.1, of the benchmark's own time, on pictures black inside the region; 1.9 also counts SSIM's padding."""
    a, b = pictures()
    edited = np.zeros(a.shape[:2], dtype=bool)
    edited[10:30, 5:25] = True
    pair = Pair(a, b, edited, "")
    assert psnr(pair) == pytest.approx(27.423704147338867, abs=1e-5)
    assert mse(pair) == pytest.approx(0.0018097953870892525, abs=1e-8)
    assert ssim(pair) == pytest.approx(0.9588092565536499, abs=1e-6)


# -------------------------------------------------------------------------------------------- CLIP


def by_hand(clip: ClipScore, pixels: np.ndarray, text: str) -> float:
    """The score from CLIP's two towers and preprocessing written out."""
    small = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC)) / 255
    values = (small - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
    shown = torch.tensor(values, dtype=torch.float32).permute(2, 0, 1)[None]
    ids = torch.tensor([clip.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        image = clip.model.visual_projection(clip.model.vision_model(shown).pooler_output)[0].numpy()
        words = clip.model.text_projection(clip.model.text_model(ids).pooler_output)[0].numpy()
    return 100 * float(image @ words / np.linalg.norm(image) / np.linalg.norm(words))


def test_clip_score_is_a_hundred_times_the_cosine_and_never_negative(clip):
    scores = []
    for seed in range(4):
        for text in ("a red disc", "blue"):
            expected = by_hand(clip, pie_bench.picture(seed), text)
            scores.append(clip.score(pie_bench.picture(seed), text))
            assert scores[-1] == pytest.approx(max(0.0, expected), abs=1e-3)
    assert len(set(scores)) > 4 and max(scores) > 10


def test_clip_sees_the_edited_region_on_black(clip):
    image, edited = pie_bench.picture(1), np.zeros((512, 512), dtype=bool)
    edited[100:300, 200:400] = True
    black = np.zeros_like(image)
    black[100:300, 200:400] = image[100:300, 200:400]
    pair = Pair(pie_bench.picture(0), image, edited, "a red disc")
    assert clip.edited(pair) == clip.score(black, "a red disc") != clip.whole(pair)
    assert clip.whole(pair) == clip.score(image, "a red disc")
    assert clip.edited(pair._replace(edited=np.zeros_like(edited))) is None


def test_a_long_text_is_cut_not_refused(clip):
    assert clip.score(pie_bench.picture(0), "red disc " * 100) >= 0


# --------------------------------------------------------------------------------------- structure


def test_self_similarity_by_hand():
    found = self_similarity(torch.tensor([[3.0, 4.0], [4.0, 3.0], [-3.0, -4.0]]))
    expected = torch.tensor([[1.0, 0.96, -1.0], [0.96, 1.0, -0.96], [-1.0, -0.96, 1.0]])
    torch.testing.assert_close(found, expected)


def test_dino_gets_values_up_to_255_as_in_the_benchmark():
    """Then normalised as if they ended at 1."""
    found = prepared(np.full((512, 512, 3), 255, np.uint8))
    assert found.shape == (1, 3, 224, 224)
    assert found[0, 0, 5, 5].item() == pytest.approx((255 - 0.485) / 0.229)
    assert found[0, 2, 5, 5].item() == pytest.approx((255 - 0.406) / 0.225)


def test_the_keys_are_those_of_the_last_layer(dino):
    """Worked out again from the hidden states that enter it."""
    layer = next(m for m in reversed(list(dino.model.modules())) if hasattr(m, "layernorm_before"))
    key = next(m for name, m in layer.named_modules() if name.endswith(("k_proj", "key")))
    images = [pie_bench.picture(seed) for seed in (0, 1)]
    sims = []
    with torch.no_grad():
        for image in images:
            states = dino.model(pixel_values=prepared(image), output_hidden_states=True).hidden_states
            keys = key(layer.layernorm_before(states[-2]))[0].numpy().astype(np.float64)
            unit = keys / np.linalg.norm(keys, axis=1, keepdims=True)
            sims.append(unit @ unit.T)
    assert sims[0].shape == (17, 17), "16 patches and the class token"
    expected = np.square(sims[0] - sims[1]).mean()
    assert expected > 1e-4
    assert dino(Pair(*images, EVERYTHING, "")) == pytest.approx(expected, rel=1e-3)
    assert dino(Pair(images[0], images[0], EVERYTHING, "")) == 0


# ------------------------------------------------------------------------------------------- LPIPS


def test_lpips_gets_pictures_from_minus_one_to_one_black_inside(monkeypatch, tmp_path):
    seen = []

    class Network(torch.nn.Module):
        def __init__(self, net, verbose):
            super().__init__()
            assert net == "squeeze" and not verbose

        def forward(self, a, b):
            seen.extend((a, b))
            return (a - b).abs().mean().view(1, 1, 1, 1)

    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=Network))
    lpips = learned_metrics("none", "none", download=True)[0]["lpips"]
    assert not isinstance(lpips, NotMeasured)
    value = lpips(Pair(plain(0), plain(255), TOP, ""))
    assert value == pytest.approx(1.5) and seen[1].shape == (1, 3, 20, 20)
    assert seen[1][0, 0, 0, 0] == -1 and seen[1][0, 0, -1, 0] == 1
    assert lpips(Pair(plain(0), plain(255), EVERYTHING, "")) is None


# -------------------------------------------------------------------------------- what is not there


def test_what_cannot_be_had_says_why(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lpips", None)
    found = learned_metrics(str(tmp_path / "nowhere"), "none")[0]
    assert str(found["structure_distance"]) == "not measured: switched off"
    assert "pip install 'janus-r1[pie]'" in str(found["lpips"])
    assert str(found["clip_whole"]) == f"not measured: no such folder: {tmp_path}/nowhere"
    assert found["clip_whole"] == found["clip_edited"] and "\n" not in str(found["clip_whole"])


def test_nothing_is_fetched_unasked(monkeypatch, tmp_path):
    def network(**options):
        raise AssertionError("it would have been downloaded")

    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=network))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    found = learned_metrics("openai/clip-vit-large-patch14", "facebook/dino-vitb8")[0]
    assert "score with --download" in str(found["lpips"])
    assert "run `hf download facebook/dino-vitb8" in str(found["structure_distance"])


def test_a_model_of_another_kind_or_without_all_weights_is_not_used(tmp_path):
    dino = pie_bench.save_dino(tmp_path / "dino")
    assert "holds a vit model, not clip" in str(learned_metrics(str(dino), "none")[0]["clip_whole"])
    other = pie_bench.save_dino(tmp_path / "other", image_size=112)
    assert "DINO sees pictures of 224, this model of 112" in str(
        learned_metrics("none", str(other))[0]["structure_distance"]
    )
    config = json.loads((dino / "config.json").read_text())
    (dino / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    assert "lacks" in str(learned_metrics("none", str(dino))[0]["structure_distance"]), (
        "a random layer measures nothing"
    )
