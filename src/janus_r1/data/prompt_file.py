"""Prompts of the user's own: a text file or JSONL."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from janus_r1.errors import UserError


def read_prompts(name: str) -> list[str]:
    """Prompts of a file (``-``: standard input), one a line; blank lines and ``#`` comments are skipped.

    Lines of a ``.jsonl`` file are objects with a ``prompt``.

    Raises:
        UserError: if the file is missing, is not text, holds no prompt, or a line that is none.
    """
    filled = [(number, line.strip()) for number, line in enumerate(_text(name).splitlines(), 1) if line.strip()]
    if name.endswith(".jsonl"):
        prompts = [_parse(line, f"{name}, line {number}") for number, line in filled]
    else:
        prompts = [line for _, line in filled if not line.startswith("#")]
    if not prompts:
        raise UserError(f"{name} holds no prompt: write one a line")
    return prompts


def _text(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"no such prompt file: {name}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the prompt file {name}: {error}") from None


def _parse(line: str, place: str) -> str:
    try:
        prompt = json.loads(line)["prompt"]
    except (ValueError, TypeError, KeyError):
        prompt = None
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError(f'{place}: expected an object like {{"prompt": "a red circle"}}')
    return prompt
