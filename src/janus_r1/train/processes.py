"""What training must know of the other processes, and how FSDP2 is switched on.

``accelerate launch`` says how a run is spread; the recipe stays the same. Under FSDP2 every forward
pass gathers weights from all processes, so all must make equally many.
"""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, FullyShardedDataParallelPlugin, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, parse_flag_from_env
from torch.distributed.fsdp import MixedPrecisionPolicy

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
