"""``janus-r1 convert`` and ``average``: models made of models."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from janus_r1.commands.model import ModelOptions, load_model
from janus_r1.commands.output import answers_only, new_folder, print_json


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

    from janus_r1.model.averaging import average as mean_of
    from janus_r1.model.loading import save

    with answers_only(json), new_folder(out, overwrite, ours="config.json"):
        save(mean_of(models), out, getattr(torch, dtype))
    if json:
        print_json({"out": str(out), "models": models, "dtype": dtype})
    else:
        print(f"{out}: the mean of {len(models)} models, {dtype}")
