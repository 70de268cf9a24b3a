"""How many chains at once: what fits into memory, found before anything is loaded."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence

from janus_r1.chain import Settings
from janus_r1.commands.checks import check_device
from janus_r1.commands.model import loading_errors
from janus_r1.commands.terminal import note
from janus_r1.errors import UserError

UNKNOWN = 64  # for ``auto`` on a device that does not tell its free memory


def plan_batch(
    args: argparse.Namespace,
    prompts: Sequence[str],
    chains: int,
    settings: Settings,
    drawing: bool = True,
    edit: bool = False,
) -> int:
    """``--max-batch`` (a number, or ``auto``: as many as fit), lowered to ``chains`` and to what fits.

    ``prompts`` may be empty where they are not known yet: they are taken at their longest then.

    Raises:
        UserError: if not even one chain fits beside the weights.
    """
    from janus_r1.layout import MAX_CAPTION_TOKENS
    from janus_r1.model.loading import cache_dtype, describe
    from janus_r1.model.memory import estimate, free_bytes

    device, wanted = args.device, args.max_batch
    check_device(device)
    free = free_bytes(device)
    most = chains if isinstance(wanted, str) else min(wanted, chains)
    if free is None:
        return min(most, UNKNOWN) if isinstance(wanted, str) else most
    longest = max((len(prompt.encode()) for prompt in prompts), default=MAX_CAPTION_TOKENS)
    with loading_errors(args.model):
        need = estimate(*describe(args.model, args.dtype), settings, drawing, longest, edit, cache_dtype(args.kv))
    batch = need.largest_batch(free, most)
    if not batch:
        raise UserError(
            f"{args.model} does not fit: it needs about {_gb(need.of(1))} ({_gb(need.weights)} of weights) "
            f"and {device} has {_gb(free)} free; try --dtype bfloat16, fewer --rounds or --history last"
        )
    if batch < most and wanted != "auto":
        note(f"{batch} chains at once, not {most}: more do not fit into {_gb(free)} on {device}")
    return batch


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


@contextlib.contextmanager
def memory_errors(batch: int, device: str) -> Iterator[None]:
    """Turns running out of memory, on a GPU or a CPU, into one line.

    Raises:
        UserError: that names --max-batch.
    """
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)
        if not known:
            raise
        less = f"pass --max-batch {batch // 2}" if batch > 1 else "try --dtype bfloat16 or fewer --rounds"
        raise UserError(f"out of memory on {device} with --max-batch {batch}: {less}") from None
