"""The HTTP API: routes, and what they have in common."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from janus_r1 import __version__
from janus_r1.serve import chat, drawing
from janus_r1.serve.answers import Fault, Gone, bad, from_validation, streamed, while_connected
from janus_r1.serve.house import House
from janus_r1.serve.limits import Guard, Seen
from janus_r1.serve.pictures import from_uri, read_mask, read_picture
from janus_r1.serve.schemas import ChatRequest, EditRequest, ImageRequest

log = logging.getLogger("janus_r1.serve")
MAX_FORM_FIELDS, MAX_FORM_FILES = 64, 17
DESCRIPTION = """\
Draws, judges its own drawing and redraws. OpenAI's Images API, with each round as a partial image; the chat endpoint
judges pictures. Our own fields are those that OpenAI's clients pass over; they send theirs as `extra_body`."""


def create_app(house: House) -> FastAPI:
    """The application; its lifespan starts the scheduler, and ends it when all that was accepted is done."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        house.scheduler.start()
        yield
        await asyncio.to_thread(house.scheduler.stop)

    app = FastAPI(title="Janus-R1", version=__version__, description=DESCRIPTION, lifespan=lifespan)
    app.state.house = house
    _add_faults(app)
    _add_about(app, house)
    _add_images(app, house)
    _add_chat(app, house)
    house.metrics.paths = frozenset(path for route in app.routes if (path := getattr(route, "path", "")))
    app.add_middleware(Guard, limits=house.limits, key=house.key, local=house.local, observe=_observer(house))
    return app


def _observer(house: House) -> Any:
    def observe(seen: Seen) -> None:
        house.metrics.observe(seen)
        log.info("%s %s %s %d %.3fs", seen.request_id, seen.method, seen.path, seen.status, seen.seconds)

    return observe


# ------------------------------------------------------------------------------------------------ faults


def _add_faults(app: FastAPI) -> None:
    def answer(fault: Fault) -> Response:
        return JSONResponse(fault.body, fault.status, fault.headers)

    @app.exception_handler(Fault)
    async def fault(request: Request, error: Fault) -> Response:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(from_validation(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, Fault):  # raised while the body was read
            return answer(error.__cause__)
        said = {404: "no such address", 405: "this address does not take that method"}
        message = said.get(error.status_code, str(error.detail))
        headers = dict(error.headers) if error.headers else None
        return answer(
            Fault(error.status_code, message, code="not_found" if error.status_code == 404 else None, headers=headers)
        )

    @app.exception_handler(Gone)
    async def gone(request: Request, error: Gone) -> Response:
        return Response(status_code=499)  # nobody reads it; the log and the metrics do


# --------------------------------------------------------------------------------------- models and health


def _add_about(app: FastAPI, house: House) -> None:
    def card(name: str) -> dict[str, Any]:
        model = house.scheduler.models[name].model
        side = model.image_size
        return {
            "id": name,
            "object": "model",
            "created": house.began,
            "owned_by": "janus-r1",
            "native_size": f"{side}x{side}",
            "image_tokens": model.image_tokens,
            "format": model.format,
            "dtype": str(model.dtype).removeprefix("torch."),
        }

    @app.get("/v1/models", tags=["about"])
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [card(name) for name in house.names]}

    @app.get("/v1/models/{name:path}", tags=["about"])
    async def model(name: str) -> dict[str, Any]:
        return card(house.model(name))

    @app.get("/health", tags=["about"])
    async def health() -> Response:
        alive = house.scheduler.alive
        status = "ok" if alive else "stopping" if house.scheduler.stopping else "failed"
        return JSONResponse({"status": status, "waiting": house.scheduler.waiting}, 200 if alive else 503)

    @app.get("/metrics", tags=["about"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(house.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


# ------------------------------------------------------------------------------------------------- images


def _add_images(app: FastAPI, house: House) -> None:
    @app.post("/v1/images/generations", tags=["images"])
    async def generations(request: Request, asked: ImageRequest) -> Response:
        """Draw; `stream: true` sends every round as a partial image."""
        return await _drawn(house, request, asked)

    body = {"application/json": EditRequest, "multipart/form-data": EditRequest}
    schema = {"content": {kind: {"schema": model.model_json_schema()} for kind, model in body.items()}}

    @app.post("/v1/images/edits", tags=["images"], openapi_extra={"requestBody": schema})
    async def edits(request: Request) -> Response:
        """Edit a picture, as multipart (`image` or `image[]`, `mask`) or as JSON with data: URIs."""
        asked, picture, mask = await _edit_request(request)
        pictures = house.limits.pictures
        original = await asyncio.to_thread(_original, picture, pictures)
        editable = await asyncio.to_thread(_mask, mask, pictures) if mask is not None else None
        if editable is not None and editable.shape != original.shape[:2]:
            raise bad("the mask must be as large as the picture", "mask")
        return await _drawn(house, request, asked, original, editable)


async def _drawn(
    house: House,
    request: Request,
    asked: ImageRequest,
    original: np.ndarray | None = None,
    editable: np.ndarray | None = None,
) -> Response:
    name = house.model(asked.model)
    model = house.scheduler.models[name].model
    order = drawing.order(asked, name, model, house.defaults, original, editable)
    if asked.stream:
        return streamed(await _begun(_events(house, request, order, name)))
    with house.admitted(request.state.client, order.work, name, request.state.request_id) as ticket:
        return JSONResponse(await while_connected(request, drawing.collected(order, ticket)))


async def _events(house: House, request: Request, order: drawing.Order, name: str) -> AsyncIterator[bytes]:
    """Its first item is empty: by then the work has its place in the queue, or the request its fault."""
    with house.admitted(request.state.client, order.work, name, request.state.request_id) as ticket:
        yield b""
        async for item in drawing.events(order, ticket):
            yield item


async def _begun(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same events after the first, which must come before the status is sent."""
    await anext(events)
    return events


