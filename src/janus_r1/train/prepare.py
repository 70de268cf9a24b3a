"""The models of a run: the one that is trained, made ready; the one that generates; a look at what it draws now."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from janus_r1.chain import Settings, Task
from janus_r1.introspect import introspect
from janus_r1.model.janus import Janus
from janus_r1.model.loading import DTYPES, load, save
from janus_r1.model.matrices import adjoin
from janus_r1.sheet import sheet
from janus_r1.train.lora import Adapters
from janus_r1.train.processes import copy_trained, sharded, this_process
from janus_r1.worlds.base import DEFAULT, world


def prepare(janus: Janus, train_vision: bool, compile_model: bool, recompute: bool = False) -> None:
    """Freeze, choose the attention kernel, join the projections; compile, recompute activations if asked to.

    Joining means that a preview, which decodes, finds the weights as it wants them and copies nothing.
    """
    janus.freeze(vision=not train_vision)
    if janus.device.type == "cpu":
        janus.attend_plainly()
    language = adjoin(janus.language)
    if recompute:
        language.gradient_checkpointing_enable({"use_reentrant": False})
        language.train()  # which transformers wants for it; there is no dropout
    if compile_model:
        language.compile()


class Replica:
    """The model that generates: the trained one itself, or a copy where that cannot.

    A copy is needed in another dtype, beside a policy that FSDP2 cuts up, and for LoRA, whose adapters the engine does
    not know. It is loaded from the same place; ``model`` has the weights that were trained at the last :meth:`refresh`.
    """

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

    def save(self, folder: Path) -> Path:
        """What is trained now, as a model in transformers' layout. Collective."""
        model = self.refresh()
        if this_process().is_main_process:
            save(model, folder, torch.bfloat16)
        return folder


def chain_sheet(
    janus: Janus,
    rounds: int,
    count: int = 6,
    edits: int = 0,
    world_name: str = DEFAULT,
    tasks: Sequence[Task] | None = None,
) -> np.ndarray:
    """Chains on ``count`` fixed training prompts of a world, then on ``edits`` edits, or on the ``tasks`` given; as one
    picture, uint8 [H, W, 3]."""
    if tasks is None:
        its = world(world_name)
        tasks = list(itertools.islice(its.stream(random.Random(5)), count))
        tasks += itertools.islice(its.stream(random.Random(5), "edit"), edits) if edits else []
    chains = introspect(janus, tasks, Settings(rounds=rounds, max_reason_tokens=30))
    return np.asarray(sheet(chains).convert("RGB"))
