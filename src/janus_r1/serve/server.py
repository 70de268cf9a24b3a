"""uvicorn around the application: patience with headers, graceful end, several processes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from janus_r1.errors import UserError
from janus_r1.serve.answers import Fault

MAX_HEADERS = 32_768  # bytes of a request's line and headers
HEADERS_S = 15.0  # in which they must have come
KEEP_ALIVE_S = 20
MAX_CONNECTIONS = 1024


class Patient(H11Protocol):
    """uvicorn's protocol, which waits for headers for ever, with a limit to that; its own refusals in our shape."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._hurry: asyncio.TimerHandle | None = None
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(Fault(503, "too many connections: try again", code="too_many_connections", retry_s=1))
        else:
            self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._hurry is None and self._idle:
            self._await_headers()
        super().data_received(data)
        if not self._idle:
            self._stop_waiting()

    def shutdown(self) -> None:
        """When the server ends, a tab's heartbeat, which would last as long as the tab, is no answer to wait for."""
        if not self._idle and "/heartbeat/" in self.scope["path"]:
            self.transport.close()
        else:
            super().shutdown()

    @property
    def _idle(self) -> bool:
        """Between two requests, or before the first: nothing is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _await_headers(self) -> None:
        self._hurry = self.loop.call_later(HEADERS_S, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._hurry is not None:
            self._hurry.cancel()
            self._hurry = None

    def _too_slow(self) -> None:
        self._hurry = None
        if self._idle and not self.transport.is_closing():
            self._refuse(Fault(408, "the request's headers took too long", code="timeout"))

    def send_400_response(self, msg: str) -> None:
        self._refuse(Fault(400, "not a valid HTTP request", code="bad_request"))

    def _refuse(self, fault: Fault) -> None:
        """An answer where there is no request that an application could see."""
        data = fault.data
        headers = {"content-type": "application/json", "content-length": str(len(data)), "connection": "close"}
        lines = [f"HTTP/1.1 {fault.status} {STATUS_PHRASES[fault.status].decode()}"]
        lines += [f"{name}: {value}" for name, value in {**headers, **fault.headers}.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + data)
        with contextlib.suppress(h11.LocalProtocolError):
            self.conn.send(h11.ConnectionClosed())
        self.transport.close()


class Server(uvicorn.Server):
    """Ends when told to, without dying of the signal that told it. ``ready`` is set when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self.when_ready: Callable[[], None] = lambda: None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()
        self.when_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:  # type: ignore[override]
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        kinds = (signal.SIGINT, signal.SIGTERM)
        before = {kind: signal.signal(kind, self.handle_exit) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)


def server(app: Any, drain_s: float = 300.0, log_level: str = "warning") -> Server:
    """A server for an application. Addresses that proxies claim are not believed.

    ``drain_s``: how long answers may take after a SIGTERM before they are cut.
    """
    config = uvicorn.Config(
        app,
        http=Patient,
        ws="none",
        lifespan="on",
        log_level=log_level,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(drain_s)),
        h11_max_incomplete_event_size=MAX_HEADERS,
    )
    return Server(config)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        UserError: for an address that is not this machine's, or a port that is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen on {host}:{port}: {error}; choose another --host or --port") from None
    listening.setblocking(False)
    return listening


def run(
    make_app: Callable[[str], Any],
    devices: Sequence[str],
    listening: socket.socket,
    drain_s: float,
    ready: Callable[[], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C: in this process, or in one process a device where there are several.

    All processes accept from one socket. Each has a model and a queue of its own. ``ready`` is called when the first
    listens.
    """
    if len(devices) == 1:
        only = server(make_app(devices[0]), drain_s)
        only.when_ready = ready
        only.run([listening])
        return
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_worker, args=(make_app, device, listening, drain_s), name=f"janus-r1 on {device}")
        for device in devices
    ]
    for worker in workers:
        worker.start()
    ready()
    asked = threading.Event()
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, lambda *_: asked.set())
    while not asked.wait(0.2) and all(worker.is_alive() for worker in workers):
        pass
    for worker in workers:
        if worker.is_alive():
            worker.terminate()  # SIGTERM: it drains
    for worker in workers:
        worker.join()
    if not asked.is_set():
        failed = next(worker.name for worker in workers if worker.exitcode)
        raise UserError(f"{failed} ended by itself: its messages stand above")


def _worker(make_app: Callable[[str], Any], device: str, listening: socket.socket, drain_s: float) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(processName)s %(message)s")
    server(make_app(device), drain_s).run([listening])
