"""Weights from disk into a model, tensor by tensor: never a second copy of them in memory.

Reads safetensors and torch's ``.bin``/``.pth``; the latter only as plain tensors, so that no pickled
code ever runs. Files are mapped, not read, and mapped anew every :data:`WINDOW` bytes, because the
pages of a mapping stay in memory for as long as it lives.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import JanusConfig, JanusForConditionalGeneration

from janus_r1.errors import UserError, first_line, require
from janus_r1.model.matrices import adjoined_groups
from janus_r1.model.original import DROPPED, split, targets
from janus_r1.reading import open_regular, read_json_object

WINDOW = 64 * 2**20
SHOWN = 3  # wrong keys that an error spells out
Source = tuple[str, torch.Tensor]


# --------------------------------------------------------------------------------------------- files


def weight_files(folder: Path) -> list[Path]:
    """The weights of a model folder: those of its index, else by name; safetensors before ``.bin``.

    Raises:
        UserError: if there are none, or the index names one that is not there.
    """
    for index, pattern in (
        ("model.safetensors.index.json", "model*.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model*.bin"),
    ):
        if (folder / index).exists():
            return _indexed(folder, folder / index)
        if found := sorted(folder.glob(pattern)):
            return found
    raise UserError(f"{folder} holds no weights (model*.safetensors or pytorch_model*.bin)")


def _indexed(folder: Path, index: Path) -> list[Path]:
    """Only names inside the folder count: an index must not lead a reader elsewhere."""
    names = read_json_object(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{index} has no weight_map")
    files = [folder / Path(name).name for name in sorted(set(names.values()))]
    if missing := [file.name for file in files if not file.exists()]:
        raise UserError(f"{folder} is incomplete: {len(missing)} of its {len(files)} shards, e.g. {missing[0]}")
    return files


def check_index(folder: Path) -> None:
    """Raises UserError where an index of transformers' layout would lead a reader out of ``folder``."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = read_json_object(index).get("weight_map")
        inside = isinstance(names, dict) and all(isinstance(n, str) and Path(n).name == n for n in names.values())
        require(inside, f"{index} names weights outside its folder, or none")


def tensors(file: Path) -> Iterator[Source]:
    """Every tensor of one file, as a view of the mapped file: use it, then let go of it.

    Raises:
        UserError: for a file that is missing, damaged, or holds anything but tensors.
    """
    state = _open(file)
    names = list(state)
    if not _mappable(file):  # torch's old format: in memory as a whole; at least shrink as it is used
        yield from ((name, state.pop(name)) for name in names)
        return
    size = 0
    for name in names:
        tensor = state[name]
        size += tensor.nbytes
        yield name, tensor
        if size > WINDOW:
            del state, tensor
            state, size = _open(file), 0


def _mappable(file: Path) -> bool:
    """Safetensors, or torch's zip format."""
    with file.open("rb") as opened:
        return file.suffix == ".safetensors" or opened.read(4) == b"PK\x03\x04"


def _open(file: Path) -> Any:
    """A mapping of names to tensors on the CPU."""
    open_regular(file).close()  # a pipe is never waited for
    try:
        if file.suffix == ".safetensors":
            return _Safetensors(file)
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=_mappable(file))
    except pickle.UnpicklingError:
        raise UserError(
            f"refused to load {file}: it is damaged, or holds Python objects beside tensors, which could run code"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"cannot read the weights {file}: truncated or damaged ({first_line(error)[:120]})") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{file} is no state dict: it must map names to tensors and hold nothing else")
    return state


class _Safetensors(Mapping[str, torch.Tensor]):
    """A safetensors file as a mapping of lazily read tensors."""

    def __init__(self, file: Path) -> None:
        self.opened = safe_open(file, framework="pt")

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.opened.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.opened.keys())

    def __len__(self) -> int:
        return len(self.opened.keys())


