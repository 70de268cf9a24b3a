"""What training must know of the other processes, and how FSDP2 is switched on.

``accelerate launch`` says how a run is spread; the recipe stays the same. Under FSDP2 every forward
pass gathers weights from all processes, so all must make equally many.

Files hold weights and optimizer states whole, however FSDP2 has cut them up in memory: a file does not know how many
processes wrote it, so a run may resume on another number of them. Gathering is collective: all processes must ask for
the same tensors in the same order.
"""

from __future__ import annotations

import atexit
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, FullyShardedDataParallelPlugin, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, parse_flag_from_env
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor

from janus_r1.errors import UserError


def this_process() -> PartialState:
    """Its index, its device, how many there are. accelerate by itself asks for GPUs until an Accelerator is made."""
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    _leave_at_exit()
    return state


@cache
def _leave_at_exit() -> None:
    """Processes part in order: threads of the group that still wait at the end would abort theirs."""
    atexit.register(lambda: dist.is_initialized() and dist.destroy_process_group())


def sharded() -> bool:
    """Whether this process was launched under FSDP."""
    return parse_flag_from_env("ACCELERATE_USE_FSDP")


def accelerator(precision: str) -> Accelerator:
    """As launched. Sharded weights are gathered in ``precision``, gradients summed in float32.

    Raises:
        UserError: under FSDP version 1, which the engine's copy of the weights does not support.
    """
    AcceleratorState._reset_state()  # of an earlier run in this process, which may have had another precision
    made = Accelerator(mixed_precision=precision)
    if not sharded() or made.distributed_type == DistributedType.NO:
        return made
    if made.distributed_type == DistributedType.MULTI_CPU:  # accelerate turns FSDP on for GPUs only
        made.state.distributed_type = this_process().distributed_type = DistributedType.FSDP
        made.state.fsdp_plugin = FullyShardedDataParallelPlugin()
    if made.state.fsdp_plugin.fsdp_version != 2:
        raise UserError("FSDP version 1 is not supported: set fsdp_version: 2, as in configs/accelerate/fsdp2.yaml")
    # accelerate's own choice would sum gradients, and hand out log-probs, in bfloat16.
    compute = torch.bfloat16 if precision == "bf16" else torch.float32
    made.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(compute, reduce_dtype=torch.float32)
    return made


def spread() -> dict[str, object]:
    """How the run is spread over processes, for the record."""
    return {"processes": this_process().num_processes, "distributed": AcceleratorState().distributed_type.value}


def most(count: int) -> int:
    """The largest ``count`` of all processes."""
    state = this_process()
    if state.num_processes == 1:
        return count
    counts = torch.tensor(count, device=state.device)
    dist.all_reduce(counts, dist.ReduceOp.MAX)
    return int(counts)


def share(items: Sequence[Any]) -> Sequence[Any]:
    """This process's part of a step's rows."""
    state = this_process()
    return items[state.process_index :: state.num_processes]


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
