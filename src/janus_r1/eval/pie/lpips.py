"""LPIPS outside the edited region, by the package ``lpips`` and its SqueezeNet, as in the benchmark."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from janus_r1.eval.pie.metrics import Pair


class Lpips:
    """``network`` takes two pictures [1, 3, H, W] of values from -1 to 1."""

    def __init__(self, network: Any, device: str = "cpu") -> None:
        self.network, self.device = network, device

    @classmethod
    def from_package(cls, device: str = "cpu") -> Lpips:
        """
        Raises:
            ImportError: if the package is not there.
            Exception: whatever it meets while it gets its weights.
        """
        try:
            import lpips
        except ImportError as error:
            raise ImportError(f"{error} (pip install 'janus-r1[pie]')") from None
        return cls(lpips.LPIPS(net="squeeze", verbose=False).eval().to(device), device)

    @torch.inference_mode()
    def __call__(self, pair: Pair) -> float | None:
        outside = pair.outside()
        if outside is None:
            return None
        return self.network(*(self._prepared(pixels) for pixels in outside)).item()

    def _prepared(self, pixels: np.ndarray) -> torch.Tensor:
        image = torch.tensor(pixels, dtype=torch.float32, device=self.device).permute(2, 0, 1)[None]
        return image / 127.5 - 1
