"""The model that generates: the policy itself, or a copy where that cannot.

A copy is needed in another dtype, beside a policy that FSDP2 cuts up, and for LoRA, whose adapters the
engine does not know. It is loaded from the same place and takes up the trained weights before every rollout.
"""

from __future__ import annotations

import torch

from janus_r1.model.janus import Janus
from janus_r1.model.loading import DTYPES, load
from janus_r1.train.lora import Adapters
from janus_r1.train.processes import sharded
from janus_r1.train.state import copy_trained


class Replica:
    """``model`` generates with the weights that the policy had at the last :meth:`refresh`."""

    def __init__(self, policy: Janus, source: str, dtype: str = "float32", adapters: Adapters | None = None) -> None:
        self.policy, self.adapters = policy, adapters
        own = adapters or sharded() or DTYPES[dtype] != policy.dtype
        self.model = load(source, dtype, str(policy.device)).requires_grad_(False) if own else policy

    @torch.no_grad()
    def refresh(self) -> Janus:
        """Collective where the policy is cut up."""
        if self.model is self.policy:
            return self.model
        if self.adapters is None:
            copy_trained(self.policy, self.model)
        else:
            own = dict(self.model.named_parameters())
            for name, weight in self.adapters.merged():
                own[name].copy_(weight)
        return self.model
