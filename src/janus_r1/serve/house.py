"""What all routes share: the models, the queue, the limits, what a request that says less than it could means, and the
metrics.

Models are one, and copies of it with LoRA adapters merged in, each under its own name.

Metrics are what /metrics tells Prometheus: requests, queue, images, tokens, rounds, verdicts, memory. Never a prompt.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from janus_r1.api import JanusR1
from janus_r1.errors import UserError, require
from janus_r1.model.adapters import CONFIG, WEIGHTS, merge_into
from janus_r1.model.matrices import refuse
from janus_r1.serve.answers import Fault
from janus_r1.serve.limits import Clients, Defaults, Limits, Seen
from janus_r1.serve.rounds import Drawing, Look
from janus_r1.serve.scheduler import Full, Scheduler, Stopping, Ticket

SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
MOST_ROUNDS = 8
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


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


# ------------------------------------------------------------------------------------------------- models


def served_name(model: str) -> str:
    """What clients call a model: an embedded model's name, a Hub id, or the name of a folder."""
    folder = Path(model)
    return folder.resolve().name if folder.is_dir() else model


def adapter_folders(given: Sequence[str]) -> dict[str, Path]:
    """``name=folder`` -> folders by name.

    Raises:
        UserError: for anything else, for names twice, and for folders that do not hold an adapter as safetensors.
    """
    folders: dict[str, Path] = {}
    for item in given:
        name, equals, folder = item.partition("=")
        require(bool(equals and NAME.fullmatch(name)), f"adapter {item!r}: write it as name=folder")
        require(name not in folders, f"two adapters are called {name}: give each a name of its own")
        path = Path(folder)
        if not (path / WEIGHTS).is_file() or not (path / CONFIG).is_file():
            raise UserError(f"{folder} is not a LoRA folder: it needs {CONFIG} and {WEIGHTS}")
        folders[name] = path
    return folders


def load_all(model: str, dtype: str, device: str, kv: str, adapters: Sequence[str]) -> dict[str, JanusR1]:
    """The model under its own name first, then one for every adapter.

    An adapter's model is a whole copy, which costs the model's memory once more; in return a request for it is as fast
    as one for the base, and its rows may be cut off from no cache.

    Raises:
        UserError: for models and adapters that cannot be loaded.
    """
    folders = adapter_folders(adapters)
    name = served_name(model)
    require(name not in folders, f"an adapter must not be called {name}, as the model is")
    loaded = {name: JanusR1.from_pretrained(model, dtype=dtype, device=device, kv=kv)}
    for adapter, folder in folders.items():
        loaded[adapter] = _merged(JanusR1.from_pretrained(model, dtype=dtype, device=device, kv=kv), folder)
    return loaded


def _merged(model: JanusR1, folder: Path) -> JanusR1:
    refuse(model.model)  # rounded weights cannot be added to
    merge_into(model.model, folder)
    return model
