"""A server of the tiny random model in a thread, on a free port, and clients of it."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from openai import OpenAI
from PIL import Image

from janus_r1.api import JanusR1
from janus_r1.serve.app import create_app
from janus_r1.serve.house import House
from janus_r1.serve.limits import Defaults, Limits
from janus_r1.serve.scheduler import Scheduler
from janus_r1.serve.server import Server, bind, server

PROMPT = "a red circle left of a blue square"


@dataclass
class Running:
    """A server, and what it is made of."""

    house: House
    app: FastAPI
    address: str
    server: Server
    thread: threading.Thread

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    def client(self, **options: Any) -> OpenAI:
        """The unchanged client; it does not try again unless told to."""
        options = {"api_key": "none", "max_retries": 0, "timeout": 60.0} | options
        return OpenAI(base_url=f"{self.address}/v1", **options)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        if body is not None:
            options["json"] = body
        return httpx.post(f"{self.address}{path}", timeout=60, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(f"{self.address}{path}", timeout=60, **options)

    def raw(self, data: bytes, seconds: float = 5.0) -> bytes:
        """What comes back for these bytes until the server hangs up or is silent for so long."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            connection.sendall(data)
            answer = b""
            with contextlib.suppress(TimeoutError, ConnectionError):
                while piece := connection.recv(65536):
                    answer += piece
            return answer

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


def start(
    model: JanusR1,
    limits: Limits | None = None,
    mount: Callable[[FastAPI, House], Any] | None = None,
    **options: Any,
) -> Running:
    """A server that listens when this returns; ``mount`` adds to its application before."""
    scheduling = {name: options.pop(name) for name in ("max_batch", "max_waiting", "linger_s") if name in options}
    scheduler = Scheduler({"tiny": model}, **({"linger_s": 0.0} | scheduling))
    defaults = options.pop("defaults", Defaults(rounds=2))
    house = House(scheduler, limits or Limits(), defaults, **options)
    listening = bind("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    app = create_app(house)
    if mount:
        mount(app, house)
    running = server(app, drain_s=20)
    thread = threading.Thread(target=running.run, args=([listening],), daemon=True)
    thread.start()
    assert running.ready.wait(20)
    return Running(house, app, address, running, thread)


@contextlib.contextmanager
def serving(model: JanusR1, limits: Limits | None = None, **options: Any) -> Iterator[Running]:
    """The same, ended with the block."""
    running = start(model, limits, **options)
    try:
        yield running
    finally:
        running.stop()


def severe(model: JanusR1) -> JanusR1:
    """The same model, which says No where it said Yes: its chains have several rounds."""
    special, weight = model.model.layout.special, model.model.core.lm_head.weight.data
    weight[[special.yes, special.no]] = weight[[special.no, special.yes]]
    return model


def pixels_of(b64: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(b64))).convert("RGB"))


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def data_uri(pixels: np.ndarray) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"


def picture(side: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def sent_events(text: str) -> list[dict[str, Any]]:
    """The events of a stream, [DONE] left out."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]
