"""What a server refuses, how it stays bounded, and how it ends."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from janus_r1.api import JanusR1
from janus_r1.serve import server as http
from janus_r1.serve.limits import Limits
from janus_r1.serve.pictures import PictureLimits
from serve_house import PROMPT, pixels_of, serving, start

GENERATE = "/v1/images/generations"


@pytest.fixture(scope="module")
def model(tiny_folder) -> JanusR1:
    return JanusR1.from_pretrained(str(tiny_folder))


@pytest.fixture(scope="module")
def running(model):
    pictures = PictureLimits(max_bytes=200_000, max_pixels=1_000_000)
    with serving(model, Limits(max_body=300_000, body_s=1.0, pictures=pictures)) as house:
        yield house


def is_fault(answer: httpx.Response, status: int) -> bool:
    """Whether it is OpenAI's shape with this status."""
    error = answer.json()["error"]
    return answer.status_code == status and set(error) == {"message", "type", "param", "code"}


# --------------------------------------------------------------------------------------- queue and clients


def test_a_full_queue_says_when_to_come_back(model):
    with serving(model, max_waiting=2) as running:
        hold(running)
        with pytest.raises(openai.APIStatusError) as full:
            running.client().images.generate(prompt=PROMPT, n=3)
        assert full.value.status_code == 503 and full.value.code == "queue_full"
        assert int(full.value.response.headers["retry-after"]) >= 1
        release(running)
        assert running.client(max_retries=2).images.generate(prompt=PROMPT).data


def test_one_client_cannot_take_all(model):
    with serving(model, Limits(per_client=2)) as running:
        with pytest.raises(openai.RateLimitError) as refused:
            running.client().images.generate(prompt=PROMPT, n=3)
        assert "retry-after" in refused.value.response.headers
        assert len(running.client().images.generate(prompt=PROMPT, n=2, quality="low").data) == 2
        assert not running.house.clients._held  # all was given back


def hold(running) -> None:
    """The model's thread stops at the next boundary until :func:`release`."""
    running.go_on = threading.Event()
    running.house.scheduler.at_boundary(lambda: running.go_on.wait(20), lambda error: None)


def release(running) -> None:
    running.go_on.set()


def until(condition, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_leaves_the_queue(model, stream):
    with serving(model) as running:
        hold(running)
        body = json.dumps({"prompt": PROMPT, "stream": stream}).encode()
        head = f"POST {GENERATE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            until(lambda: running.house.scheduler.waiting == 1)
        until(lambda: running.house.scheduler.waiting == 0)
        release(running)
        assert running.house.scheduler.counts.cancelled == 1
        until(lambda: not running.house.clients._held)
        assert running.client().images.generate(prompt=PROMPT, quality="low").data


def test_a_stop_finishes_what_was_accepted(model):
    running = start(model)
    hold(running)
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(running.client().images.generate, prompt=PROMPT, n=1, extra_body={"seed": s}) for s in range(4)
        ]
        until(lambda: running.house.scheduler.waiting == 4)
        running.server.should_exit = True
        time.sleep(0.3)
        with pytest.raises(httpx.TransportError):
            running.get("/health")
        release(running)
        for seed, future in enumerate(asked):
            assert (
                pixels_of(future.result(30).data[0].b64_json) == model.generate(PROMPT, seed=seed, rounds=2)[0].image
            ).all()
    running.stop()


def test_sigterm_ends_the_command_with_0_and_answers_first(tiny_folder, tmp_path):
    """The real process, with a key from a file."""
    key = tmp_path / "key"
    key.write_text("s3cret\n")
    code = (
        "from janus_r1.serve.command import Options, serve\n"
        f"serve({str(tiny_folder)!r}, port=0, api_key_file={str(key)!r}, options=Options(rounds=2, page=False))"
    )
    source = str(Path(__file__).parent.parent / "src")
    environment = {**os.environ, "PYTHONPATH": source + os.pathsep + os.environ.get("PYTHONPATH", "")}
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment)
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "serving at" in line:
                break
        address = lines[-1].split("serving at ")[1].split()[0]
        client = openai.OpenAI(base_url=address, api_key="s3cret", max_retries=0)
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(client.images.generate, prompt=PROMPT, n=4) for _ in range(3)]
            until(lambda: httpx.get(address.replace("/v1", "/health")).json()["waiting"] >= 8)
            process.send_signal(signal.SIGTERM)
            assert [len(future.result(60).data) for future in asked] == [4, 4, 4]
        said = "".join(lines) + process.stderr.read()
        assert process.wait(30) == 0
        assert "Traceback" not in said and PROMPT not in said and "s3cret" not in said
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


# ---------------------------------------------------------------------------------------- keys and hosts


def test_only_who_knows_the_key_gets_in(model):
    with serving(model, key="right") as running:
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "right"}, {"Authorization": "Bearer"}):
            for answer in (running.get("/v1/models", headers=header), running.post(GENERATE, {}, headers=header)):
                assert is_fault(answer, 401) and "right" not in answer.text
        assert is_fault(running.get("/docs"), 401) and is_fault(running.get("/metrics"), 401)
        assert running.get("/health").status_code == 200
        assert running.client(api_key="right").models.list().data
        assert b" 401 " in running.raw(
            b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\r\n\r\n", 0.5
        )


def test_a_loopback_server_answers_to_no_foreign_name(running):
    for host in ("evil.example", "evil.example:80", "localhost.evil.example", ""):
        assert is_fault(running.get("/v1/models", headers={"Host": host}), 403)
    assert running.get("/v1/models", headers={"Host": "localhost:1"}).status_code == 200


