"""One thread that owns the model and draws for everybody: a round at a time, whoever is waiting.

Requests hand in work (:class:`~janus_r1.serve.rounds.Drawing`, :class:`~janus_r1.serve.rounds.Look`) and hear of it
by events. Work joins and leaves at image boundaries: before every round the thread takes the oldest work and all other
work that may share its forwards, up to ``max_batch`` rows. So the oldest always moves on, and nothing starves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from janus_r1.api import JanusR1
from janus_r1.chain import Chain, Round, Verdict
from janus_r1.engine.decoder import Decoder
from janus_r1.errors import UserError
from janus_r1.serve import rounds as engine
from janus_r1.serve.rounds import Drawing, Look

log = logging.getLogger("janus_r1.serve")
LONGEST_RETRY_S = 60
GATHERED = 0.1  # of the time of a round: how long the next one may wait for whoever took part in the last
KEPT = 2  # batches whose unfinished chains keep their contexts between two rounds


@dataclass(frozen=True)
class Drawn:
    """A draft is there, its verdict is not yet."""

    index: int
    """Of the work in its request."""
    round: int
    """From 0."""
    pixels: np.ndarray


@dataclass(frozen=True)
class Judged:
    """A round is complete."""

    index: int
    round: int
    item: Round
    ms: float
    """Wall time of the batch's round, which all its rows share."""


@dataclass(frozen=True)
class Finished:
    """A chain that is complete, or the verdict that was wanted."""

    index: int
    result: Chain | Verdict
    input_tokens: int
    stop: str
    """``accepted``, ``rounds``, or ``context`` where no further round fits into the model's positions."""
    cut: bool = False
    """Whether the model read the prompt's beginning alone."""


@dataclass(frozen=True)
class Failed:
    index: int
    error: Exception


Event = Drawn | Judged | Finished | Failed


class Full(Exception):
    """No room in the queue. ``retry_s`` is when there may be."""

    def __init__(self, retry_s: int) -> None:
        super().__init__("the queue is full")
        self.retry_s = retry_s


class Stopping(Exception):
    """The server is going down and takes no new work."""


@dataclass(eq=False)
class _Job:
    """Work with what the scheduler knows of it."""

    work: Drawing | Look
    model: str
    index: int
    notify: Callable[[Event], None]
    prepared: bool = False
    cancelled: bool = False

    @property
    def key(self) -> tuple:
        return self.model, *self.work.key


@dataclass
class Counts:
    """What the thread has done so far; read by /metrics."""

    rounds: int = 0
    batches: int = 0
    rows: int = 0
    images: int = 0
    image_tokens: int = 0
    text_tokens: int = 0
    accepted: int = 0
    rejected: int = 0
    looks: int = 0
    cancelled: int = 0
    failed: int = 0
    finished_rounds: dict[int, int] = field(default_factory=dict)
    """Rounds of a finished chain -> how many chains."""


