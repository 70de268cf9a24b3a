"""PSNR and SSIM against hand-worked and recorded values, and what a mask leaves out."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from janus_r1.errors import UserError
from janus_r1.eval.similarity import C1, edited_region, psnr, ssim
from janus_r1.worlds.shapes.edit_cases import sample_case
from janus_r1.worlds.shapes.scene import render


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """A picture full of detail and a distorted copy, uint8 [40, 48, 3], by plain arithmetic."""
    y, x = np.mgrid[0:40, 0:48]
    a = np.stack([(5 * x + 3 * y) % 256, (x * y) % 256, (7 * x + 11 * y * y) % 256], -1).astype(np.uint8)
    shift = ((x * 13 + y * 29) % 31 - 15)[..., None] * np.array([1, 2, -1])
    return a, np.clip(a.astype(int) + shift, 0, 255).astype(np.uint8)


def plain(value: int, side: int = 20) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def test_psnr_by_hand():
    assert psnr(plain(100), plain(105)) == pytest.approx(20 * math.log10(255 / 5))
    half = plain(100)
    half[:10] = 110
    assert psnr(plain(100), half) == pytest.approx(10 * math.log10(255**2 / 50))
    assert psnr(half, half) == math.inf
    assert psnr(plain(0), plain(255)) == pytest.approx(0.0)


def test_ssim_by_hand():
    """Plain pictures have no structure: only the comparison of means is left."""
    expected = (2 * 100 * 150 + C1) / (100**2 + 150**2 + C1)
    assert ssim(plain(100), plain(150)) == pytest.approx(expected, abs=1e-9)
    a, _ = pictures()
    assert ssim(a, a) == pytest.approx(1.0, abs=1e-12)


def test_recorded_values_of_scikit_image():
    """0.26: gaussian_weights, sigma 1.5, use_sample_covariance False, data_range 255, channel_axis -1."""
    a, b = pictures()
    assert psnr(a, b) == pytest.approx(26.383615072885416, abs=1e-9)
    assert ssim(a, b) == pytest.approx(0.8976700632434018, abs=1e-9)
    assert ssim(a[..., 0], b[..., 0]) == pytest.approx(0.7709861885668414, abs=1e-9)
    assert ssim(a, 255 - a) == pytest.approx(-0.7054408782110967, abs=1e-9)


def test_a_mask_of_everything_changes_nothing():
    a, b = pictures()
    everything = np.ones(a.shape[:2], dtype=bool)
    assert psnr(a, b, everything) == psnr(a, b)
    assert ssim(a, b, everything) == pytest.approx(ssim(a, b), abs=1e-12)


def test_nothing_inside_the_edited_region_counts():
    a, b = pictures()
    mask = np.ones(a.shape[:2], dtype=bool)
    mask[12:24, 10:30] = False
    painted = np.where(mask[..., None], b, 255 - b)
    assert psnr(a, painted, mask) == psnr(a, b, mask) != psnr(a, painted)
    assert ssim(a, painted, mask) == pytest.approx(ssim(a, b, mask), abs=1e-12)
    assert ssim(a, painted) < ssim(a, b, mask) - 0.1


def test_a_change_outside_the_edited_region_counts():
    a, b = pictures()
    mask = np.zeros(a.shape[:2], dtype=bool)
    mask[:, :20] = True
    left = np.where(mask[..., None], b, a)
    assert psnr(a, left, mask) < psnr(a, left) < math.inf
    assert ssim(a, left, mask) < ssim(a, left) < 1


def test_edited_region_is_the_change_and_a_margin():
    source, target = plain(100), plain(100)
    target[8:10, 5, 1] = 140
    region = edited_region(source, target, margin=2)
    expected = np.zeros((20, 20), dtype=bool)
    expected[6:12, 3:8] = True
    assert (region == expected).all()
    assert edited_region(source, target, margin=0).sum() == 2
    assert not edited_region(source, plain(110)).any()  # under the threshold: noise, not an edit
    corner = plain(100)
    corner[0, 0] = 255
    assert edited_region(source, corner, margin=2).sum() == 9  # at the border the margin is cut, not wrapped


def test_outside_the_region_an_edit_of_the_world_changes_nothing():
    rng = random.Random(0)
    for family in ("recolour", "replace", "remove", "add", "move", "two_step"):
        case = sample_case(rng, family)
        source, target = render(case.source), render(case.target)
        outside = ~edited_region(source, target)
        assert psnr(source, target, outside) > 30 > psnr(source, target)
        assert ssim(source, target, outside) > 0.98 > ssim(source, target)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: psnr(plain(1), plain(1, 30)), "must have one size"),
        (lambda: ssim(plain(1), plain(1)[..., 0]), "must have one size"),
        (lambda: psnr(plain(1) / 255, plain(1)), "must be uint8"),
        (lambda: edited_region(plain(1), plain(1, 30)), "must have one size"),
        (lambda: psnr(plain(1), plain(2), np.zeros((20, 20), dtype=bool)), "mask is empty"),
        (lambda: psnr(plain(1), plain(2), np.ones((20, 20))), "mask must be bool"),
        (lambda: psnr(plain(1), plain(2), np.ones((9, 20), dtype=bool)), "mask must be bool"),
        (lambda: ssim(plain(1, 10), plain(2, 10)), "at least 11 x 11"),
        (lambda: ssim(plain(1), plain(2), np.arange(400).reshape(20, 20) < 20), "no window"),
    ],
)
def test_bad_input_is_one_clear_line(call, complaint):
    with pytest.raises(UserError, match=complaint):
        call()
