"""A server under load: is every answer the one that its seed gives alone, and how fast do they come?

    python benchmarks/serve.py                      # 64 clients, 2,000 requests, 10 % hang up, 5 % malformed
    python benchmarks/serve.py --requests 200 --save

The server is a process of its own (``janus-r1 serve``'s function), the clients are coroutines of this one. Three parts:
one client against sixteen with the same requests, by turns in blocks so that a busy moment favours neither (by the
clock, and in processor seconds of the server); the load; and a SIGTERM while requests are on their way, of which all
must be answered.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

import machine
from janus_r1 import JanusR1

PROMPTS = (
    "a red circle left of a blue square",
    "three green stars",
    "a pink heart above a cross",
    "a small yellow ring and a large purple triangle",
    "two orange diamonds",
)
RESULTS = Path(__file__).parent / "results" / "serve.jsonl"
PATIENCE_S = 3600.0  # of clients, on a machine that may be busy
MALFORMED = (b"{", b"[]", b'{"prompt": 5}', b'{"prompt": "x", "n": 99}', b'{"prompt": "x", "size": "1x2"}', b"\xff")


@dataclass
class Load:
    """What became of the requests."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    queue: list[int] = field(default_factory=list)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def references(model: str, seeds: int) -> dict[tuple[str, int], str]:
    """Final pictures, each drawn alone."""
    janus = JanusR1.from_pretrained(model)
    asked = [(prompt, seed) for prompt in PROMPTS for seed in range(seeds)]
    return {(p, s): digest(janus.generate(p, seed=s, rounds=3)[0].pixels) for p, s in asked}