async def _edit_request(request: Request) -> tuple[EditRequest, Any, Any]:
    """Of either kind: the fields, the picture, the mask or None; pictures are files or what stands for a data: URI.

    Raises:
        Fault: 400 for what is neither, for no picture or several, and for fields that are not valid.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        form = await request.form(max_files=MAX_FORM_FILES, max_fields=MAX_FORM_FIELDS)
        fields, listed = _form_fields(form)
        mask = form.get("mask") or None
    elif kind == "application/json":
        fields = await _json(request)
        listed = _listed(fields.pop("image", None)) + _listed(fields.pop("images", None))
        mask = fields.pop("mask", None)
    else:
        raise bad("send multipart/form-data with files, or application/json with data: URIs", None, "invalid_type")
    try:
        asked = EditRequest.model_validate(fields)
    except ValidationError as error:
        raise from_validation(error.errors(include_context=False, include_input=False)) from None
    if len(listed) != 1:
        message = "this model edits one picture at a time" if listed else "image is missing"
        raise bad(message, "image", "invalid_value" if listed else "missing_required_parameter")
    return asked, listed[0], mask


def _form_fields(form: FormData) -> tuple[dict[str, Any], list[Any]]:
    """Plain fields by name, and the pictures; what a file is called is nobody's business."""
    pictures = ("image", "image[]", "images", "images[]")
    fields = {name: value for name, value in form.items() if isinstance(value, str) and name not in pictures}
    fields = {name: value for name, value in fields.items() if name != "mask" and value != ""}
    return fields, [value for name, value in form.multi_items() if name in pictures and value != ""]


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


async def _json(request: Request) -> dict[str, Any]:
    try:
        fields = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise bad("the body is not JSON", None, "invalid_json") from None
    if not isinstance(fields, dict):
        raise bad("the body must be a JSON object", None, "invalid_json")
    return fields


def _original(picture: Any, limits: Any) -> np.ndarray:
    return read_picture(_bytes(picture, limits, "image"), limits, "image")


def _mask(mask: Any, limits: Any) -> np.ndarray:
    return read_mask(_bytes(mask, limits, "mask"), limits)


def _bytes(picture: Any, limits: Any, param: str) -> bytes:
    if isinstance(picture, UploadFile):
        return picture.file.read(limits.max_bytes + 1)
    return from_uri(picture, limits, param)


# -------------------------------------------------------------------------------------------------- chat


def _add_chat(app: FastAPI, house: House) -> None:
    @app.post("/v1/chat/completions", tags=["judge"])
    async def completions(request: Request, asked: ChatRequest) -> Response:
        """Judge a picture: Yes or No, with log-probs, and why."""
        name = house.model(asked.model)
        look = await asyncio.to_thread(chat.look_for, asked, house.limits.pictures)
        with house.admitted(request.state.client, [look], name, request.state.request_id) as ticket:
            finished = await while_connected(request, chat.judged(ticket))
        model = house.scheduler.models[name].model
        ids = getattr(finished.result, "ids", ())
        pieces = [model.tokenizer.decode([i]) for i in ids if i != model.layout.special.eos]
        tokens = model.image_tokens * (2 if look.original is not None else 1)
        whole = chat.answer(asked, name, finished, pieces, tokens)
        return streamed(chat.chunks(asked, whole)) if asked.stream else JSONResponse(whole)
