"""A real HTTP server that plays a chat endpoint: right, slow, broken or lying, as a test tells it."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import math
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

from janus_r1.chain import Task
from janus_r1.rewards.chat import Chat, Patience
from janus_r1.rewards.endpoint import EndpointReward
from janus_r1.rewards.score import Item

QUICK = Patience(tries=3, timeout_s=5, backoff_s=0.001)
Behaviour = Callable[["Call"], None]


class Call(BaseHTTPRequestHandler):
    """One request, with ways to answer it."""

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.owner.handle(self)

    def log_message(self, *args: Any) -> None:
        pass

    def images(self) -> list[np.ndarray]:
        content = self.body["messages"][0]["content"]
        urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
        data = [base64.b64decode(url.removeprefix("data:image/png;base64,"), validate=True) for url in urls]
        return [np.array(Image.open(io.BytesIO(png))) for png in data]

    def question(self) -> str:
        content = self.body["messages"][0]["content"]
        return content if isinstance(content, str) else content[-1]["text"]

    def reply(self, data: bytes | str, status: int = 200, length: int | None = None, **headers: str) -> None:
        data = data.encode() if isinstance(data, str) else data
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client may have gone
            self.wfile.write(data)

    def say(self, text: str) -> None:
        self.reply(json.dumps({"choices": [{"message": {"content": text}}]}))

    def probabilities(self, **tokens: float) -> None:
        self.logprobs({token: math.log(p) if p else -9999.0 for token, p in tokens.items()})

    def logprobs(self, tokens: dict[str, Any]) -> None:
        top = [{"token": token, "logprob": value} for token, value in tokens.items()]
        self.reply(json.dumps({"choices": [{"logprobs": {"content": [{"token": "?", "top_logprobs": top}]}}]}))


class Endpoint:
    """Behaviours are played in turn, the last one for ever; ``calls`` are the requests so far."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behaviours, self.calls, self.lock = list(behaviours), [], threading.Lock()
        self.closing = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Call)
        self.server.daemon_threads, self.server.owner = True, self
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self) -> Endpoint:
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def handle(self, call: Call) -> None:
        with self.lock:
            behaviour = self.behaviours[min(len(self.calls), len(self.behaviours) - 1)]
            self.calls.append(call)
        behaviour(call)


def by_brightness(call: Call) -> None:
    """P(yes) is the first pixel's red / 255."""
    p = float(call.images()[-1][0, 0, 0]) / 255
    call.probabilities(yes=p, no=1 - p)


def failing(status: int, text: str = "", **headers: str) -> Behaviour:
    return lambda call: call.reply(text, status, **headers)


def stall(call: Call) -> None:
    call.server.owner.closing.wait()


def drip(call: Call) -> None:
    """A byte at a time, each soon enough for the socket's own timeout."""
    call.send_response(200)
    call.end_headers()
    with contextlib.suppress(OSError):
        while not call.server.owner.closing.wait(0.02):
            call.wfile.write(b" ")


def hang_up(call: Call) -> None:
    call.close_connection = True
    call.connection.shutdown(2)


# --------------------------------------------------------------------------- what is sent to it


def grey(value: int, side: int = 4) -> np.ndarray:
    return np.full((side, side, 3), value, dtype=np.uint8)


def item(value: int = 100, prompt: str = "a red circle") -> Item:
    return (Task(prompt), grey(value))


def reward(server: Endpoint, patience: Patience = QUICK, api_key: str | None = None, **options) -> EndpointReward:
    return EndpointReward(Chat(server.url, "judge", api_key, patience), **options)


def score_once(*behaviours, patience: Patience = QUICK, api_key: str | None = None):
    """The score of one item, and how many calls it took."""
    with Endpoint(*behaviours) as server:
        (score,) = reward(server, patience, api_key).score([item()])
        return score, len(server.calls)
