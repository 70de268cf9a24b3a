"""LoRA adapters in peft's format as models of their own: loaded over the base that they name, and merged into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from janus_r1.errors import UserError, first_line
from janus_r1.model.janus import Janus
from janus_r1.model.matrices import adjoin
from janus_r1.reading import read_json_object

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and not (folder / "config.json").exists()


def base_of(folder: Path) -> str:
    """The model that an adapter belongs to: an embedded name, a Hub id or a folder, perhaps beside the adapter.

    Raises:
        UserError: if it names none, or a folder that is not here.
    """
    named = read_json_object(folder / CONFIG).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise UserError(
            f"{folder} is a LoRA adapter that does not name its base: set base_model_name_or_path in {CONFIG}"
        )
    beside = folder / named
    if not Path(named).exists() and beside.is_dir():
        return str(beside)
    if not Path(named).exists() and (Path(named).is_absolute() or named.startswith(".") or named.count("/") > 1):
        raise UserError(f"{folder} is a LoRA adapter of {named}, which is not here: put its path into {CONFIG}")
    return named


@torch.no_grad()
def merge(core: Any, folder: Path) -> Any:
    """``core`` with the adapter in ``folder`` added to its weights; parts trained whole are put in place.

    Raises:
        UserError: without peft, for an adapter whose weights are no safetensors, or one of another model.
    """
    try:
        import peft
    except ImportError:
        raise UserError(f"{folder} is a LoRA adapter, which needs peft: pip install 'janus-r1[lora]'") from None
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} is a LoRA adapter without {WEIGHTS}; other formats can run code and are not read")
    try:
        wrapped = peft.PeftModel.from_pretrained(core, str(folder), torch_device=str(core.device))
        return wrapped.merge_and_unload(safe_merge=True)
    except (ValueError, KeyError, RuntimeError, TypeError, OSError) as error:
        raise UserError(f"the adapter {folder} does not fit its base: {first_line(error)}") from None


def merge_into(janus: Janus, folder: Path) -> None:
    """:func:`merge` for a model that is wrapped already; its matrices then stand side by side again.

    Raises:
        UserError: as :func:`merge`.
    """
    janus.core = merge(janus.core, folder).eval()
    adjoin(janus.language)


def insert(janus: Janus, config: Any) -> Any:
    """Fresh adapters as peft's ``config`` says, put into the modules of ``janus``; peft's model around them."""
    import peft

    return peft.get_peft_model(janus.core, config)
