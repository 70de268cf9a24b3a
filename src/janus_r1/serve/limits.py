"""What stands before every request: identity, host, key, body size, patience, and one shape for what goes wrong."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from janus_r1.serve.answers import Fault, printable
from janus_r1.serve.pictures import PictureLimits

log = logging.getLogger("janus_r1.serve")
OPEN_PATHS = ("/health", "/")  # without a key: who asks whether a server lives has none
PAGE = "/page"  # asks for the key by a form of its own
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]", "testserver")


@dataclass(frozen=True)
class Defaults:
    """What the operator lets chains be where a request does not say."""

    rounds: int = 3
    edit_rounds: int = 1
    """The embedded editor has not learnt to redraw."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a server; each is checked before the work that it bounds."""

    max_body: int = 32_000_000
    """Bytes of a request."""
    body_s: float = 30.0
    """Seconds in which a request's body must have come."""
    per_client: int = 64
    """Images (or verdicts) that one client may have in the house at once."""
    pictures: PictureLimits = field(default_factory=PictureLimits)


class Clients:
    """How much of the house each client, known by its address, holds."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._held: Counter[str] = Counter()

    @contextmanager
    def holding(self, client: str, count: int) -> Iterator[None]:
        """For as long as the request lasts.

        Raises:
            Fault: 429 where it would be too much.
        """
        if self._held[client] + count > self.most:
            message = f"you have {self._held[client]} images on the way, of {self.most}: wait for some of them"
            raise Fault(429, message, code="rate_limit_exceeded", retry_s=1)
        self._held[client] += count
        try:
            yield
        finally:
            self._held[client] -= count
            if not self._held[client]:
                del self._held[client]


@dataclass(frozen=True)
class Seen:
    """A request that was answered, for logs and metrics."""

    method: str
    path: str
    status: int
    seconds: float
    request_id: str


class Guard:
    """ASGI middleware around everything. ``observe`` hears of each answered request.

    ``key`` is the bearer key that is wanted, or None. ``local`` servers, bound to a loopback address, answer to no
    other host name, so that no web page can reach them under a name of its own (DNS rebinding).
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, key: str | None, local: bool, observe: Callable[[Seen], None]
    ) -> None:
        self.app, self.limits, self.local, self.observe = app, limits, local, observe
        self.key = key.encode() if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await self.app(scope, receive, send)
            return
        began, request_id = time.monotonic(), uuid.uuid4().hex
        answer = _Answer(send, request_id)
        scope.setdefault("state", {})["request_id"] = request_id
        try:
            headers = _headers(scope)
            self._admit(scope, headers)
            await self.app(scope, _Body(receive, self.limits, headers), answer)
        except Fault as fault:
            await answer.fault(fault)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except Exception:
            log.exception("request %s failed", request_id)
            await answer.fault(
                Fault(500, "something went wrong in the server; its log has more", code="internal_error")
            )
        finally:
            seconds = time.monotonic() - began
            path = printable(scope["path"])[:200]
            self.observe(Seen(scope["method"], path, answer.status, seconds, request_id))

    def _admit(self, scope: Scope, headers: dict[str, str]) -> None:
        """Raises a Fault for a request that needs no reading."""
        if self.local and not _is_local(headers.get("host", "")):
            raise Fault(403, "this server answers to localhost only", code="wrong_host")
        length = headers.get("content-length")
        if length is not None and (not length.isdecimal() or int(length[:20]) > self.limits.max_body):
            raise too_large(self.limits.max_body)
        scope["state"]["client"] = (scope.get("client") or ("unknown", 0))[0]
        path = scope["path"]
        if self.key is None or path in OPEN_PATHS or path == PAGE or path.startswith(f"{PAGE}/"):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self.key):
            challenge = {"WWW-Authenticate": "Bearer"}
            raise Fault(401, "a valid API key is needed", code="invalid_api_key", headers=challenge)


def too_large(limit: int) -> Fault:
    return Fault(413, f"the request has more than {limit} bytes", code="too_large", headers={"Connection": "close"})


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_local(host: str) -> bool:
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.lower() in LOOPBACK_NAMES


def _headers(scope: Scope) -> dict[str, str]:
    """Raises a Fault for a header that decides and comes twice."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        text = name.decode("latin-1").lower()
        if text in found and text in ("content-length", "host", "authorization"):
            raise Fault(400, f"the header {text} comes twice", code="bad_header")
        found[text] = value.decode("latin-1")
    return found


class _Body:
    """``receive`` that counts what comes and how long it takes; a body that says its length was weighed before."""

    def __init__(self, receive: Receive, limits: Limits, headers: dict[str, str]) -> None:
        self.receive, self.limits = receive, limits
        self.taken = 0
        self.complete = not {"content-length", "transfer-encoding"} & set(headers)  # there is none
        self.deadline: float | None = None

    async def __call__(self) -> Message:
        if self.complete:
            return await self.receive()
        if self.deadline is None:
            self.deadline = time.monotonic() + self.limits.body_s
        try:
            message = await asyncio.wait_for(self.receive(), max(0.0, self.deadline - time.monotonic()))
        except TimeoutError:
            close = {"Connection": "close"}
            raise Fault(408, "the request's body took too long", code="timeout", headers=close) from None
        if message["type"] == "http.request":
            self.taken += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
            if self.taken > self.limits.max_body:
                raise too_large(self.limits.max_body)
        return message


class _Answer:
    """``send`` that adds the request's id and remembers the status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.send, self.request_id, self.status = send, request_id, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            added = [(b"x-request-id", self.request_id.encode()), (b"x-content-type-options", b"nosniff")]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await self.send(message)

    async def fault(self, fault: Fault) -> None:
        """Unless an answer has begun, which can only be cut short then."""
        if self.status:
            return
        data = fault.data
        headers = {"content-type": "application/json", "content-length": str(len(data)), **fault.headers}
        pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self({"type": "http.response.start", "status": fault.status, "headers": pairs})
        await self({"type": "http.response.body", "body": data})
