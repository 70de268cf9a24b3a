"""Which weight is trained by which optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from janus_r1.errors import UserError
from janus_r1.model.janus import Janus
from janus_r1.train.muon import Muon
from janus_r1.train.processes import sharded

# Tables and heads: their rows are looked up or scored one by one, so Muon does not suit them.
_TABLES = ("embed_tokens", "generation_embeddings", "lm_head", "vision_head", "embeddings")


def muon_and_adamw(janus: Janus, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """For training from scratch: Muon for hidden matrices, AdamW for tables, norms and biases.

    Raises:
        UserError: under FSDP2, which leaves a process only rows of a matrix: nothing to make orthogonal.
    """
    if sharded():
        raise UserError("Muon needs whole matrices, which FSDP2 cuts up: set optimizer: adamw")
    return _muon_for(janus, _is_hidden, lr, weight_decay)


def muon_for_encoders(module: nn.Module, lr: float, weight_decay: float = 0.0) -> list[torch.optim.Optimizer]:
    """For an image encoder from scratch: Muon for matrices and convolutions, AdamW for norms and biases."""
    return _muon_for(module, lambda name, parameter: parameter.ndim >= 2, lr, weight_decay)


def _is_hidden(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and not any(table in name for table in _TABLES)


def _muon_for(
    module: nn.Module, chosen: Callable[[str, nn.Parameter], bool], lr: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Muon for what is ``chosen`` of the trained parameters, AdamW without decay for the rest."""
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    rest = [parameter for name, parameter in trained.items() if not chosen(name, parameter)]
    return [
        Muon([p for name, p in trained.items() if chosen(name, p)], lr=lr, weight_decay=weight_decay),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, fused=_fused(rest)),
    ]


def adamw(janus: Janus, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """For finetuning, with the paper's settings (Table 5); no decay of norms and biases."""
    trained = [p for p in janus.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=1e-6, fused=_fused(trained))]


def _fused(parameters: Sequence[torch.Tensor]) -> bool | None:
    """Whether one kernel updates them all: where they are whole and on a GPU; elsewhere as torch thinks best."""
    return True if parameters and not sharded() and all(p.is_cuda for p in parameters) else None
