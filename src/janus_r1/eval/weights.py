"""Scorers' weights: a folder, or a Hub id whose files are already here. Nothing is downloaded unasked."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError

from janus_r1.errors import UserError, first_line

WANTED = ("*.json", "*.safetensors", "*.txt", "*.model")  # no code and no pickles


class NotHere(UserError):
    """Weights that would have to be fetched first; the message is the command that does."""


def weights_folder(name: str, download: bool = False) -> Path:
    """Where the files of ``name`` lie, which is a folder or a Hub id.

    Raises:
        NotHere: if they are not on this machine and ``download`` is off.
        UserError: if they cannot be had.
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name, local_files_only=not download, allow_patterns=list(WANTED)))
    except HFValidationError:
        raise UserError(f"no such folder: {name}") from None
    except LocalEntryNotFoundError:
        patterns = " ".join(f'"{pattern}"' for pattern in WANTED)
        fetch = f"hf download {name} --include {patterns}"
        raise NotHere(f"the weights {name} are not on this machine: run `{fetch}`, or name a folder") from None
    except (OSError, HfHubHTTPError) as error:
        raise UserError(f"cannot download {name}: {first_line(error)}") from None


def load_model(kind: Any, folder: Path, **options: Any) -> Any:
    """``kind.from_pretrained(folder)`` in float32 with all of its weights: a random layer would give a score, too.

    Raises:
        UserError: if the folder is for another kind of model, is damaged, or lacks weights.
    """
    try:
        config, _ = kind.config_class.get_config_dict(folder)
        if config.get("model_type") != kind.config_class.model_type:
            raise UserError(f"{folder} holds a {config.get('model_type')} model, not {kind.config_class.model_type}")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot load the model in {folder}: {first_line(error)}") from None
    return load_auto(kind, folder, **options)


def load_auto(kind: Any, folder: Path, **options: Any) -> Any:
    """The same for a class that takes several kinds of model.

    Raises:
        UserError: as :func:`load_model`.
    """
    try:
        options = {"dtype": "float32", "use_safetensors": True, "trust_remote_code": False, **options}
        model, report = kind.from_pretrained(folder, output_loading_info=True, **options)
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot load the model in {folder}: {first_line(error)}") from None
    if missing := sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"])):
        raise UserError(f"{folder} lacks {len(missing)} of the model's weights, such as {missing[0]}")
    return model.eval()


def finite(values: torch.Tensor, who: str) -> torch.Tensor:
    """``values``, which must be numbers: NaN compares as false, and would count as "nothing seen".

    Raises:
        UserError: if they are not.
    """
    if not bool(torch.isfinite(values).all()):
        raise UserError(f"{who} answers with NaN or infinity: its weights are damaged, or its dtype is too small")
    return values


def revision(folder: Path) -> str:
    """What tells these weights from others: the Hub's commit, else a digest of the weights themselves."""
    if folder.parent.name == "snapshots":
        return folder.name
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return f"sha256:{digest.hexdigest()[:16]}"
