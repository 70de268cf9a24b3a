"""Images a second at 1, 4, 16 and 64 clients, where the time goes, and how far that is from the bare decoder.

    python benchmarks/serve_throughput.py --save
    python benchmarks/serve_throughput.py --model tiny-r1-edit --clients 1,16

Two servers, one with windows (``auto``) and one without (1), each a process of its own, get the same requests by turns,
so that a busy moment favours neither. A third arm draws such chains without a server: ``introspect`` over batches of so
many, which is what the server's forwards cost at best. Requests are of one picture, so pictures are chains, and images
all drafts of them.

Seconds are the processor's unless they are said to be the clock's. They are told apart by what the model's thread does:
reading (contexts and pictures seen), drawing, saying, pixels, and what is left of its rounds (scheduling, random
numbers, Python); all other threads are HTTP, JSON, PNG. ``products`` is the floor under drawing one id a forward at
that batch: its matrix products alone, with both halves that guidance needs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import torch

import machine
from janus_r1 import JanusR1
from janus_r1.chain import Settings, Task
from janus_r1.engine.decoder import Decoder
from janus_r1.engine.network import linear
from janus_r1.introspect import introspect
from janus_r1.model.janus import Janus
from janus_r1.serve.scheduler import Scheduler
from serve import PROMPTS, Served, ask, say

RESULTS = Path(__file__).parent / "results" / "serve_throughput.jsonl"
ROUNDS = 3
PARTS = (
    (Decoder, "open", "reading"),
    (Decoder, "feed", "reading"),
    (Decoder, "draw", "drawing"),
    (Decoder, "say", "saying"),
    (Janus, "decode_image", "pixels"),
    (Scheduler, "_serve", "rest of rounds"),
)


# -------------------------------------------------------------------------------------- in the server's process


class Parts:
    """Processor seconds of one thread by what it does; the time of a part within a part is the inner one's."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.inner: list[float] = []
        for owner, name, part in PARTS:
            setattr(owner, name, self._timed(getattr(owner, name), part))

    def _timed(self, function: Callable, part: str) -> Callable:
        def timed(*args: Any, **options: Any) -> Any:
            began = time.thread_time()
            self.inner.append(0.0)
            try:
                return function(*args, **options)
            finally:
                took = time.thread_time() - began
                self.seconds[part] += took - self.inner.pop()
                if self.inner:
                    self.inner[-1] += took

        return timed


def report_parts() -> None:
    """In a server: tell on /parts what the model's thread has done so far, and what the process has."""
    from janus_r1.serve import command

    parts, make_app = Parts(), command.make_app

    def with_parts(*args: Any) -> Any:
        made = make_app(*args)
        counts = made.state.house.scheduler.counts

        @made.get("/parts")
        async def told() -> dict[str, Any]:
            rounds = sum(parts.seconds.values())
            other = time.process_time() - rounds
            numbers = {"images": counts.images, "batches": counts.batches, "rows": counts.rows}
            return {"seconds": {**parts.seconds, "HTTP and others": other}, **numbers}

        return made

    command.make_app = with_parts


HERE = str(Path(__file__).parent)
BEFORE = f"import sys; sys.path.insert(0, {HERE!r}); import serve_throughput; serve_throughput.report_parts(); "


# -------------------------------------------------------------------------------------------------- the arms


