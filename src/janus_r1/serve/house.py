"""What all routes share: the queue, the limits, what a request that says less than it could means, and the metrics.

Metrics are what /metrics tells Prometheus: requests, queue, images, tokens, rounds, verdicts, memory. Never a prompt.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from janus_r1.serve.faults import Fault
from janus_r1.serve.limits import Clients, Defaults, Limits, Seen
from janus_r1.serve.rounds import Drawing, Look
from janus_r1.serve.scheduler import Full, Scheduler, Stopping, Ticket

SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
MOST_ROUNDS = 8


class Metrics:
    """The numbers of one process."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Model(scheduler))
        self.requests = Counter("janus_http_requests", "Requests", ["path", "status"], registry=self.registry)
        self.seconds = Histogram(
            "janus_http_request_seconds",
            "From the first byte to the last",
            ["path"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.paths: frozenset[str] = frozenset()
        """Known paths; all others count as one, or a client could make the server keep a number for each it invents."""

    def observe(self, seen: Seen) -> None:
        path = seen.path if seen.path in self.paths else "other"
        self.requests.labels(path, str(seen.status)).inc()
        self.seconds.labels(path).observe(seen.seconds)

    def text(self) -> bytes:
        """In Prometheus' own format."""
        return generate_latest(self.registry)


class _Model(Collector):
    """What the scheduler counts, read when it is asked for."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler

    def collect(self) -> Iterator[Metric]:
        counts = self.scheduler.counts
        yield GaugeMetricFamily("janus_queue", "Images and verdicts in the house", value=self.scheduler.waiting)
        yield GaugeMetricFamily("janus_queue_limit", "The most there may be", value=self.scheduler.max_waiting)
        for name, what, value in (
            ("janus_images", "Drafts drawn", counts.images),
            ("janus_image_tokens", "Image tokens sampled", counts.image_tokens),
            ("janus_text_tokens", "Tokens of verdicts", counts.text_tokens),
            ("janus_batches", "Rounds of the batch", counts.batches),
            ("janus_batch_rows", "Rows of these together", counts.rows),
            ("janus_judgements", "Pictures judged on request", counts.looks),
            ("janus_cancelled", "Work called off because its client had gone", counts.cancelled),
            ("janus_failed", "Work that failed", counts.failed),
        ):
            yield CounterMetricFamily(name, what, value=value)
        verdicts = CounterMetricFamily("janus_verdicts", "Verdicts on drafts", labels=["verdict"])
        verdicts.add_metric(["yes"], counts.accepted)
        verdicts.add_metric(["no"], counts.rejected)
        yield verdicts
        yield self._rounds()
        if torch.cuda.is_available():
            used = torch.cuda.memory_allocated()
            yield GaugeMetricFamily("janus_gpu_memory_bytes", "Held by tensors on the GPU", value=used)

    def _rounds(self) -> HistogramMetricFamily:
        finished = dict(self.scheduler.counts.finished_rounds)
        buckets = [(str(most), sum(n for r, n in finished.items() if r <= most)) for most in range(1, MOST_ROUNDS + 1)]
        buckets.append(("+Inf", sum(finished.values())))
        total = sum(rounds * count for rounds, count in finished.items())
        return HistogramMetricFamily(
            "janus_chain_rounds", "Drafts of a finished chain", buckets=buckets, sum_value=total
        )


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