class Ticket:
    """A request's work on its way. Iterate over it for events; it ends when all of its work has.

    It belongs to the event loop in which it was made.
    """

    def __init__(self, work: Sequence[Drawing | Look], model: str, forget: Callable[[Sequence[_Job]], None]) -> None:
        self.jobs = [_Job(item, model, index, self.notify) for index, item in enumerate(work)]
        self._forget = forget
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._open = len(work)

    def notify(self, event: Event) -> None:
        """From the model's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever waited
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while self._open:
            event = await self._events.get()
            self._open -= isinstance(event, (Finished, Failed))
            yield event

    def cancel(self) -> None:
        """Nobody waits any more: what is not finished leaves the batch when its round ends."""
        self._forget(self.jobs)


class Scheduler:
    """``models``: by the name that requests use; the first is the default. ``max_waiting`` bounds work in the house.

    ``window``: image tokens drawn in one forward; None: as many as pay for the batch at hand.
    """

    def __init__(
        self,
        models: Mapping[str, JanusR1],
        *,
        max_batch: int = 16,
        max_waiting: int = 256,
        linger_s: float = 0.004,
        window: int | None = None,
    ) -> None:
        self.models = dict(models)
        self.max_batch, self.max_waiting, self.linger_s, self.window = max_batch, max_waiting, linger_s, window
        self.counts = Counts()
        self._jobs: list[_Job] = []  # in order of arrival
        self._changed = threading.Condition()
        self._stopping = False
        self._commands: deque[tuple[Callable[[], None], Callable[[Exception | None], None]]] = deque()
        self._decoders: dict[str, Decoder] = {}
        self._pace = 1.0  # seconds a row, as measured
        self._last = (0, 0.0)  # rows and seconds of the last round
        self._thread = threading.Thread(target=self._run, name="janus-r1-model", daemon=True)

    # ------------------------------------------------------------------------------ from the event loop

    def start(self) -> None:
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Work in the house, running or not."""
        return len(self._jobs)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._stopping

    @property
    def stopping(self) -> bool:
        return self._stopping

    def submit(self, work: Sequence[Drawing | Look], model: str) -> Ticket:
        """Hand in the work of one request: all of it or nothing.

        Raises:
            Full: where it would exceed ``max_waiting``.
            Stopping: when the server is going down.
        """
        with self._changed:
            if self._stopping or not self._thread.is_alive():
                raise Stopping
            if len(self._jobs) + len(work) > self.max_waiting:
                raise Full(self._retry_s())
            for item in work:
                item.format = self.models[model].model.format
            ticket = Ticket(work, model, self._forget)
            self._jobs += ticket.jobs
            self._changed.notify()
        return ticket

    def at_boundary(self, command: Callable[[], None], done: Callable[[Exception | None], None]) -> None:
        """Run ``command`` in the model's thread between two rounds (new weights); ``done`` hears how it went."""
        with self._changed:
            if self._stopping:
                raise Stopping
            self._commands.append((command, done))
            self._changed.notify()

    def stop(self) -> None:
        """Take no more work, finish what there is, end the thread. Blocks."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident:
            self._thread.join()

    def _retry_s(self) -> int:
        """Until about half of what is waiting is done."""
        return max(1, min(LONGEST_RETRY_S, round(self._pace * len(self._jobs) / 2)))

    def _forget(self, jobs: Sequence[_Job]) -> None:
        with self._changed:
            gone = {id(job) for job in jobs}
            dropped = [job for job in self._jobs if id(job) in gone]
            for job in dropped:
                job.cancelled = True
            self._jobs = [job for job in self._jobs if id(job) not in gone]
            self.counts.cancelled += len(dropped)

    # ------------------------------------------------------------------------------ in the model's thread

    def _run(self) -> None:
        while True:
            batch, command = self._next()
            if command:
                self._obey(*command)
            elif batch:
                self._serve(batch)
            else:
                return

    def _next(self) -> tuple[list[_Job], tuple[Callable[[], None], Callable[[Exception | None], None]] | None]:
        """A command, or a batch; neither when the thread is to end."""
        with self._changed:
            while not self._jobs and not self._commands and not self._stopping:
                self._changed.wait()
            if self._commands:
                return [], self._commands.popleft()
            if self._jobs and self.linger_s:
                self._gather()
            same = [job for job in self._jobs if job.key == self._jobs[0].key]
            return same[: self.max_batch], None

    def _gather(self) -> None:
        """Wait a little for others who may be about to come: for as many as there were, whose answers have just gone
        out, a tenth of the time that their round took; for anybody else a few milliseconds.
        """
        rows, seconds = self._last
        expected, until = min(self.max_batch, rows), time.monotonic() + GATHERED * seconds
        self._changed.wait_for(lambda: len(self._jobs) >= self.max_batch, self.linger_s)
        while len(self._jobs) < expected and (left := until - time.monotonic()) > 0 and not self._stopping:
            self._changed.wait(left)

    def _obey(self, command: Callable[[], None], done: Callable[[Exception | None], None]) -> None:
        try:
            command()
        except Exception as error:
            done(error)
        else:
            self._decoders.clear()
            done(None)

    def _serve(self, batch: list[_Job]) -> None:
        """A round for every job; whatever goes wrong is its own job's, or the whole batch's, never the thread's."""
        began = time.monotonic()
        ready = [job for job in batch if self._prepare(job)]
        try:
            if ready:
                self._advance(ready, began)
        except (torch.OutOfMemoryError, MemoryError) as error:
            self._out_of_memory(ready, error)
        except Exception as error:
            log.exception("a batch of %d failed", len(ready))
            for job in ready:
                self._end(job, Failed(job.index, error))
        self._last = len(batch), time.monotonic() - began
        self._pace = 0.8 * self._pace + 0.2 * self._last[1] / len(batch)

    def _prepare(self, job: _Job) -> bool:
        """Whether the job can take part in a round; it has heard why where it cannot."""
        model = self.models[job.model].model
        try:
            if not job.prepared:
                engine.prepare(model, job.work)
                job.prepared = True
            if isinstance(job.work, Look) or engine.fits(model, job.work):
                return True
            if not job.work.rounds:
                raise UserError("the request is too long for the model: shorten the prompt")
            self._end(job, Finished(job.index, job.work.chain(), job.work.input_tokens, "context", job.work.cut))
        except UserError as error:
            self._end(job, Failed(job.index, error))
        except Exception as error:
            log.exception("work could not be prepared")
            self._end(job, Failed(job.index, error))
        return False

    def _advance(self, jobs: list[_Job], began: float) -> None:
        decoder = self._decoder(jobs[0].model)
        self.counts.batches += 1
        self.counts.rows += len(jobs)
        if isinstance(jobs[0].work, Look):
            looks = [job.work for job in jobs if isinstance(job.work, Look)]
            for job, verdict in zip(jobs, engine.look(decoder, looks, self.window), strict=True):
                self.counts.looks += 1
                self.counts.text_tokens += verdict.tokens
                self._end(job, Finished(job.index, verdict, job.work.input_tokens, "judged", job.work.cut))
            return
        chains = [job.work for job in jobs if isinstance(job.work, Drawing)]

        def drawn(position: int, pixels: np.ndarray) -> None:
            job = jobs[position]
            job.notify(Drawn(job.index, len(chains[position].rounds), pixels))

        items = engine.next_rounds(decoder, chains, drawn, self.window)
        ms = 1000 * (time.monotonic() - began)
        for job, chain, item in zip(jobs, chains, items, strict=True):
            chain.rounds.append(item)
            self._count(item)
            job.notify(Judged(job.index, len(chain.rounds) - 1, item, ms))
            if chain.finished():
                stop = "accepted" if item.verdict.accepted and chain.settings.early_stop else "rounds"
                drafts = len(chain.rounds)
                self.counts.finished_rounds[drafts] = self.counts.finished_rounds.get(drafts, 0) + 1
                self._end(job, Finished(job.index, chain.chain(), chain.input_tokens, stop, chain.cut))
        self._forget_contexts(KEPT * self.max_batch)

    def _forget_contexts(self, most: int) -> None:
        """Let the oldest chains alone keep their contexts, which take memory: theirs is the next round."""
        drawings = [job.work for job in list(self._jobs) if isinstance(job.work, Drawing)]
        for chain in [chain for chain in drawings if chain.kept][most:]:
            chain.kept = None

    def _count(self, item: Round) -> None:
        counts = self.counts
        counts.rounds += 1
        counts.images += 1
        counts.image_tokens += len(item.ids)
        counts.text_tokens += item.verdict.tokens
        counts.accepted += item.verdict.accepted
        counts.rejected += not item.verdict.accepted

    def _decoder(self, name: str) -> Decoder:
        if name not in self._decoders:
            self._decoders[name] = Decoder(self.models[name].model)
        return self._decoders[name]

    def _out_of_memory(self, jobs: list[_Job], error: Exception) -> None:
        """Half as many rows from now on; the jobs stay and are tried again, unless there was only one."""
        self._forget_contexts(0)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(jobs) == 1:
            self._end(jobs[0], Failed(jobs[0].index, error))
            return
        self.max_batch = len(jobs) // 2
        log.warning("out of memory with %d rows: %d from now on", len(jobs), self.max_batch)

    def _end(self, job: _Job, event: Finished | Failed) -> None:
        with self._changed:
            self._jobs = [other for other in self._jobs if other is not job]
        self.counts.failed += isinstance(event, Failed)
        job.notify(event)