def difference(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    old = before["seconds"]
    seconds = {part: value - old.get(part, 0.0) for part, value in after["seconds"].items()}
    return {"seconds": seconds, **{name: after[name] - before[name] for name in ("images", "batches", "rows")}}


async def block(served: Served, clients: int, pictures: int) -> dict[str, Any]:
    """So many clients, each with a new request as soon as its last is answered."""
    todo = [(PROMPTS[number % len(PROMPTS)], number) for number in range(pictures)]
    limits = httpx.Limits(max_connections=clients + 4)
    async with httpx.AsyncClient(base_url=served.address, timeout=600, limits=limits) as client:
        before, began = (await client.get("/parts")).json(), time.perf_counter()

        async def one() -> None:
            while todo:
                (await ask(client, *todo.pop())).raise_for_status()

        await asyncio.gather(*(one() for _ in range(clients)))
        clock = time.perf_counter() - began
        found = difference((await client.get("/parts")).json(), before)
    return {"pictures": pictures, "clock": clock, **found}


def bare(janus: JanusR1, parts: Parts, batch: int, pictures: int) -> dict[str, Any]:
    """Such chains in batches of so many, without a server."""
    clock, began, images = time.perf_counter(), time.process_time(), 0
    parts.seconds.clear()
    for number in range(0, pictures, batch):
        of = range(number, min(number + batch, pictures))
        tasks = [Task(PROMPTS[item % len(PROMPTS)]) for item in of]
        chains = introspect(janus.model, tasks, Settings(seed=number, rounds=ROUNDS), max_batch=batch)
        images += sum(len(chain.rounds) for chain in chains)
    all_of_it = time.process_time() - began
    seconds = {**parts.seconds, "rest of rounds": all_of_it - sum(parts.seconds.values())}
    return {"pictures": pictures, "clock": time.perf_counter() - clock, "seconds": seconds, "images": images}


@torch.inference_mode()
def products(janus: JanusR1, batch: int) -> dict[str, float]:
    """Processor ms an image of the matrix products of its forwards alone, and how many GFLOP/s that is."""
    network, model = Decoder(janus.model).network, janus.model
    rows = 2 * batch
    inputs: dict[int, torch.Tensor] = {}
    best, flops = float("inf"), 0
    for _ in range(5):
        began, flops = time.thread_time(), 0
        for layer in network.layers:
            for weight in (layer.qkv, layer.out, layer.gate_up, layer.down):
                assert isinstance(weight, torch.Tensor)
                x = inputs.setdefault(weight.shape[1], torch.randn(rows, weight.shape[1]))
                linear(x, weight)
                flops += 2 * rows * weight.numel()
        best = min(best, time.thread_time() - began)
    forwards = model.image_tokens - 1
    return {"cpu_ms_per_image": round(1000 * best * forwards / batch, 1), "gflops": round(flops / best / 1e9, 1)}


def added(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Turns of one arm together: what an image and a picture took, and how full batches were."""
    images, pictures = sum(part["images"] for part in parts), sum(part["pictures"] for part in parts)
    seconds: Counter[str] = Counter()
    for part in parts:
        seconds.update(part["seconds"])
    total, clock = sum(seconds.values()), sum(part["clock"] for part in parts)
    found = {
        "images": images,
        "pictures": pictures,
        "images_per_cpu_second": round(images / total, 2),
        "images_per_clock_second": round(images / clock, 2),
        "pictures_per_cpu_second": round(pictures / total, 2),
        "cpu_ms_per_image": {name: round(1000 * value / images, 1) for name, value in seconds.items()},
    }
    if "batches" in parts[0]:
        found["rows_per_batch"] = round(sum(p["rows"] for p in parts) / sum(p["batches"] for p in parts), 1)
    return found


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    every = [int(word) for word in options.clients.split(",")]
    batch = max(*every, options.max_batch)
    parts, janus = Parts(), JanusR1.from_pretrained(options.model)
    common = f"max_batch={options.max_batch}, per_client={batch + 8}, max_waiting={batch + 8}"
    servers = {w: Served(options.model, f"{common}, window={w!r}", BEFORE) for w in ("auto", 1)}
    found: dict[str, dict[str, list]] = {str(clients): {} for clients in every}
    try:
        for served in servers.values():
            await block(served, 4, 8)  # warm
        for turn in range(options.turns):
            for clients in every:
                pictures = max(options.pictures, 3 * clients)
                arms = found[str(clients)]
                for window, served in servers.items():
                    arms.setdefault(f"window {window}", []).append(await block(served, clients, pictures))
                arms.setdefault("bare", []).append(bare(janus, parts, min(clients, options.max_batch), pictures))
                say(f"turn {turn + 1}, {clients} clients: {json.dumps({a: added(p) for a, p in arms.items()})}")
    finally:
        for served in servers.values():
            served.process.kill()
    arms_by_clients = {clients: {name: added(parts) for name, parts in arms.items()} for clients, arms in found.items()}
    return {
        "machine": machine.name("cpu"),
        "load_average": os.getloadavg()[0],
        "model": options.model,
        "max_batch": options.max_batch,
        "rounds": ROUNDS,
        "clients": arms_by_clients,
        "products": {str(clients): products(janus, clients) for clients in every},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-repair")
    parser.add_argument("--clients", default="1,4,16,64")
    parser.add_argument("--max-batch", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=16, help="of a block; three for each client at least")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--save", action="store_true", help=f"append to {RESULTS.name}")
    options = parser.parse_args()
    machine.report(RESULTS, asyncio.run(measure(options)), options.save)


if __name__ == "__main__":
    main()
