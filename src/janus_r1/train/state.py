"""Weights and optimizer states as files hold them: whole, however FSDP2 has cut them up in memory.

A file does not know how many processes wrote it, so a run may resume on another number of them.
Gathering is collective: all processes must ask for the same tensors in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from janus_r1.errors import UserError
from janus_r1.train.processes import this_process


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor of which this process may hold a part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """What of a tensor is in this process's memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(value: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """This process's part of the whole ``value``, where ``target`` is cut up."""
    if not isinstance(target, DTensor):
        return value
    placed = value.to(target.device)
    return distribute_tensor(placed, target.device_mesh, target.placements, src_data_rank=None)


def gathered(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Whole tensors in the main process's memory, one after another; nothing in the others'."""
    main, result = this_process().is_main_process, {}
    for name, tensor in tensors.items():
        value = whole(tensor.detach()) if isinstance(tensor, torch.Tensor) else tensor
        if main:
            result[name] = value.cpu() if isinstance(value, torch.Tensor) else value
    return result


# ------------------------------------------------------------------------------------- of a module


def weights(module: nn.Module, frozen: bool = False) -> dict[str, torch.Tensor]:
    """Parameters and buffers, :func:`gathered`; parameters without gradients only where ``frozen`` asks for them."""
    left_out = {name for name, parameter in module.named_parameters() if not (parameter.requires_grad or frozen)}
    return gathered({name: tensor for name, tensor in module.state_dict().items() if name not in left_out})


@torch.no_grad()
def load_weights(module: nn.Module, state: Mapping[str, torch.Tensor], source: object) -> None:
    """Take up :func:`weights` again, in place.

    Raises:
        UserError: naming ``source``, if something that is trained is missing, or means nothing here.
    """
    own = module.state_dict()
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    wrong = [*sorted(trained - state.keys()), *sorted(state.keys() - own.keys())]
    wrong += [name for name in state if name in own and state[name].shape != own[name].shape]
    if wrong:
        raise UserError(f"the weights in {source} are not of this recipe: {len(wrong)} do not fit, e.g. {wrong[0]}")
    for name, value in state.items():
        own[name].copy_(like(value, own[name]))


@torch.no_grad()
def copy_trained(source: nn.Module, target: nn.Module) -> None:
    """Trained parameters of ``source``, whole, into the equally named ones of ``target``, in its dtype."""
    own = dict(target.named_parameters())
    for name, parameter in source.named_parameters():
        if parameter.requires_grad:
            own[name].copy_(whole(parameter))


# --------------------------------------------------------------------------------- of an optimizer


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Its state dict, :func:`gathered`."""
    held = optimizer.state_dict()
    return held | {"state": {index: gathered(values) for index, values in held["state"].items()}}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def part(index: int, value: Any) -> Any:
        per_weight = isinstance(value, torch.Tensor) and value.shape == parameters[index].shape
        return like(value, parameters[index]) if per_weight else value

    parts = {i: {name: part(i, value) for name, value in values.items()} for i, values in state["state"].items()}
    optimizer.load_state_dict({**state, "state": parts})
