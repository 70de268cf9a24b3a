"""What clients send and get: OpenAI's contracts, and our own fields beside them.

Unknown fields are passed over, since clients send more every year. ``null`` means the default.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

MAX_PROMPT = 4000  # characters
MAX_IMAGES = 10  # of one request
MAX_CANDIDATES = 8  # chains an image is the best of
MAX_ROUNDS = 8
MIN_SIDE, MAX_SIDE = 16, 2048
SIZE = re.compile(r"([0-9]{1,5})[xX]([0-9]{1,5})")

# quality -> (rounds, candidates); rounds None are the server's default
QUALITY: dict[str, tuple[int | None, int]] = {
    "low": (1, 1),
    "standard": (None, 1),
    "medium": (None, 1),
    "auto": (None, 1),
    "hd": (None, 4),
    "high": (None, 4),
    "xhigh": (None, 6),
    "max": (None, 8),
}
QUALITY_NAMES = {"standard": "medium", "hd": "high", "auto": "medium"}  # what is said in the answer


def _no_surrogates(value: Any) -> Any:
    """JSON can spell half of a character, which no tokenizer takes."""
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("holds half of a surrogate pair: send whole characters") from None
    return value


Text = Annotated[str, BeforeValidator(_no_surrogates)]
Seed = Annotated[int, Field(ge=-1, le=2**32 - 1)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Heat = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class Lenient(BaseModel):
    """Unknown fields are passed over; ``null`` stands for a field's default."""

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {key: value for key, value in values.items() if value is not None}
        return values


class Knobs(Lenient):
    """How a chain is drawn; sent with the ``openai`` client as ``extra_body``."""

    seed: Seed | None = Field(
        None, description="Of the first image; each further one has the next. Drawn by lot if missing or -1"
    )
    rounds: int | None = Field(None, ge=1, le=MAX_ROUNDS, description="Most drafts of a chain; wins over `quality`")
    candidates: int | None = Field(
        None, ge=1, le=MAX_CANDIDATES, description="Chains an image is the best of, by the model's own p_yes"
    )
    redraw: Literal["auto", "repair", "again"] | None = Field(
        None, description="After a No, where the model's format is `repair`: mend as it says, always, or draw anew"
    )
    repair_from: Literal["last", "best"] | None = Field(None, description="The draft that is mended")
    repair_most: int | None = Field(None, ge=1, description="With more marks No than this a draft is drawn anew")
    repair_temperature: Heat | None = None
    guidance: float | None = Field(None, ge=1, le=100, allow_inf_nan=False, description="1 turns it off")
    temperature: Heat | None = None
    top_k: Count | None = None
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    text_temperature: Heat | None = None
    text_top_k: Count | None = None
    max_reason_tokens: int | None = Field(None, ge=1, le=512, description="Longest verdict")
    max_list_tokens: int | None = Field(None, ge=1, le=512, description="Longest list before it, where there is one")
    history: Literal["full", "last"] | None = None
    final: Literal["last", "best"] | None = None
    early_stop: bool | None = Field(None, description="Stop a chain at its first Yes")
    return_all_rounds: bool = Field(False, description="Every draft as b64_json in `x_rounds`")
    trace: bool = Field(False, description="What was thought of every draft, in `x_trace`")
    metadata: bool = Field(True, description="Prompt, seed and model in the PNG's text")


class ImageRequest(Knobs):
    """POST /v1/images/generations."""

    prompt: Text = Field(min_length=1, max_length=MAX_PROMPT)
    model: Text | None = Field(None, max_length=200)
    n: int = Field(1, ge=1, le=MAX_IMAGES)
    size: str = Field("auto", max_length=20, description="`auto` is the native size; another square is resized")
    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] = "auto"
    background: Literal["auto", "opaque", "transparent"] = "auto"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: int = Field(100, ge=0, le=100)
    response_format: Literal["b64_json", "url"] = Field("b64_json", description="`url` is answered by a data: URL")
    stream: bool = False
    partial_images: int | None = Field(
        None, ge=0, le=MAX_ROUNDS, description="Rounds shown while streaming; all if missing"
    )

    @field_validator("prompt")
    @classmethod
    def _says_something(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("is empty: say what to draw")
        return prompt

    @field_validator("background")
    @classmethod
    def _opaque(cls, background: str) -> str:
        if background == "transparent":
            raise ValueError("this model draws opaque pictures only: use auto or opaque")
        return background

    @field_validator("size")
    @classmethod
    def _square(cls, size: str) -> str:
        parse_size(size)
        return size

    @property
    def side(self) -> int | None:
        """Pixels a side; None for the native size."""
        return parse_size(self.size)


class EditRequest(ImageRequest):
    """POST /v1/images/edits, as JSON; multipart has the same fields, with files in place of ``image`` and ``mask``."""

    image: Any = Field(None, description="A data: URI, {image_url: data URI}, or a list of one such")
    images: Any = Field(None, description="The same, as newer clients name it")
    mask: Any = Field(None, description="A data: URI of a picture whose transparent parts may change")
    input_fidelity: str | None = Field(None, max_length=20)


def parse_size(size: str) -> int | None:
    """Pixels a side of ``auto`` (None) or ``WxH``.

    Raises:
        ValueError: for anything else, sizes that are not square, too small or too large.
    """
    if size == "auto":
        return None
    match = SIZE.fullmatch(size)
    if not match:
        raise ValueError("use auto or WIDTHxHEIGHT")
    width, height = int(match[1]), int(match[2])
    if width != height:
        raise ValueError("this model draws squares only: use auto or equal sides")
    if not MIN_SIDE <= width <= MAX_SIDE:
        raise ValueError(f"a side has {MIN_SIDE} to {MAX_SIDE} pixels")
    return width


class ChatRequest(Lenient):
    """POST /v1/chat/completions: the model as a judge. ``messages`` stay as they are: many spellings are taken."""

    messages: list[dict[str, Any]] = Field(min_length=1, max_length=64)
    model: Text | None = Field(None, max_length=200)
    n: int = Field(1, ge=1, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: Heat | None = None
    top_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    seed: Seed | None = None
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=20)
    stream: bool = False
    stream_options: dict[str, Any] | None = None
