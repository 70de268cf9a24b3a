"""The exponential moving average of what is trained: the noise of the last steps averages out.

Training goes on with the weights themselves; the run's model has the average. On the tiny model the mean of a few
trainings was worth more than any of them (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from janus_r1.train import state as states


class Ema:
    """Begins with the module's weights; ``decay`` is what is kept of it in a step.

    The decay warms up as (1 + step) / (10 + step), so that a short run is an average of its steps and not of its begin.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.trained = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        self.average = {name: weight.detach().clone() for name, weight in self.trained.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Called behind the optimizers."""
        self.steps += 1
        kept = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(list(self.average.values()), list(self.trained.values()), 1 - kept)

    @torch.no_grad()
    def put(self) -> None:
        """The average in the place of the trained weights."""
        for name, weight in self.trained.items():
            weight.copy_(self.average[name])

    def state(self) -> dict[str, torch.Tensor]:
        """Collective; whole tensors in the main process."""
        return states.gathered({**self.average, "steps": torch.tensor(self.steps)})

    @torch.no_grad()
    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        self.steps = int(state["steps"])
        for name, weight in self.average.items():
            weight.copy_(states.like(state[name], weight))
