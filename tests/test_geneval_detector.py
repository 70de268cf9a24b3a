"""GenEval's detector and color classifier on random tiny networks, against slow and plain computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from janus_r1.errors import UserError
from janus_r1.eval import geneval_detector
from janus_r1.eval.geneval import COLORS, class_names
from janus_r1.eval.geneval_detector import (
    ColorClassifier,
    Detector,
    Found,
    clip_input,
    cut_out,
    full_size,
    network_input,
    resized,
    tight_box,
)
from tiny_scorers import COCO, clip, mask2former


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def small(monkeypatch):
    """The network sees an eighth of the size, which takes a hundredth of the time."""
    monkeypatch.setattr(geneval_detector, "LONG", 166)
    monkeypatch.setattr(geneval_detector, "SHORT", 100)


@pytest.fixture(scope="module")
def network():
    """Class logits made so large that some pairs are sure of themselves."""
    model = mask2former()
    with torch.no_grad():
        model.class_predictor.weight.mul_(40)
    return model


def test_sizes_fit_1333_by_800():
    assert resized(384, 384) == (800, 800) and resized(1024, 1024) == (800, 800)
    assert resized(512, 1024) == (667, 1333)  # the long side binds: 1333 / 1024 = 1.3018, 666.5 rounds up
    assert resized(768, 512) == (1200, 800)


def test_the_input_is_bilinear_normalised_and_padded_with_zeros():
    image = np.zeros((100, 150, 3), np.uint8)
    image[:, 75:] = 200
    made = network_input(image)
    assert made.shape == (3, 800, 1216)  # 800 x 1200, and 16 columns of padding
    assert (made[:, :, 1200:] == 0).all()
    red = made[0, 400, :1200] * 58.395 + 123.675
    # column c lies at (c + 0.5) / 8 - 0.5 of the original; between columns 74 and 75 it blends, in whole levels
    expected = np.clip((np.arange(1200) + 0.5) / 8 - 0.5 - 74, 0, 1) * 200
    assert np.abs(red.numpy() - expected).max() <= 0.501
    assert torch.allclose(red, red.round(), atol=1e-3)


def slow(model, image: np.ndarray, least: float) -> list[tuple]:
    """Every pair of query and class by itself, no shortcuts: name, score, box."""
    inputs = network_input(image)[None]
    with torch.inference_mode():
        out = model(pixel_values=inputs)
    probabilities = out.class_queries_logits[0].softmax(-1)
    found = []
    for q in range(probabilities.shape[0]):
        for c in range(80):
            big = F.interpolate(out.masks_queries_logits[:, q : q + 1], size=inputs.shape[-2:], mode="bilinear")
            height, width = resized(*image.shape[:2])
            logits = F.interpolate(big[:, :, :height, :width], size=image.shape[:2], mode="bilinear")[0, 0]
            inside = logits > 0
            sure = logits.sigmoid()[inside].sum() / (inside.sum() + 1e-6)
            found.append((float(probabilities[q, c]), class_names()[c], float(probabilities[q, c] * sure), inside))
    best = sorted(found, key=lambda one: -one[0])[:100]
    return [(name, score, tight_box(inside.numpy())) for _, name, score, inside in best if score > least]


def test_instances_are_those_of_the_plain_computation(network, small):
    """At a low bar, so that the top 100 of 12 x 80 pairs bind, on a picture with padding, next to another size."""
    image, least = picture(90, 140), 0.003
    (found, other) = Detector(network, least).find([image, picture(64, 64, 1)])
    expected = slow(network, image, least)
    assert len(found) == len(expected) > 20 and other

    def order(rows):
        return sorted(rows, key=lambda row: (row[0], -row[1]))

    mine = order([(one.name, float(one.score), one.box) for one in found])
    for (name, score, box), (their_name, their_score, their_box) in zip(mine, order(expected), strict=True):
        assert name == their_name and score == pytest.approx(their_score, rel=1e-4)
        assert box.tolist() == their_box.tolist()
    assert all(one.mask.shape == (90, 140) and one.mask.any() for one in found)


def test_a_picture_does_not_depend_on_its_batch(network, small):
    images = [picture(64, 64, seed) for seed in range(3)]
    together = Detector(network, 0.003).find(images)
    for image, mine in zip(images, together, strict=True):
        (alone,) = Detector(network, 0.003).find([image])
        assert [one.name for one in alone] == [one.name for one in mine]
        assert np.allclose([one.score for one in alone], [one.score for one in mine], rtol=1e-4)


def test_scores_are_the_class_times_the_mean_inside_the_mask(network):
    """Worked by hand: class probability 0.5, a mask of logits 0 (outside) and 2: 0.5 * 0.8808 = 0.4404."""
    classes = torch.full((1, 81), -50.0)
    classes[0, 16] = classes[0, 80] = 0.0
    masks = torch.full((1, 8, 8), -2.0)
    masks[0, 2:6, 3:7] = 2.0
    (found,) = Detector(network)._instances(classes, masks, (8, 8), (8, 8), (8, 8))
    assert found.name == "dog" and found.score == pytest.approx(0.5 * 0.880797, rel=1e-5)
    assert found.box.tolist() == [3, 2, 7, 6]  # one beyond the last pixel


def test_masks_go_back_by_way_of_the_padded_input():
    """Padding is cut before the second resizing: what lies in it must not leak in."""
    masks = torch.zeros(1, 4, 4)
    masks[..., 2:] = 100.0
    cut = full_size(masks, (16, 16), (16, 8), (16, 8))
    assert cut.shape == (1, 16, 8) and cut[0, 8, 3] == 0 and cut[0, 8, 7] == pytest.approx(37.5)


def test_another_detectors_classes_are_refused_and_another_order_is_followed():
    with pytest.raises(UserError, match="COCO's 80 classes"):
        Detector(mask2former(labels=["a", "b"]))
    assert Detector(mask2former(labels=COCO[::-1])).names == list(class_names())[::-1]


# ---------------------------------------------------------------------------------------- colors


def test_crops_are_grey_outside_the_mask():
    image = np.full((10, 12, 3), 200, np.uint8)
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:9] = True
    mask[3, 4] = False
    crop = np.asarray(cut_out(image, Found("car", np.float32(0.9), tight_box(mask), mask)))
    assert crop.shape == (3, 6, 3)
    assert (crop[1, 1] == 0x99).all() and (np.delete(crop.reshape(-1, 3), 7, axis=0) == 200).all()


def test_the_clip_input_is_the_centre_of_the_shorter_side_at_224():
    made = clip_input(Image.new("RGB", (50, 20), (255, 0, 0)))
    assert made.shape == (3, 224, 224)
    assert made[0].numpy() == pytest.approx((1 - 0.48145466) / 0.26862954, abs=1e-4)
    assert made[1].numpy() == pytest.approx(-0.4578275 / 0.26130258, abs=1e-4)
    half = Image.new("RGB", (448, 224))
    half.paste((255, 255, 255), (0, 0, 112, 224))
    assert clip_input(half).mean() < -1.5  # the white quarter at the left is cut away


def test_colors_are_the_mean_of_three_sentences():
    model, words = clip()
    image, mask = picture(40, 40), np.ones((40, 40), bool)
    one = Found("car", np.float32(0.9), tight_box(mask), mask)
    classifier = ColorClassifier(model, words)
    found = classifier.similarities([(image, one)])[0]

    def direction(x):
        return x / x.norm()

    with torch.inference_mode():
        seen = model.get_image_features(pixel_values=clip_input(Image.fromarray(image))[None])
        seen = direction(getattr(seen, "pooler_output", seen)[0])
        for color, similarity in zip(COLORS, found, strict=True):
            texts = [f"a photo of a {color} car", f"a photo of a {color}-colored car", f"a photo of a {color} object"]
            each = []
            for text in texts:
                read = model.get_text_features(**words([text], return_tensors="pt"))
                each.append(direction(getattr(read, "pooler_output", read)[0]))
            expected = seen @ direction(torch.stack(each).mean(0))
            assert float(similarity) == pytest.approx(float(expected), abs=1e-5)
    assert classifier.classify([(image, one)]) == [COLORS[int(found.argmax())]]
    assert classifier.classify([]) == []


def test_nan_is_told_and_never_counts_as_nothing_seen(small):
    image, mask = picture(64, 64), np.ones((64, 64), bool)
    broken = mask2former()
    with torch.no_grad():
        broken.class_predictor.bias.fill_(float("nan"))
    with pytest.raises(UserError, match="the detector answers with NaN"):
        Detector(broken).find([image])
    model, words = clip()
    with torch.no_grad():
        model.visual_projection.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="the color classifier answers with NaN"):
        ColorClassifier(model, words).classify([(image, Found("car", np.float32(0.9), tight_box(mask), mask))])
