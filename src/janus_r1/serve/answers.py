"""What goes back to a client: errors in OpenAI's shape, server-sent events as OpenAI's clients read them, and what ends
a request when its client has gone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse

T = TypeVar("T")
DONE = b"data: [DONE]\n\n"
INVALID, AUTHENTICATION, NOT_FOUND = "invalid_request_error", "authentication_error", "not_found_error"
RATE_LIMIT, OVERLOADED, SERVER = "rate_limit_error", "overloaded_error", "server_error"
KINDS = {401: AUTHENTICATION, 403: AUTHENTICATION, 404: NOT_FOUND, 429: RATE_LIMIT, 503: OVERLOADED}


class Fault(Exception):
    """An answer that is not the one asked for, sent as ``{"error": {"message", "type", "param", "code"}}``.

    ``param`` is the field at fault, ``code`` a word for programs.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_s: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})
        if retry_s is not None:
            self.headers["Retry-After"] = str(retry_s)

    @property
    def body(self) -> dict[str, Any]:
        kind = KINDS.get(self.status, SERVER if self.status >= 500 else INVALID)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def data(self) -> bytes:
        return json.dumps(self.body).encode()


def bad(message: str, param: str | None = None, code: str | None = "invalid_value") -> Fault:
    """400: the client can mend it."""
    return Fault(400, message, param=param, code=code)


def from_validation(errors: Sequence[Any]) -> Fault:
    """The first of pydantic's complaints as one line. What the client sent is not repeated."""
    if not errors:
        return bad("the request is not valid")
    first = errors[0]
    path = [str(part) for part in first.get("loc", ()) if part not in ("body", "query", "path")]
    param = ".".join(path) or None
    said = str(first.get("msg", "not valid")).removeprefix("Value error, ")
    missing = first.get("type") == "missing"
    if first.get("type") in ("json_invalid", "model_attributes_type") or (missing and not path):
        return bad("the body must be a JSON object, sent as Content-Type: application/json", None, "invalid_json")
    code = "missing_required_parameter" if missing else "invalid_value"
    message = f"{param} is missing" if missing else f"{param}: {said}" if param else said
    return bad(printable(message)[:500], printable(param)[:100] if param else None, code)


def printable(text: str) -> str:
    """Without what cannot stand in UTF-8 (lone surrogates) or in a log line (control characters)."""
    return "".join(c if c.isprintable() else "?" for c in text)


# ------------------------------------------------------------------------------- events, and clients that go


class Gone(Exception):
    """The client has hung up: nobody waits for the answer."""


def event(data: dict[str, Any]) -> bytes:
    """One event, named by its ``type`` where it has one."""
    name = f"event: {data['type']}\n" if "type" in data else ""
    return f"{name}data: {json.dumps(data, ensure_ascii=True)}\n\n".encode()


def streamed(events: AsyncIterator[bytes]) -> StreamingResponse:
    """Nothing on the way may hold events back. The iterator is closed when the client hangs up."""
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(_closed(events), media_type="text/event-stream", headers=headers)


async def _closed(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Cancelled in the middle, the inner iterator's ``finally`` runs now, not when it is collected."""
    try:
        async for item in events:
            yield item
    finally:
        if close := getattr(events, "aclose", None):
            await close()


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled when the client hangs up.

    Raises:
        Gone: then.
    """
    task: asyncio.Future[T] = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Gone
    finally:
        for future in (task, gone):
            future.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