# ------------------------------------------------------------------------------------- bodies and pictures


def test_a_big_body_is_refused_before_it_is_read(running):
    head = f"POST {GENERATE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert b" 413 " in running.raw(f"{head}Content-Length: 10000000000\r\n\r\n".encode())
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    assert b" 413 " in running.raw(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 12)


def test_slow_bodies_and_slow_headers_end(running, monkeypatch):
    head = f"POST {GENERATE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert b" 408 " in running.raw(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    monkeypatch.setattr(http, "HEADERS_S", 0.2)
    assert b" 408 " in running.raw(b"GET /health HTTP/1.1\r\nHost: loc")


def test_floods_of_headers_end(running):
    flood = b"".join(b"X-%d: %s\r\n" % (i, b"y" * 1000) for i in range(200))
    answer = running.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + flood + b"\r\n")
    assert b" 400 " in answer or b" 431 " in answer
    assert running.get("/health").status_code == 200


def bomb(side: int) -> bytes:
    """A PNG of side x side black pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\0" * (side // 8 + 1) * side, 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_pictures_that_would_burst_are_not_decoded(running):
    data = bomb(10_000)
    assert len(data) < 200_000
    files = {"image": ("x.png", data), "prompt": (None, "x")}
    assert is_fault(running.post("/v1/images/edits", files=files), 413)
    large = "data:image/png;base64," + base64.b64encode(os.urandom(210_000)).decode()
    assert is_fault(running.post("/v1/images/edits", {"image": large, "prompt": "x"}), 413)
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
    assert is_fault(running.post("/v1/images/edits", files={"image": ("x.svg", svg), "prompt": (None, "x")}), 400)


def test_paths_lead_nowhere(running):
    for path in (
        "/../../etc/passwd",
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/%2e%2e/etc/passwd",
        "/v1/images/1/content",
    ):
        answer = running.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert b" 404 " in answer and b"root:" not in answer


# --------------------------------------------------------------------------------------------------- fuzz

ODD = [
    None,
    True,
    -1,
    0,
    1.5,
    10**30,
    -(10**400),
    "",
    " ",
    "x" * 5000,
    "\ud800",
    "\x00",
    "<|User|>",
    [],
    {},
    [[]],
    "NaN",
]
FIELDS = ["prompt", "n", "size", "quality", "stream", "seed", "rounds", "guidance", "temperature", "top_p", "model",
          "output_format", "output_compression", "partial_images", "background", "messages", "image", "mask",
          "candidates", "final", "redraw", "images", "max_tokens", "top_logprobs"]  # fmt: skip


def malformed(chance: random.Random) -> tuple[str, dict]:
    """A request that no server can answer: path and what httpx sends."""
    path = chance.choice([GENERATE, "/v1/images/edits", "/v1/chat/completions"])
    kind = chance.randrange(6)
    if kind == 0:  # not JSON at all
        data = chance.choice([b"", b"{", b"[" * 50_000, b"\xff\xfe\x00", b"NaN", b'"', chance.randbytes(200)])
        return path, {"content": data, "headers": {"Content-Type": "application/json"}}
    if kind == 1:  # another content type
        sent = chance.choice(
            ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "a/b; c=\x7f"]
        )
        return path, {"content": b'{"prompt": 1}', "headers": {"Content-Type": sent}}
    if kind == 2:  # broken multipart
        data = b"--b\r\nContent-Disposition: form-data; name=" + chance.randbytes(60) + b"\r\n\r\nx\r\n--b--"
        return "/v1/images/edits", {"content": data, "headers": {"Content-Type": "multipart/form-data; boundary=b"}}
    if kind == 3:  # a file that is no picture
        files = {chance.choice(["image", "image[]"]): ("a", chance.randbytes(100)), "prompt": (None, "x")}
        return "/v1/images/edits", {"files": files}
    if kind == 4:  # a chat of odd parts
        part = {
            "type": chance.choice(["image_url", "text", 3, None]),
            "text": chance.choice(ODD),
            "image_url": chance.choice(ODD),
        }
        messages = chance.choice(
            [[{"role": "user", "content": [part]}], [{"role": chance.choice(ODD)}], chance.choice(ODD)]
        )
        return "/v1/chat/completions", {"content": spelled({"messages": messages})}
    odd = {name: chance.choice(ODD) for name in chance.sample(FIELDS, 6)}
    return path, {"content": spelled(odd | {"prompt": chance.choice(["", " ", 5, [], "<|User|>", "\ud800"])})}


def spelled(body: dict) -> bytes:
    return json.dumps(body).encode()


def test_a_thousand_malformed_requests_get_faults(running):
    chance = random.Random(0)
    statuses: dict[int, int] = {}
    with httpx.Client(base_url=running.address, timeout=30) as client:
        for _ in range(1000):
            path, sent = malformed(chance)
            headers = {"Content-Type": "application/json"} | sent.pop("headers", {}) if "files" not in sent else {}
            answer = client.post(path, headers=headers, **sent)
            assert 400 <= answer.status_code < 500, (path, sent, answer.text)
            assert is_fault(answer, answer.status_code) and "Traceback" not in answer.text, (path, sent, answer.text)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
    assert statuses[400] > 900
    assert running.client().images.generate(prompt=PROMPT, quality="low").data
    assert running.house.scheduler.counts.failed == 0
