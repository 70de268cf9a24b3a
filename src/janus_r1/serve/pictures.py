"""Pictures over the wire: what clients send becomes pixels or a fault, what was drawn becomes base64."""

from __future__ import annotations

import base64
import binascii
import io
import json
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from janus_r1.images import MIN_SIDE, PADDING, square
from janus_r1.serve.answers import Fault, bad

FORMATS = ("PNG", "JPEG", "WEBP")  # no other decoder sees what a client sends
LONGEST_SIDE = 20_000


@dataclass(frozen=True)
class PictureLimits:
    """Of one picture that a client sends; all are checked before it is decoded."""

    max_bytes: int = 20_000_000
    max_pixels: int = 16_000_000
    fetch: bool = False
    """Whether http(s) addresses may be fetched. Not by default: a client could make the server call anyone."""


def read_picture(data: bytes, limits: PictureLimits, param: str) -> np.ndarray:
    """uint8 [H, W, 3], upright; transparency lies over white.

    Raises:
        Fault: 413 for a picture over the limits, 400 for anything that is none.
    """
    upright = ImageOps.exif_transpose(_decoded(data, limits, param))
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    elif upright.mode.startswith("I"):  # 16-bit grey, which Pillow would clip
        upright = Image.fromarray((np.asarray(upright, dtype=np.float64) / 257).clip(0, 255).astype(np.uint8))
    return np.array(upright.convert("RGB"))


def read_mask(data: bytes, limits: PictureLimits, param: str = "mask") -> np.ndarray:
    """Where the picture may change: bool [H, W], true where the mask is transparent.

    Raises:
        Fault: as :func:`read_picture`, and 400 for a mask without transparency.
    """
    image = _decoded(data, limits, param)
    if not ("A" in image.getbands() or "transparency" in image.info):
        raise bad("the mask has no alpha channel: make transparent what may change", param)
    return np.array(ImageOps.exif_transpose(image).convert("RGBA").getchannel("A")) < 128


def _decoded(data: bytes, limits: PictureLimits, param: str) -> Image.Image:
    """A picture within its limits; whatever Pillow raises becomes a fault."""
    if len(data) > limits.max_bytes:
        raise Fault(413, f"the picture has more than {limits.max_bytes} bytes", param=param, code="too_large")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, about sizes that are checked here
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_size(*image.size, limits.max_pixels, param)
            image.load()
            return image
        except Fault:
            raise
        except Exception:  # Pillow raises anything about a broken file
            formats = ", ".join(FORMATS)
            raise bad(f"not a whole picture that can be read ({formats})", param, "invalid_image") from None


def _check_size(width: int, height: int, max_pixels: int, param: str) -> None:
    if max(width, height) > LONGEST_SIDE or width * height > max_pixels:
        message = f"the picture is {width} x {height}, the limit is {max_pixels} pixels"
        raise Fault(413, message, param=param, code="too_large")
    if min(width, height) < MIN_SIDE:
        message = f"the picture is {width} x {height}: each side needs {MIN_SIDE} pixels"
        raise bad(message, param, "invalid_image")


def from_uri(value: Any, limits: PictureLimits, param: str) -> bytes:
    """The bytes of a data: URI, also inside ``{"image_url": ...}`` or ``{"url": ...}``.

    Raises:
        Fault: for anything else, http(s) addresses among it unless these may be fetched.
    """
    for _ in range(2):
        if isinstance(value, dict):
            value = value.get("image_url", value.get("url", value.get("b64_json")))
    if not isinstance(value, str):
        raise bad("send the picture as a data: URI", param)
    if value.startswith(("http://", "https://")):
        if not limits.fetch:
            raise bad("this server fetches nothing: send the picture as a data: URI", param, "url_not_allowed")
        return fetched(value, limits, param)
    head, comma, body = value.partition(",")
    if comma and not (head.startswith("data:image/") and head.endswith(";base64")):
        raise bad("not a data: URI of a picture: use data:image/png;base64,...", param)
    if len(body or head) > limits.max_bytes * 4 // 3 + 4:
        raise Fault(413, f"the picture has more than {limits.max_bytes} bytes", param=param, code="too_large")
    try:
        return base64.b64decode(body if comma else head, validate=True)
    except (binascii.Error, ValueError):
        raise bad("the picture is not base64", param, "invalid_base64") from None


def fetched(address: str, limits: PictureLimits, param: str) -> bytes:
    """What is at an address, read no further than the limit; only where the operator has allowed it.

    Raises:
        Fault: 400 where it cannot be had.
    """
    import httpx

    data = b""
    try:
        with httpx.stream("GET", address, timeout=10, follow_redirects=False) as answer:
            answer.raise_for_status()
            for piece in answer.iter_bytes():
                data += piece
                if len(data) > limits.max_bytes:
                    break
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError):
        raise bad("the picture could not be fetched", param, "not_fetched") from None
    return data


# ---------------------------------------------------------------------------------------------- answers


@dataclass(frozen=True)
class Output:
    """How pictures are sent back."""

    side: int | None = None
    """None: as drawn."""
    format: str = "png"
    compression: int = 100

    def encode(self, pixels: np.ndarray, about: dict[str, Any] | None = None) -> str:
        """Base64 of the picture. ``about`` goes into a PNG as text, where the other formats have no place for it."""
        image = Image.fromarray(pixels)
        if self.side and image.size != (self.side, self.side):
            image = image.resize((self.side, self.side), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        if self.format == "png":
            info = PngInfo()
            if about:
                info.add_itxt("janus-r1", json.dumps(about, ensure_ascii=False))
            image.save(buffer, "PNG", pnginfo=info, compress_level=1)
        else:
            image.save(buffer, self.format.upper(), quality=max(1, min(self.compression, 95)))
        return base64.b64encode(buffer.getvalue()).decode("ascii")


def masked(edited: np.ndarray, original: np.ndarray, editable: np.ndarray | None) -> np.ndarray:
    """``edited`` where the mask allows it, ``original`` elsewhere; both and the mask at the model's size."""
    if editable is None:
        return edited
    return np.where(editable[..., None], edited, original)


def fitted_mask(editable: np.ndarray, size: int) -> np.ndarray:
    """A mask [H, W] placed as :func:`janus_r1.images.square` places its picture: bool [size, size].

    The bars beside a picture that is not square may change.
    """
    grey = np.repeat(editable[..., None].astype(np.uint8) * 255, 3, axis=2)
    return square(grey, size)[..., 0] >= PADDING[0]
