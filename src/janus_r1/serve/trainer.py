"""For trainers: chains with the log-probs of every token, and new weights between two rounds. Off by default.

Weights come from one folder that the operator has named, as safetensors, which hold numbers alone. They are checked
whole before the first is written, and written while nothing is drawn; a checksum tells both sides that they mean the
same model.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from safetensors import SafetensorError, safe_open

from janus_r1.chain import Chain, Settings
from janus_r1.errors import UserError
from janus_r1.layout import clean
from janus_r1.model.janus import Janus
from janus_r1.serve import drawing
from janus_r1.serve.answers import Fault, bad, while_connected
from janus_r1.serve.house import House
from janus_r1.serve.pictures import Output
from janus_r1.serve.rounds import Drawing
from janus_r1.serve.scheduler import Failed, Finished, Stopping, Ticket
from janus_r1.serve.schemas import MAX_PROMPT, Knobs, Lenient, Text

PIECE = 2**22


class RolloutRequest(Knobs):
    """POST /v1/rollouts."""

    prompts: list[Text] = Field(min_length=1, max_length=1024)
    samples: int = Field(1, ge=1, le=64)
    model: Text | None = Field(default=None, max_length=200)
    images: bool = Field(False, description="Every draft as a PNG, beside its ids")


class WeightsRequest(Lenient):
    """POST /v1/weights."""

    file: str = Field(
        min_length=1, max_length=1000, description="A .safetensors file, relative to the trainer's folder"
    )
    sha256: str | None = Field(default=None, max_length=64, description="Of the file, checked before it is read")
    model: Text | None = Field(default=None, max_length=200)


def add_trainer(app: FastAPI, house: House, folder: Path) -> None:
    """Rollouts, and weights from ``folder``."""

    @app.post("/v1/rollouts", tags=["trainer"])
    async def rollouts(request: Request, asked: RolloutRequest) -> Response:
        """Chains as they are saved, with the log-prob of every token that was sampled."""
        name = house.model(asked.model)
        work = _work(asked)
        with house.admitted(request.state.client, work, name, request.state.request_id) as ticket:
            chains = await while_connected(request, _chains(ticket, len(work)))
        return JSONResponse({"model": name, "chains": [_told(chain, asked.images) for chain in chains]})

    @app.get("/v1/weights", tags=["trainer"])
    async def weights(model: str | None = None) -> dict[str, Any]:
        name = house.model(model)
        janus = house.scheduler.models[name].model
        return {"model": name, "checksum": await _between_rounds(house, lambda: checksum(janus))}

    @app.post("/v1/weights", tags=["trainer"])
    async def update(asked: WeightsRequest) -> dict[str, Any]:
        """Replace weights; 409 while chains are on their way, which must not change their model midway."""
        name = house.model(asked.model)
        janus, path = house.scheduler.models[name].model, _inside(folder, asked.file)

        def load() -> str:
            if house.scheduler.waiting:
                raise Fault(409, "chains are on their way: update when they are done", code="busy", retry_s=1)
            if asked.sha256 is not None and _sha256(path) != asked.sha256.lower():
                raise bad("the file is not the one that was meant: its SHA-256 differs", "sha256", "checksum")
            replaced = replace_weights(janus, path)
            return f"{replaced} {checksum(janus)}"

        replaced, _, total = (await _between_rounds(house, load)).partition(" ")
        return {"model": name, "tensors": int(replaced), "checksum": total}


# --------------------------------------------------------------------------------------------- rollouts


def _work(asked: RolloutRequest) -> list[Drawing]:
    """``samples`` chains of every prompt, rows as ``JanusR1.generate`` counts them."""
    values = {k: v for k, v in asked.model_dump().items() if k in drawing.SETTINGS and v is not None}
    values["seed"] = max(values.get("seed", 0), 0)
    try:
        settings = Settings(**values)
        for prompt in asked.prompts:
            clean(prompt[: MAX_PROMPT + 1])
            if len(prompt) > MAX_PROMPT:
                raise UserError(f"a prompt has more than {MAX_PROMPT} characters")
    except UserError as error:
        raise bad(str(error), "prompts") from None
    rows = [prompt for prompt in asked.prompts for _ in range(asked.samples)]
    return [Drawing(prompt, settings, row) for row, prompt in enumerate(rows)]


async def _chains(ticket: Ticket, count: int) -> list[Chain]:
    """In the order of the work.

    Raises:
        Fault: where one failed.
    """
    chains: dict[int, Chain] = {}
    async for event in ticket:
        if isinstance(event, Failed):
            raise drawing.failure(event.error)
        if isinstance(event, Finished) and isinstance(event.result, Chain):
            chains[event.index] = event.result
    return [chains[index] for index in range(count)]


def _told(chain: Chain, images: bool) -> dict[str, Any]:
    """As ``chain.json`` has it; pictures in the place of file names, or not at all."""
    told = chain.as_dict()
    for item, round_ in zip(told["rounds"], chain.rounds, strict=True):
        item["image"] = Output().encode(round_.pixels) if images else None
    return told


# ---------------------------------------------------------------------------------------------- weights


async def _between_rounds(house: House, command: Callable[[], str]) -> str:
    """What ``command`` returns, run in the model's thread while nothing is drawn.

    Raises:
        Fault: what the command raises, and 503 when the server is going down.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[str] = loop.create_future()
    found: list[str] = []

    def done(error: Exception | None) -> None:
        if error is None:
            loop.call_soon_threadsafe(result.set_result, found[0])
        else:
            loop.call_soon_threadsafe(result.set_exception, error)

    try:
        house.scheduler.at_boundary(lambda: found.append(command()), done)
    except Stopping:
        raise Fault(503, "the server is going down", code="shutting_down", retry_s=10) from None
    return await result


def replace_weights(janus: Janus, path: Path) -> int:
    """Put the tensors of a safetensors file into the model, all or none; how many there were.

    Raises:
        Fault: 400 for a file that is none, a name that the model does not have, another shape, or numbers that are
            none (NaN).
    """
    own = janus.weights()
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            for name in names:
                if name not in own:
                    raise bad(f"the model has no weight {name[:200]!r}", "file")
                tensor = file.get_tensor(name)
                if tensor.shape != own[name].shape:
                    raise bad(f"{name} is {list(tensor.shape)}, the model's {list(own[name].shape)}", "file")
                if not torch.isfinite(tensor.float()).all():
                    raise bad(f"{name} holds numbers that are not finite", "file")
            with torch.no_grad():
                for name in names:
                    own[name].copy_(file.get_tensor(name))
    except (SafetensorError, OSError):
        raise bad("not a whole safetensors file", "file") from None
    return len(names)


def checksum(janus: Janus) -> str:
    """SHA-256 over names, shapes, types and numbers of all weights, in the order of their names."""
    found = hashlib.sha256()
    for name, tensor in sorted(janus.weights().items()):
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        found.update(tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _inside(folder: Path, file: str) -> Path:
    """Raises a Fault for a file that is not a safetensors file in the folder; links out of it are not followed."""
    try:
        path = (folder / file).resolve(strict=True)
        if path.suffix == ".safetensors" and path.is_relative_to(folder.resolve()) and path.is_file():
            return path
    except (OSError, ValueError, RuntimeError):
        pass
    raise bad("no such .safetensors file in the trainer's folder", "file", "not_found")


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            found.update(piece)
    return found.hexdigest()
