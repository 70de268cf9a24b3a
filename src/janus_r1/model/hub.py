"""A Hub id -> a local folder, holding only what is read: json, tokenizer and weights; no code."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download

from janus_r1.errors import UserError, first_line

PLAIN = ["*.json", "tokenizer*.model", "tokenizer.model"]


def snapshot(name: str) -> Path:
    """Download ``owner/name`` (or find it in the cache); pickled weights only where there are no others.

    Raises:
        UserError: if it does not exist, is gated, or cannot be reached.
    """
    try:
        folder = Path(snapshot_download(name, allow_patterns=[*PLAIN, "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*PLAIN, "*.bin"]))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot get the model {name} from the Hub: {first_line(error)}") from None
    return folder
