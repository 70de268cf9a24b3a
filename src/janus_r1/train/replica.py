"""A copy of the policy that generates: in another dtype, or whole where the policy is sharded.

Refreshed from the trained weights before every rollout. Where the policy itself can generate (one
process, same dtype, no adapters) no copy is made.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from janus_r1.model.janus import Janus


class Replica:
    """``model`` generates with the weights that the policy had at the last :meth:`refresh`."""

    def __init__(self, policy: Janus, dtype: torch.dtype) -> None:
        self.policy = policy
        self.model = policy
        if dtype != policy.dtype:
            self.model = copy.deepcopy(policy).requires_grad_(False).eval()
            self.model.core.to(dtype)
            self.model.core.model.vqmodel.float()

    @torch.no_grad()
    def refresh(self) -> Janus:
        if self.model is not self.policy:
            own = dict(self.model.named_parameters())
            for name, parameter in self.policy.named_parameters():
                own[name].copy_(_whole(parameter))
        return self.model


def _whole(parameter: nn.Parameter) -> torch.Tensor:
    """All of a parameter that FSDP2 shards (a collective call there)."""
    gather = getattr(parameter, "full_tensor", None)
    return gather() if gather else parameter