class Served:
    """The server's process; ``before`` is Python that it runs first."""

    def __init__(self, model: str, options: str, before: str = "") -> None:
        code = (
            f"{before}from janus_r1.serve.command import Options, serve; "
            f"serve({model!r}, port=0, options=Options(page=False, {options}))"
        )
        self.process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.lines: list[str] = []
        for line in self.process.stderr:
            self.lines.append(line)
            if "serving at" in line:
                self.address = line.split("serving at ")[1].split("/v1")[0]
                break
        else:
            raise SystemExit("".join(self.lines))
        self.drain = asyncio.get_running_loop().run_in_executor(
            None, lambda: self.lines.extend(self.process.stderr or [])
        )

    def cpu_s(self) -> float:
        """Processor seconds that the server has used: what a picture costs however busy the machine is."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> int:
        """Bytes of memory held now."""
        text = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def ask(client: httpx.AsyncClient, prompt: str, seed: int) -> httpx.Response:
    return await client.post("/v1/images/generations", json={"prompt": prompt, "seed": seed, "rounds": 3})


def drawn(answer: httpx.Response) -> str:
    data = base64.b64decode(answer.json()["data"][0]["b64_json"])
    return digest(np.array(Image.open(io.BytesIO(data)).convert("RGB")))


async def block(served: Served, clients: int, numbers: range, seeds: int) -> np.ndarray:
    """So many clients, each with a new request as soon as the last is answered: requests, seconds by the clock, and
    the server's processor seconds.
    """
    todo = [(PROMPTS[i % len(PROMPTS)], i % seeds) for i in numbers]
    began, used = time.perf_counter(), served.cpu_s()
    async with httpx.AsyncClient(base_url=served.address, timeout=PATIENCE_S) as client:

        async def one() -> None:
            while todo:
                (await ask(client, *todo.pop())).raise_for_status()

        await asyncio.gather(*(one() for _ in range(clients)))
    return np.array([len(numbers), time.perf_counter() - began, served.cpu_s() - used])


async def load(served: Served, clients: int, requests: int, truth: dict[tuple[str, int], str], minutes: float) -> Load:
    """All requests of all kinds, in an order by lot; none is sent after so many minutes."""
    until = time.monotonic() + 60 * minutes
    chance, found = random.Random(0), Load()
    kinds = ["hang up"] * (requests // 10) + ["malformed"] * (requests // 20)
    kinds += ["plain"] * (requests - len(kinds))
    chance.shuffle(kinds)
    limits = httpx.Limits(max_connections=clients + 8)
    async with httpx.AsyncClient(base_url=served.address, timeout=PATIENCE_S, limits=limits) as client:

        async def one() -> None:
            while kinds and time.monotonic() < until:
                found.outcomes["sent"] += 1
                kind, (prompt, seed) = kinds.pop(), chance.choice(list(truth))
                wait = chance.uniform(0.05, 3.0)
                await request(client, kind, prompt, seed, wait, found, truth)

        async def watch() -> None:
            while True:
                health = (await client.get("/health")).json()
                found.queue.append(health["waiting"])
                found.memory.append(served.resident())
                await asyncio.sleep(0.5)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(one() for _ in range(clients)))
        watching.cancel()
    return found


async def request(
    client: httpx.AsyncClient, kind: str, prompt: str, seed: int, wait: float, found: Load, truth: dict
) -> None:
    """One request, told apart by what must become of it."""
    began = time.perf_counter()
    if kind == "malformed":
        body = MALFORMED[seed % len(MALFORMED)]
        answer = await client.post("/v1/images/generations", content=body, headers={"Content-Type": "application/json"})
        found.outcomes[f"malformed: {answer.status_code}"] += 1
    elif kind == "hang up":
        try:
            await asyncio.wait_for(ask(client, prompt, seed), wait)
            found.outcomes["answered before it hung up"] += 1
        except TimeoutError:
            found.outcomes["hung up"] += 1
    else:
        while (answer := await ask(client, prompt, seed)).status_code in (429, 503):
            found.outcomes[f"told to come back: {answer.status_code}"] += 1
            await asyncio.sleep(float(answer.headers["retry-after"]))
        found.outcomes[f"answered: {answer.status_code}"] += 1
        found.seconds.append(time.perf_counter() - began)
        if drawn(answer) != truth[prompt, seed]:
            found.wrong.append(f"{prompt}, seed {seed}")


async def stopped(served: Served, requests: int, seeds: int) -> dict[str, Any]:
    """A SIGTERM while so many are on their way."""
    async with httpx.AsyncClient(base_url=served.address, timeout=PATIENCE_S) as client:
        asked = [asyncio.create_task(ask(client, PROMPTS[0], seed % seeds)) for seed in range(requests)]
        while (await client.get("/health")).json()["waiting"] < requests:
            await asyncio.sleep(0.01)
        served.process.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*asked, return_exceptions=True)
    code = await asyncio.get_running_loop().run_in_executor(None, served.process.wait)
    await served.drain
    answered = sum(isinstance(answer, httpx.Response) and answer.status_code == 200 for answer in answers)
    return {"on_their_way": requests, "answered": answered, "exit_code": code}


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    truth = references(options.model, options.seeds)
    say("the pictures that are to come are drawn")
    served = Served(options.model, options.serve)
    try:
        await block(served, 2, range(4), options.seeds)  # warm
        spent = {1: np.zeros(3), 16: np.zeros(3)}
        every = len(PROMPTS) * options.seeds  # requests that there are: one client sends each once, sixteen do so often
        for number in range(options.blocks):
            part = range(number * every // options.blocks, (number + 1) * every // options.blocks)
            spent[1] += await block(served, 1, part, options.seeds)
            spent[16] += await block(served, 16, range(2 * every), options.seeds)
            say(f"requests, seconds, processor seconds: {spent}")
        found = await load(served, options.clients, options.requests, truth, options.minutes)
        stop = await stopped(served, 32, options.seeds)
    finally:
        served.process.kill()
    seconds = np.array(found.seconds)
    each = {clients: total[1:] / total[0] for clients, total in spent.items()}  # seconds a picture, by both clocks
    third = max(1, len(found.memory) // 3)
    return {
        "machine": machine.name("cpu"),
        "load_average": os.getloadavg()[0],
        "model": options.model,
        "serve": options.serve,
        "seconds_per_image": {str(clients): round(float(found[0]), 4) for clients, found in each.items()},
        "cpu_seconds_per_image": {str(clients): round(float(found[1]), 4) for clients, found in each.items()},
        "sixteen_to_one": [round(float(ratio), 2) for ratio in each[1] / each[16]],
        "clients": options.clients,
        "requests": options.requests,
        "outcomes": dict(found.outcomes),
        "wrong": found.wrong,
        "p50_s": round(float(np.percentile(seconds, 50)), 2),
        "p95_s": round(float(np.percentile(seconds, 95)), 2),
        "longest_queue": max(found.queue),
        "resident_mb": {
            "first_third": round(float(np.median(found.memory[:third])) / 1e6),
            "last_third": round(float(np.median(found.memory[-third:])) / 1e6),
            "most": round(max(found.memory) / 1e6),
        },
        "sigterm": stop,
        "tracebacks": sum("Traceback" in line for line in served.lines),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-r1-edit")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=600.0, help="after which the load sends nothing more")
    parser.add_argument("--seeds", type=int, default=12, help="of each prompt, drawn alone at first")
    parser.add_argument("--blocks", type=int, default=5, help="turns of one client and of sixteen")
    parser.add_argument("--serve", default="max_batch=32", help="arguments of the server")
    parser.add_argument("--save", action="store_true", help=f"append to {RESULTS.name}")
    options = parser.parse_args()
    machine.report(RESULTS, asyncio.run(measure(options)), options.save)


if __name__ == "__main__":
    main()
