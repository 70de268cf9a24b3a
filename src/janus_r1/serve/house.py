"""What all routes share: the queue, the limits, and what a request that says less than it could means."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from janus_r1.serve.drawing import Defaults
from janus_r1.serve.faults import Fault
from janus_r1.serve.limits import Clients, Limits
from janus_r1.serve.metrics import Metrics
from janus_r1.serve.rounds import Drawing, Look
from janus_r1.serve.scheduler import Full, Scheduler, Stopping, Ticket

log = logging.getLogger("janus_r1.serve")


@dataclass
class House:
    """What all routes share."""

    scheduler: Scheduler
    limits: Limits = field(default_factory=Limits)
    defaults: Defaults = field(default_factory=Defaults)
    aliases: Sequence[str] = ()
    """Further names that mean the default model."""
    key: str | None = None
    local: bool = True
    log_prompts: bool = False
    clients: Clients = field(init=False)
    metrics: Metrics = field(init=False)
    began: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.clients = Clients(self.limits.per_client)
        self.metrics = Metrics(self.scheduler)

    @property
    def names(self) -> list[str]:
        return list(self.scheduler.models)

    def model(self, name: str | None) -> str:
        """The model that a request means.

        Raises:
            Fault: 404 for a name that means none.
        """
        if name is None or name in self.aliases:
            return self.names[0]
        if name not in self.scheduler.models:
            known = ", ".join(self.names)
            raise Fault(404, f"no such model here: use {known}", param="model", code="model_not_found")
        return name

    @contextlib.contextmanager
    def admitted(self, client: str, work: Sequence[Drawing | Look], model: str, name: str = "") -> Iterator[Ticket]:
        """A place in the queue for a request's work, within the client's own limit; left early, the work is called off.

        ``name`` is the request's, for the log.

        Raises:
            Fault: 429 or 503, with Retry-After.
        """
        with self.clients.holding(client, len(work)):
            try:
                ticket = self.scheduler.submit(work, model)
            except Full as full:
                raise Fault(503, "the queue is full: try again", code="queue_full", retry_s=full.retry_s) from None
            except Stopping:
                raise Fault(503, "the server is going down", code="shutting_down", retry_s=10) from None
            if self.log_prompts:
                log.info("request %s: %r", name, work[0].prompt)
            try:
                yield ticket
            finally:
                ticket.cancel()
