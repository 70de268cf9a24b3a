"""Who draws the images of ``janus-r1 data make``: a Janus model or a diffusers pipeline here, an images server, or a
store of images.

A drawer answers with one image file a prompt, or with why there is none; it never raises for a single prompt.
"""

from __future__ import annotations

import base64
import binascii
import inspect
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from janus_r1.chain import Settings
from janus_r1.data.store import Store
from janus_r1.engine.decoder import Decoder
from janus_r1.engine.sampling import DRAW, uniforms
from janus_r1.errors import UserError, first_line
from janus_r1.images import decode_image
from janus_r1.introspect import first_drafts
from janus_r1.model.janus import Janus
from janus_r1.rewards.chat import Chat
from janus_r1.rewards.questions import text_of
from janus_r1.rewards.score import Abstained

IMAGES = "images/generations"  # the route of an images server
DTYPES = ("auto", "float32", "bfloat16", "float16")  # of a pipeline


@dataclass(frozen=True)
class Order:
    """One image that is wanted."""

    prompt: str
    number: int
    """Of the prompt, over the whole build: random numbers follow from it."""
    copy: int
    """0 for the first image of this prompt by this drawer."""


Drawn = tuple[Order, bytes | Abstained]


class Drawer(Protocol):
    """``name`` becomes the source of its images."""

    name: str

    def draw(self, orders: Sequence[Order]) -> Iterator[Drawn]:
        """In whatever order they are done, so that each can be kept at once."""
        ...


class JanusDrawer:
    """First drafts of a Janus model."""

    def __init__(self, model: Janus, name: str, settings: Settings, batch: int = 32) -> None:
        self.model, self.name, self.settings, self.batch = model, name, settings, batch
        self.decoder = Decoder(model)

    def draw(self, orders: Sequence[Order]) -> Iterator[Drawn]:
        for start in range(0, len(orders), self.batch):
            part = orders[start : start + self.batch]
            yield from zip(part, self._batch(part), strict=True)

    def _batch(self, orders: Sequence[Order]) -> list[bytes]:
        """An image does not depend on its batch: its random numbers belong to its prompt's number and its copy."""
        openings = [self.model.layout.opening(order.prompt) for order in orders]
        rows = [
            uniforms(self.settings.seed, [order.number], order.copy, DRAW, self.model.image_tokens) for order in orders
        ]
        ids = first_drafts(self.decoder, openings, torch.cat(rows), self.settings.guidance, self.settings.temperature)
        return [png(pixels) for pixels in self.model.decode_image(ids)]


class DiffusersDrawer:
    """A pipeline of diffusers; whatever it takes beside prompts and generators stands in ``options``.

    Raises:
        UserError: for options that it does not take; while drawing, for values that it refuses.
    """

    def __init__(self, pipeline: Any, name: str, options: Mapping[str, Any], batch: int = 4, seed: int = 0) -> None:
        known = set(inspect.signature(pipeline).parameters)  # some pass over, without a word, what they do not know
        if unknown := sorted(set(options) - known):
            raise UserError(f"the pipeline {name} takes no {', '.join(unknown)}: see options")
        self.pipeline, self.name, self.options = pipeline, name, dict(options)
        self.batch, self.seed = batch, seed

    @classmethod
    def load(
        cls, model: str, name: str, options: Mapping[str, Any], dtype: str, device: str, batch: int = 4, seed: int = 0
    ) -> DiffusersDrawer:
        """``model`` is a folder or a Hub id, with safetensors; no code of its own is run.

        Raises:
            UserError: if diffusers is not installed, or the pipeline cannot be loaded.
        """
        try:
            from diffusers import DiffusionPipeline
        except ImportError:
            raise UserError("drawers of the kind diffusers need it: pip install 'janus-r1[diffusers]'") from None
        if dtype not in DTYPES:
            raise UserError(f"unknown dtype {dtype!r}: choose {', '.join(DTYPES)}")
        chosen = {} if dtype == "auto" else {"torch_dtype": getattr(torch, dtype)}
        try:
            pipeline = DiffusionPipeline.from_pretrained(
                model, use_safetensors=True, trust_remote_code=False, **chosen
            ).to(device)
        except Exception as error:  # a pipeline's files are the user's, and anything may be wrong with them
            raise UserError(f"cannot load the pipeline {model}: {first_line(error)}") from None
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline, name, options, batch, seed)

    def draw(self, orders: Sequence[Order]) -> Iterator[Drawn]:
        for start in range(0, len(orders), self.batch):
            part = orders[start : start + self.batch]
            yield from zip(part, self._batch(part), strict=True)

    def _batch(self, orders: Sequence[Order]) -> list[bytes | Abstained]:
        """The random numbers of an image belong to its prompt's number and its copy."""
        seeds = [self.seed + order.number * 1009 + order.copy for order in orders]
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        try:
            made = self.pipeline(prompt=[order.prompt for order in orders], generator=generators, **self.options)
            images = [np.asarray(image.convert("RGB")) for image in made.images]
        except (TypeError, ValueError) as error:
            raise UserError(f"the pipeline {self.name}: {first_line(error)}: see options") from None
        except RuntimeError as error:
            return [Abstained(f"the pipeline failed: {first_line(error)}")] * len(orders)
        flagged = getattr(made, "nsfw_content_detected", None) or [False] * len(images)
        return [
            Abstained("blacked out by the pipeline's safety checker") if hidden else png(image)
            for image, hidden in zip(images, flagged, strict=True)
        ]