def stored_dtype(files: Iterable[Path]) -> torch.dtype:
    """The dtype that the language model is stored in: its first weight decides."""
    for name, tensor in itertools.chain.from_iterable(map(tensors, files)):
        if "language_model" in name:
            return tensor.dtype
    raise UserError("the weights hold no language model: these are not the files of a Janus model")


# --------------------------------------------------------------------------------------------- model


def assemble(
    config: JanusConfig, files: Iterable[Path], dtype: torch.dtype, device: str, name: str
) -> JanusForConditionalGeneration:
    """transformers' model with the weights of original checkpoint files; ``name`` is for messages.

    The image tokenizer stays float32 whatever ``dtype`` is: in bfloat16 several per cent of its ids
    come out wrong.

    Raises:
        UserError: one that lists the missing, unexpected and misshapen tensors.
    """
    config.dtype = dtype
    with init_empty_weights(include_buffers=False):  # parameters take no memory; computed buffers are real
        core = JanusForConditionalGeneration(config)
    places = _adjoined(core, dtype, device)
    wanted = targets(name for name, _ in core.named_parameters())
    unexpected: list[str] = []
    misshapen: dict[str, str] = {}
    for key, tensor in itertools.chain.from_iterable(map(tensors, files)):
        if DROPPED.fullmatch(key):
            continue
        if key not in wanted:
            unexpected.append(key)
        elif problem := _fill(core, wanted[key], key, tensor, dtype, device, places):
            misshapen[key] = f"{key} {problem}"
    empty = {n for n, parameter in core.named_parameters() if parameter.is_meta}
    missing = [key for key, filled in wanted.items() if key not in misshapen and empty & set(filled)]
    _complain(name, missing=missing, unexpected=unexpected, misshapen=list(misshapen.values()))
    return core.to(device).eval()  # the computed buffers follow the parameters


def _adjoined(core: Any, dtype: torch.dtype, device: str) -> dict[str, torch.Tensor]:
    """Where matrices that are multiplied together go, side by side, by parameter name (``model.matrices.adjoin``).

    Moving them there after loading would leave holes in the heap that nothing else fits into.
    """
    names = {parameter: name for name, parameter in core.named_parameters()}
    places: dict[str, torch.Tensor] = {}
    for group in adjoined_groups(core.model.language_model):
        weights = [linear.weight for linear in group]
        rows = [len(weight) for weight in weights]
        room = torch.empty(sum(rows), weights[0].shape[1], dtype=dtype, device=device)
        places |= dict(zip((names[weight] for weight in weights), room.split(rows), strict=True))
    return places


def _fill(
    core: nn.Module,
    names: list[str],
    key: str,
    tensor: torch.Tensor,
    dtype: torch.dtype,
    device: str,
    places: dict[str, torch.Tensor],
) -> str | None:
    """Put a copy of each part of ``tensor`` in its place; says what is wrong with its shape, if anything."""
    parts = split(key, tensor, len(names))
    shapes = [tuple(core.get_parameter(name).shape) for name in names]
    if [tuple(part.shape) for part in parts] != shapes:
        times = f"{len(names)} of " if len(names) > 1 else ""
        return f"is {_show(tensor.shape)}, not {times}{_show(shapes[0])}"
    for name, part in zip(names, parts, strict=True):
        kept = torch.float32 if name.startswith("model.vqmodel.") else dtype
        path, _, leaf = name.rpartition(".")
        # A copy even where dtype and device are right already: the file must be free to change or go.
        place = places.get(name)
        value = part.to(device=device, dtype=kept, copy=True).contiguous() if place is None else place.copy_(part)
        setattr(core.get_submodule(path), leaf, nn.Parameter(value))
    return None


def _show(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))


def _complain(name: str, **wrong: list[str]) -> None:
    """One error for all that is wrong."""
    parts = [
        f"{len(keys)} {kind} ({', '.join(keys[:SHOWN])}{', ...' if len(keys) > SHOWN else ''})"
        for kind, keys in wrong.items()
        if keys
    ]
    if parts:
        raise UserError(f"the weights of {name} do not fit its config: {'; '.join(parts)}")
