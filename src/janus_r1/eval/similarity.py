"""How alike two pictures are, pixel by pixel: PSNR and SSIM, everywhere or only outside an edited region.

SSIM as in Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural
similarity" (2004): an 11 x 11 Gaussian window of sigma 1.5, K1 0.01, K2 0.03, values 0 to 255. Colour images are
measured channel by channel and averaged; windows that do not fit into the picture are left out.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from janus_r1.errors import UserError

PEAK = 255.0
WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


def edited_region(source: np.ndarray, target: np.ndarray, threshold: float = 16.0, margin: int = 2) -> np.ndarray:
    """Where ``target`` differs from ``source``: bool [H, W].

    A pixel differs when any channel does by more than ``threshold`` grey levels; the region is widened by
    ``margin`` pixels all around, for soft edges.

    Raises:
        UserError: if the pictures are not uint8 of one size.
    """
    _check(source, target)
    change = np.abs(source.astype(np.int16) - target.astype(np.int16))
    square = np.ones((2 * margin + 1, 2 * margin + 1), dtype=bool)
    return ndimage.binary_dilation(np.atleast_3d(change).max(-1) > threshold, square)


def psnr(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB of uint8 pictures [H, W, 3] or [H, W]; infinite for equal ones.

    With ``mask``, bool [H, W], only the pixels where it is true count.

    Raises:
        UserError: if the pictures or the mask differ in size, or the mask is empty.
    """
    error = mse(a, b, mask)
    return math.inf if error == 0 else 10 * math.log10(PEAK**2 / error)


def mse(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean squared error in grey levels squared, of the same pictures as :func:`psnr`.

    Raises:
        UserError: as :func:`psnr`.
    """
    _check(a, b, mask)
    squares = np.square(a.astype(np.float64) - b)
    return float((squares if mask is None else squares[mask]).mean())


def ssim(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean structural similarity of uint8 pictures [H, W, 3] or [H, W], at most 1.

    With ``mask``, bool [H, W], only windows centred where it is true count, and of these only the pixels where
    it is true: what happens inside the edited region cannot leak out through a window.

    Raises:
        UserError: as :func:`psnr`; also if the pictures, or the part of them that counts, hold no window.
    """
    _check(a, b, mask)
    if min(a.shape[:2]) < WINDOW:
        raise UserError(f"SSIM needs pictures of at least {WINDOW} x {WINDOW} pixels; got {a.shape[1]} x {a.shape[0]}")
    counted = np.ones(a.shape[:2], dtype=bool) if mask is None else mask
    edge = WINDOW // 2
    centres = counted[edge:-edge, edge:-edge]
    if not centres.any():
        raise UserError("no window of SSIM lies outside the edited region; leave SSIM out for this pair")
    x, y = (np.atleast_3d(image).astype(np.float64) for image in (a, b))
    return float(np.mean([_map(x[..., c], y[..., c], counted)[centres].mean() for c in range(x.shape[-1])]))


def _map(x: np.ndarray, y: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """SSIM of every window that fits: [H, W] -> [H - 10, W - 10]; without a counted pixel a window is 1."""
    weight = counted.astype(np.float64)
    total = np.maximum(_blur(weight), 1e-300)

    def mean(values: np.ndarray) -> np.ndarray:
        return _blur(values * weight) / total

    mx, my = mean(x), mean(y)
    covariance = mean(x * y) - mx * my
    variances = mean(x * x) - mx * mx + mean(y * y) - my * my
    return (2 * mx * my + C1) * (2 * covariance + C2) / ((mx * mx + my * my + C1) * (variances + C2))


def _blur(values: np.ndarray) -> np.ndarray:
    """Gaussian average over every window that fits: [H, W] -> [H - 10, W - 10]."""
    edge = WINDOW // 2
    return ndimage.gaussian_filter(values, SIGMA, radius=edge)[edge:-edge, edge:-edge]


def _check(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> None:
    if a.dtype != np.uint8 or b.dtype != np.uint8:
        raise UserError(f"pictures to compare must be uint8; got {a.dtype} and {b.dtype}")
    if a.shape != b.shape or a.ndim not in (2, 3):
        raise UserError(f"pictures to compare must have one size; got {a.shape} and {b.shape}")
    if mask is not None and (mask.shape != a.shape[:2] or mask.dtype != bool):
        raise UserError(f"the mask must be bool {a.shape[:2]}; got {mask.dtype} {mask.shape}")
    if mask is not None and not mask.any():
        raise UserError("the mask is empty: nothing lies outside the edited region")
