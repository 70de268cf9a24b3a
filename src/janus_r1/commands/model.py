"""The model that a command was asked to use, how many chains of it fit into memory, and ``convert`` and ``average``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from janus_r1.chain import Settings
from janus_r1.commands.output import answers_only, new_folder, note, print_json, say, warn
from janus_r1.errors import UnknownWords, UserError, first_line, foreign, one_line
from janus_r1.fields import Checked, Positive

if TYPE_CHECKING:  # torch only where it is needed
    from janus_r1.api import JanusR1

MODEL = "tiny-r1-edit"  # the model in the package that draws and edits best
JUDGE = "tiny-r1"  # the one that judges pictures of others best
UNKNOWN = 64  # for ``auto`` on a device that does not tell its free memory
Batch = Positive | Literal["auto"]


@dataclass(frozen=True)
class ModelOptions(Checked):
    """Which model, and how it is held in memory."""

    model: str = MODEL
    """A model in the package, a folder, or owner/name on the Hub."""
    dtype: Literal["float32", "bfloat16", "int8", "auto"] = "float32"
    """Of the weights; auto: as stored; int8: large matrices in 8 bits, to generate with a large model."""
    kv: Literal["auto", "fp8"] = "auto"
    """Of cached keys and values; auto: as the weights; fp8: half of bfloat16's memory."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ..."""


def load_model(options: ModelOptions, weights: str | None = None) -> JanusR1:
    """The model, without transformers' own bars and notes.

    Raises:
        UserError: for whatever is wrong with the device or with the model's files.
    """
    say(f"loading {one_line(options.model)} ({options.dtype}, {options.device})")
    quiet_transformers()
    from janus_r1.api import JanusR1

    check_device(options.device)
    with loading_errors(options.model):
        return JanusR1.from_pretrained(
            options.model, dtype=options.dtype, device=options.device, weights=weights, kv=options.kv
        )


def quiet_transformers() -> None:
    """No bars and notes of transformers' own."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def check_device(name: str) -> None:
    """Raises UserError for a device that torch does not know or this machine does not have."""
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"no device {name!r} here: {first_line(error)}") from None


@contextlib.contextmanager
def loading_errors(name: str) -> Iterator[None]:
    """A config is a user's file too, and transformers raises anything about it: one line for all."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise UserError(f"cannot load the model {name}: {first_line(error)}") from error


def warn_of_words(model: JanusR1, texts: Sequence[str]) -> None:
    """Say of which texts the model does not know all words: it draws something for them, and may say Yes to it."""
    import warnings

    for text in dict.fromkeys(texts):
        if unknown := model.model.unknown_words(text):
            warn(foreign(one_line(text), [one_line(word) for word in unknown]))
    warnings.simplefilter("ignore", UnknownWords)  # it has been said


# ------------------------------------------------------------------------------------------ memory


def plan_batch(
    options: ModelOptions,
    max_batch: int | str,
    prompts: Sequence[str],
    chains: int,
    settings: Settings,
    drawing: bool = True,
    edit: bool = False,
) -> int:
    """``max_batch`` (a number, or ``auto``: as many as fit), lowered to ``chains`` and to what fits.

    ``prompts`` may be empty where they are not known yet: they are taken at their longest then.

    Raises:
        UserError: if not even one chain fits beside the weights.
    """
    from janus_r1.engine.memory import estimate, free_bytes
    from janus_r1.layout import MAX_CAPTION_TOKENS
    from janus_r1.model.loading import cache_dtype, describe

    device = options.device
    check_device(device)
    free = free_bytes(device)
    most = chains if isinstance(max_batch, str) else min(max_batch, chains)
    if free is None:
        return min(most, UNKNOWN) if isinstance(max_batch, str) else most
    longest = max((len(prompt.encode()) for prompt in prompts), default=MAX_CAPTION_TOKENS)
    with loading_errors(options.model):
        described = describe(options.model, options.dtype)
        need = estimate(*described, settings, drawing, longest, edit, cache_dtype(options.kv))
    batch = need.largest_batch(free, most)
    if not batch:
        raise UserError(
            f"{options.model} does not fit: it needs about {_gb(need.of(1))} ({_gb(need.weights)} of weights) "
            f"and {device} has {_gb(free)} free; try --dtype bfloat16, fewer --rounds or --history last"
        )
    if batch < most and max_batch != "auto":
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


# ----------------------------------------------------------------------------------------- models made of models


def convert(
    source: str,
    out: Path,
    *,
    weights: str | None = None,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Write a model in transformers' layout.

    Reads DeepSeek's layout (pytorch_model*.bin or safetensors) without running any code of it.

    Args:
        source: A folder or owner/name on the Hub, in either layout
        out: Folder to write
        weights: State dict to take instead of SOURCE's own weights
        dtype: Of the weights; auto: as stored
        overwrite: Replace OUT if it is a model folder

    Examples:
        janus-r1 convert deepseek-ai/Janus-Pro-1B models/janus-pro-1b
        janus-r1 convert path/to/Janus-Pro-7B models/my-sft --weights sft.pth
    """
    with answers_only(json), new_folder(out, overwrite, ours="config.json"):
        model = load_model(ModelOptions(source, dtype), weights)
        model.save_pretrained(out)
    parameters = sum(parameter.numel() for parameter in model.model.parameters())
    stored = str(model.model.dtype).removeprefix("torch.")
    if json:
        print_json({"out": str(out), "parameters": parameters, "dtype": stored})
    else:
        print(f"{out}: {parameters / 1e6:.1f} M parameters, {stored}")


def average(
    out: Path,
    models: list[str],
    *,
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Write the mean of several models' weights.

    Models that were trained one from another: their mean is often better than each of them.

    Args:
        out: Folder to write, in transformers' layout
        models: Embedded models, folders or owner/name on the Hub
        dtype: Of what is written
        overwrite: Replace OUT if it is a model folder

    Examples:
        janus-r1 average models/mean runs/rl/model runs/sft/model
    """
    import torch

    from janus_r1.model.loading import average as mean_of
    from janus_r1.model.loading import save

    with answers_only(json), new_folder(out, overwrite, ours="config.json"):
        save(mean_of(models), out, getattr(torch, dtype))
    if json:
        print_json({"out": str(out), "models": models, "dtype": dtype})
    else:
        print(f"{out}: the mean of {len(models)} models, {dtype}")
