"""The models of a server: one, and copies of it with LoRA adapters merged in, each under its own name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from janus_r1.api import JanusR1
from janus_r1.errors import UserError, require
from janus_r1.model.adapters import CONFIG, WEIGHTS, merge_into
from janus_r1.model.matrices import refuse

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def served_name(model: str) -> str:
    """What clients call a model: an embedded model's name, a Hub id, or the name of a folder."""
    folder = Path(model)
    return folder.resolve().name if folder.is_dir() else model


def adapter_folders(given: Sequence[str]) -> dict[str, Path]:
    """``name=folder`` -> folders by name.

    Raises:
        UserError: for anything else, for names twice, and for folders that do not hold an adapter as safetensors.
    """
    folders: dict[str, Path] = {}
    for item in given:
        name, equals, folder = item.partition("=")
        require(bool(equals and NAME.fullmatch(name)), f"adapter {item!r}: write it as name=folder")
        require(name not in folders, f"two adapters are called {name}: give each a name of its own")
        path = Path(folder)
        if not (path / WEIGHTS).is_file() or not (path / CONFIG).is_file():
            raise UserError(f"{folder} is not a LoRA folder: it needs {CONFIG} and {WEIGHTS}")
        folders[name] = path
    return folders


def load_all(model: str, dtype: str, device: str, kv: str, adapters: Sequence[str]) -> dict[str, JanusR1]:
    """The model under its own name first, then one for every adapter.

    An adapter's model is a whole copy, which costs the model's memory once more; in return a request for it is as fast
    as one for the base, and its rows may be cut off from no cache.

    Raises:
        UserError: for models and adapters that cannot be loaded.
    """
    folders = adapter_folders(adapters)
    name = served_name(model)
    require(name not in folders, f"an adapter must not be called {name}, as the model is")
    loaded = {name: JanusR1.from_pretrained(model, dtype=dtype, device=device, kv=kv)}
    for adapter, folder in folders.items():
        loaded[adapter] = _merged(JanusR1.from_pretrained(model, dtype=dtype, device=device, kv=kv), folder)
    return loaded


def _merged(model: JanusR1, folder: Path) -> JanusR1:
    refuse(model.model)  # rounded weights cannot be added to
    merge_into(model.model, folder)
    return model
