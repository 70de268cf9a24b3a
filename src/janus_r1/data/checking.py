"""From a finding to a record: images read, decoded and checked, texts and numbers held to what they must be.

What fails is dropped with its cause; nothing is ever replaced. This runs in worker processes and imports no torch.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from janus_r1.data.schemas import Found, claims_of
from janus_r1.data.store import Record
from janus_r1.errors import UserError, first_line
from janus_r1.images import decode_image, fingerprint

MAX_FILE = 200_000_000  # bytes of one image file
MAX_CHARACTERS = 4000
SPECIAL = ("<｜", "<|User|>", "<|Assistant|>", "<begin_of_image>", "<end_of_image>", "<image_placeholder>")


@dataclass(frozen=True)
class Dropped:
    """A row or an image that was left out."""

    cause: str
    """What is counted."""
    detail: str = ""
    """Where, and more of why."""


class _Drop(Exception):
    def __init__(self, cause: str, detail: str = "") -> None:
        super().__init__(cause)
        self.cause, self.detail = cause, detail


@dataclass(frozen=True)
class Rules:
    """What an import asks of every row."""

    roots: tuple[Path, ...] = ()
    """Folders that images may lie in, beside that of the file that names them and its parent."""
    score_scale: float = 1.0
    """Scores are divided by it: 10 for ratings of up to 10."""
    max_side: int = 0
    """Larger images are shrunk to this longest side (pixels) and stored as PNG; 0 keeps every file as it is."""
    source: str = ""
    """Where images come from, for rows that do not say."""
    licence: str = ""
    """For rows that do not say."""


def check(found: Found, base: Path, where: str, rules: Rules) -> Record | Dropped:
    """A finding as a record, or why not."""
    try:
        image, pixels = _picture(found.image, base, rules, "image")
        source = None
        if found.source_image is not None:
            source = _picture(found.source_image, base, rules, "source image")[0]
        score = _score(found.score, rules.score_scale)
        return Record(
            id=_text(found.id, "id", needed=True)[:200],
            prompt=_text(found.prompt, "prompt", needed=True),
            image=image,
            score=score,
            reason=_reason(_text(found.reason, "reason"), score),
            claims=_claims(found.claims),
            source_image=source,
            repair_of=_text(found.repair_of, "id")[:200],
            source=_text(found.source, "source")[:200] or rules.source,
            licence=_text(found.licence, "licence")[:200] or rules.licence,
            sha256=fingerprint(pixels),
            width=pixels.shape[1],
            height=pixels.shape[0],
            extra=found.extra,
        )
    except _Drop as drop:
        return Dropped(drop.cause, f"{where}: {drop.detail or drop.cause}")


# ------------------------------------------------------------------------------------------ images


def _picture(value: Any, base: Path, rules: Rules, role: str) -> tuple[bytes, np.ndarray]:
    """An image's file and its pixels, uint8 [H, W, 3]."""
    data = _bytes(value, base, rules, role)
    try:
        pixels = decode_image(data, f"the {role}")
    except UserError as error:
        raise _Drop(_cause(str(error), role), str(error)) from None
    if rules.max_side and max(pixels.shape[:2]) > rules.max_side:
        picture = Image.fromarray(pixels)
        picture.thumbnail((rules.max_side, rules.max_side), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        return stream.getvalue(), np.asarray(picture)
    return data, pixels


def _cause(said: str, role: str) -> str:
    for word in ("too large", "too small", "broken", "not an image"):
        if word in said:
            return f"{role} is {word}"
    return f"{role} cannot be read"


def _bytes(value: Any, base: Path, rules: Rules, role: str) -> bytes:
    """Of what a row holds for an image: bytes, Hugging Face's {bytes, path}, or a path."""
    if isinstance(value, dict):
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, str) and value.strip():
        value = _file(value.strip(), base, rules, role)
    if not isinstance(value, bytes) or not value:
        raise _Drop(f"{role} is missing")
    return value


def _file(name: str, base: Path, rules: Rules, role: str) -> bytes:
    """A file inside the folders that a row may point into.

    A folder from elsewhere could name any file of this machine; so paths that leave it are not followed.
    """
    if name.startswith(("http://", "https://", "data:")):
        raise _Drop(f"{role} is an address: download it first", name[:80])
    roots = [*rules.roots, base, base.parent]
    try:
        places = [(root / name) for root in roots]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise _Drop(f"{role} is missing: no such file", name[:200])
        inside = any(found.resolve().is_relative_to(root.resolve()) for root in roots)
        if not inside:
            raise _Drop(f"{role} lies outside the folder: pass its own with images", name[:200])
        if found.stat().st_size > MAX_FILE:
            raise _Drop(f"{role} is too large", f"{name[:200]} has {found.stat().st_size} bytes")
        return found.read_bytes()
    except (OSError, ValueError) as error:
        raise _Drop(f"{role} cannot be read", f"{name[:200]}: {first_line(error)}") from None


# ------------------------------------------------------------------------------- texts and numbers


def _text(value: Any, name: str, needed: bool = False) -> str:
    """Plain text of one line, without what a terminal or a tokenizer would obey."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        value = ""
    if isinstance(value, int | float) and name == "id":
        value = str(value)
    if not isinstance(value, str):
        raise _Drop(f"{name} is not text", f"{name}: {str(value)[:80]!r}")
    if any(0xD800 <= ord(c) <= 0xDFFF for c in value):
        raise _Drop(f"{name} is not UTF-8")
    text = " ".join("".join(c if c.isprintable() or c.isspace() else " " for c in value).split())
    if needed and not text:
        raise _Drop(f"{name} is empty")
    if len(text) > MAX_CHARACTERS:
        raise _Drop(f"{name} is too long", f"{name} of {len(text)} characters; the limit is {MAX_CHARACTERS}")
    if any(token in text for token in SPECIAL):
        raise _Drop(f"{name} contains a special token")
    return text


def _score(value: Any, scale: float) -> float | None:
    """In [0, 1]; a number outside is a mistake, and none is no zero."""
    if value is None or value == "":
        return None
    try:
        score = float(value) / scale
    except (TypeError, ValueError, OverflowError):
        raise _Drop("score is not a number", f"score {str(value)[:40]!r}") from None
    if not (math.isfinite(score) and 0.0 <= score <= 1.0):
        raise _Drop("score is outside [0, 1]", f"score {score:g}: say what the largest is with score_scale")
    return score


def _reason(text: str, score: float | None) -> str:
    """A reason begins with its verdict, as the model is to say it."""
    if not text or text.split()[0].strip(".,:;!").casefold() in ("yes", "no"):
        return text
    if score is None:
        return text
    return f"{'Yes' if score >= 0.5 else 'No'}, {text}"


def _claims(value: Any) -> tuple[Any, ...]:
    try:
        claims = claims_of(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise _Drop("claims cannot be read", f"claims: {first_line(error)}") from None
    for claim in claims:
        _text(claim.text, "claim", needed=True)
    return claims
