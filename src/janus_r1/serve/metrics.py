"""What /metrics tells Prometheus: requests, queue, images, tokens, rounds, verdicts, memory. Never a prompt."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from janus_r1.serve.limits import Seen
from janus_r1.serve.scheduler import Scheduler

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
