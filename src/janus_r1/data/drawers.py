"""Who draws the images of ``janus-r1 data make``: a Janus model here, an images server, or a store of images.

A drawer answers with one image file a prompt, or with why there is none; it never raises for a single prompt.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

from janus_r1.chain import Settings
from janus_r1.data.store import Store
from janus_r1.engine.decoder import Decoder
from janus_r1.engine.sampling import DRAW, uniforms
from janus_r1.errors import UserError
from janus_r1.images import decode_image
from janus_r1.introspect import first_drafts
from janus_r1.model.janus import Janus
from janus_r1.rewards.chat import Chat
from janus_r1.rewards.score import Abstained

IMAGES = "images/generations"  # the route of an images server


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
    try:
        text = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        text = None
    if not isinstance(text, str) or not text.strip():
        return Abstained(f"bad answer: no text in {json.dumps(answer)[:60]}")
    return " ".join(text.rpartition("</think>")[2].split())
