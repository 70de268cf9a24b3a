"""Server-sent events, as OpenAI's clients read them, and what ends a request when its client has gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse

T = TypeVar("T")
DONE = b"data: [DONE]\n\n"


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