class ServerDrawer:
    """An OpenAI-compatible images server: ``POST /v1/images/generations``, answered with ``b64_json``."""

    def __init__(self, chat: Chat, name: str, size: str = "", concurrency: int = 8, seed: int = 0) -> None:
        self.chat, self.name, self.size, self.seed = chat, name, size, seed
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix=name)

    def draw(self, orders: Sequence[Order]) -> Iterator[Drawn]:
        futures = {self._pool.submit(self._one, order): order for order in orders}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            for future in futures:
                future.cancel()

    def _one(self, order: Order) -> bytes | Abstained:
        body: dict[str, Any] = {"prompt": order.prompt, "n": 1, "response_format": "b64_json"}
        body |= {"size": self.size} if self.size else {}
        body["seed"] = self.seed + order.number * 1009 + order.copy  # servers that know none pass it over
        answer = self.chat.complete(body)
        if isinstance(answer, Abstained):
            return answer
        try:
            data = base64.b64decode(answer["data"][0]["b64_json"], validate=True)
        except (KeyError, IndexError, TypeError, binascii.Error):
            return Abstained("bad answer: no b64_json image")
        try:
            decode_image(data, "the image")
        except UserError as error:
            return Abstained(f"bad image: {error}")
        return data


class StoreDrawer:
    """Images that exist already, in a store of ``data import``; several of a prompt are taken in turn."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.store = name, Store(folder)
        self.rows: dict[str, list[int]] = {}
        row = 0
        for batch in self.store.columns(["prompt", "source_image.path"]):
            for prompt, source in zip(*batch.to_pydict().values(), strict=True):
                if source is None or source["path"] is None:
                    self.rows.setdefault(prompt, []).append(row)
                row += 1

    def draw(self, orders: Sequence[Order]) -> Iterator[Drawn]:
        for order in orders:
            own = self.rows.get(order.prompt, [])
            known = order.copy < len(own)
            yield (
                order,
                self.store[own[order.copy]].image if known else Abstained("no image of the prompt in the store"),
            )


def png(pixels: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def lengthen(chat: Chat, prompt: str) -> str | Abstained:
    """A prompt written longer by a language model, as the paper does; what it asks for stays."""
    asked = (
        "Rewrite the description of an image so that it is more detailed, in one or two sentences. Keep every object, "
        f"number, colour and relation as it is. Reply with the description only.\n\nDescription: {prompt}"
    )
    answer = chat.complete({"messages": [{"role": "user", "content": asked}], "max_tokens": 256, "temperature": 0})
    if isinstance(answer, Abstained):
        return answer
    text = text_of(answer)
    if text is None or not text.strip():
        return Abstained(f"bad answer: no text in {json.dumps(answer)[:60]}")
    return " ".join(text.rpartition("</think>")[2].split())
