"""The benchmark's metrics: what each is called, its scale, and those that need nothing but the pixels.

Outside the edited region means here what it means in the benchmark's code: both pictures are made black inside
it, then compared whole. A large edited region therefore raises PSNR and SSIM and lowers MSE and LPIPS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from janus_r1.eval import similarity
from janus_r1.eval.benchmark import Measure

MAX_PSNR = 100.0  # dB, of equal pictures; a single value off by one level costs 107


class Pair(NamedTuple):
    """A source and what was made of it, uint8 [H, W, 3]."""

    source: np.ndarray
    image: np.ndarray
    edited: np.ndarray
    """The edited region, bool [H, W]."""
    target: str
    """What the edited picture shows."""

    def outside(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Both pictures, black inside the edited region; ``None`` where nothing lies outside."""
        if self.edited.all():
            return None
        kept = ~self.edited[..., None]
        return self.source * kept, self.image * kept


Metric = Callable[[Pair], float | None]
"""``None`` where the pair has nothing to measure; the benchmark leaves it out of that metric's mean."""


class NotMeasured(NamedTuple):
    """Stands in for a metric that cannot be had here, and says why."""

    reason: str

    def __str__(self) -> str:
        return f"not measured: {self.reason}"


Metrics = dict[str, Metric | NotMeasured]


SCALES = {
    "structure_distance": Measure("structure ×10³ ↓", 1e3, 2, (0, 4), less_is_better=True),
    "psnr": Measure("PSNR ↑", 1, 2, (0, MAX_PSNR)),
    "lpips": Measure("LPIPS ×10³ ↓", 1e3, 2, (0, 1), less_is_better=True),
    "mse": Measure("MSE ×10⁴ ↓", 1e4, 2, (0, 1), less_is_better=True),
    "ssim": Measure("SSIM ×10² ↑", 1e2, 2, (-1, 1)),
    "clip_whole": Measure("CLIP whole ↑", 1, 2, (0, 100)),
    "clip_edited": Measure("CLIP edited ↑", 1, 2, (0, 100)),
}


def psnr(pair: Pair) -> float | None:
    """dB, at most :data:`MAX_PSNR`."""
    outside = pair.outside()
    return None if outside is None else min(MAX_PSNR, similarity.psnr(*outside))


def mse(pair: Pair) -> float | None:
    """Of values from 0 to 1."""
    outside = pair.outside()
    return None if outside is None else similarity.mse(*outside) / similarity.PEAK**2


def ssim(pair: Pair) -> float | None:
    outside = pair.outside()
    return None if outside is None else similarity.ssim(*outside)


PIXELS: Metrics = {"psnr": psnr, "mse": mse, "ssim": ssim}
