"""One call of an OpenAI-compatible chat endpoint, tried again where that may help.

Only the standard library: a judge takes a second a question, so that a connection a question costs
nothing that could be seen. Redirects are refused, because they would carry the API key elsewhere.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from janus_r1.errors import UserError, require
from janus_r1.images import data_url
from janus_r1.rewards.score import Abstained

MAX_ANSWER_BYTES = 4_000_000
PIECE = 65_536
WORTH_ANOTHER_TRY = frozenset((408, 425, 429))  # beside all of 5xx


@dataclass(frozen=True)
class Patience:
    """How long to wait and how often to try."""

    tries: int = 5
    timeout_s: float = 60.0
    """Of one try, from sending to the last byte."""
    backoff_s: float = 1.0
    """Wait after the first failure; doubled after each further one, times 0.5 to 1.5 at random."""
    longest_wait_s: float = 60.0
    """Longest wait between two tries; a server that asks for more is given up."""


@dataclass(frozen=True)
class Failure:
    """A try that brought no answer."""

    why: str
    again: bool
    after_s: float | None = None
    """Wait that the server asks for."""


@dataclass
class Spent:
    """What calls have cost so far."""

    calls: int = 0
    """Answered ones."""
    failed: int = 0
    """Tries that brought no answer."""
    tokens: int = 0
    """As the server counts them, where it does."""


class Chat:
    """A model behind ``url`` (the base, as in ``http://localhost:8000/v1``). Safe to call from many threads.

    A bare address gets the usual ``/v1``. Several addresses with commas between them are replicas of one server: calls
    go to them in turn, and a try that failed goes to the next.

    Raises:
        UserError: for an address that is none, or a key that cannot stand in a header.
    """

    def __init__(
        self,
        url: str,
        model: str,
        api_key: str | None = None,
        patience: Patience | None = None,
        route: str = "chat/completions",
        max_bytes: int | None = None,
    ) -> None:
        self.urls = [endpoint(part, route) for part in url.split(",") if part.strip()]
        self.max_bytes, self.spent, self._lock = max_bytes or MAX_ANSWER_BYTES, Spent(), threading.Lock()
        self._turn = itertools.count()
        self.model, self.patience = model, patience or Patience()
        self._key = (api_key or "").strip()
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if not self.urls or not all(map(_is_address, self.urls)):
            raise UserError(f"{url!r} is not the address of an endpoint: use one like http://localhost:8000/v1")
        if not self._key.isascii() or not self._key.isprintable():
            raise UserError("the API key holds characters that a header cannot carry: copy it again")
        if self._key:
            self._headers["Authorization"] = f"Bearer {self._key}"
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._random = random.Random()  # its own: waiting must not disturb a seeded run

    @property
    def url(self) -> str:
        """Of the first replica; all hold the same model."""
        return self.urls[0]

    def complete(self, body: dict[str, Any], deadline: float = float("inf")) -> dict[str, Any] | Abstained:
        """The server's answer to ``body``; ``deadline`` is a time.monotonic() after which none is awaited."""
        data = json.dumps({"model": self.model, **body}).encode()
        failure = Failure("out of time: not asked", again=True)
        turn = next(self._turn)
        for attempt in range(self.patience.tries):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            url = self.urls[(turn + attempt) % len(self.urls)]
            answer = self._try(url, data, min(self.patience.timeout_s, left))
            self._count(answer)
            if isinstance(answer, dict):
                return answer
            failure = answer
            wait = self._wait(failure, attempt)
            if not failure.again or attempt + 1 == self.patience.tries or time.monotonic() + wait > deadline:
                break
            time.sleep(wait)
        return Abstained(failure.why)

    def _count(self, answer: dict[str, Any] | Failure) -> None:
        with self._lock:
            if isinstance(answer, Failure):
                self.spent.failed += 1
                return
            usage = answer.get("usage")
            tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
            self.spent.calls += 1
            self.spent.tokens += tokens if isinstance(tokens, int) and tokens > 0 else 0

    def _wait(self, failure: Failure, attempt: int) -> float:
        """Seconds before the next try: exponential with jitter, but never less than the server asks for."""
        wait = self.patience.backoff_s * 2**attempt * self._random.uniform(0.5, 1.5)
        return max(min(wait, self.patience.longest_wait_s), failure.after_s or 0.0)

    def _try(self, url: str, data: bytes, seconds: float) -> dict[str, Any] | Failure:
        request = urllib.request.Request(url, data, self._headers)
        try:
            end = time.monotonic() + seconds
            with self._opener.open(request, timeout=seconds) as response:
                return _object(_read(response, end, self.max_bytes))
        except urllib.error.HTTPError as error:
            with error:
                return self._patient(_refused(error, self._key))
        except (OSError, http.client.HTTPException, ValueError) as error:
            return _broken(error)

    def _patient(self, failure: Failure) -> Failure:
        """Trying earlier than the server asks for would only make it angrier: too long a wait is no try."""
        if not failure.again or (failure.after_s or 0.0) <= self.patience.longest_wait_s:
            return failure
        asks = f"the server asks to wait for {failure.after_s:.0f} s"
        return Failure(f"{failure.why.partition(':')[0]}: {asks}", again=False)


def api_key(variable: str | None) -> str | None:
    """The API key that an environment variable holds; None where none is named.

    Raises:
        UserError: if the variable is not set.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    require(bool(key), f"api_key_env names the environment variable {variable}, which is not set: export it")
    return key


def question(images: Sequence[np.ndarray], text: str) -> dict[str, Any]:
    """The message that shows images (uint8 [H, W, 3]) and asks about them."""
    pictures = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    return {"role": "user", "content": [*pictures, {"type": "text", "text": text}]}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def endpoint(url: str, route: str) -> str:
    """The address of a route of an OpenAI-compatible server, from its base address with or without ``/v1``."""
    base = url.strip().rstrip("/").removesuffix(f"/{route}")
    if urlsplit(base).path in ("", "/"):
        base += "/v1"
    return f"{base}/{route}"


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        plain = url.isascii() and url.isprintable() and " " not in url
        return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def _read(response: http.client.HTTPResponse, end: float, max_bytes: int) -> bytes:
    """The whole body. The socket's timeout starts anew with every piece, so the clock is read, too."""
    pieces, size = [], 0
    while piece := response.read1(PIECE):
        pieces.append(piece)
        size += len(piece)
        if time.monotonic() > end:
            raise TimeoutError
        if size > max_bytes:
            raise ValueError("bad answer: too long")
    if response.length:  # what was promised and did not come
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(pieces)


def _object(data: bytes) -> dict[str, Any] | Failure:
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        return Failure(f"bad answer: not JSON but {data[:40]!r}", again=False)
    if not isinstance(answer, dict):
        return Failure("bad answer: not a JSON object", again=False)
    return answer


def _refused(error: urllib.error.HTTPError, secret: str) -> Failure:
    """An HTTP status with the beginning of what the server says about it, which must not show the key."""
    try:
        said = " ".join(error.read1(2000).decode("utf-8", "replace").split())  # one piece: it may be endless
    except (OSError, http.client.HTTPException):
        said = ""
    said = (said.replace(secret, "***") if secret else said)[:200]
    again = error.code in WORTH_ANOTHER_TRY or error.code >= 500
    return Failure(f"HTTP {error.code}: {said or error.reason}", again, retry_after(error.headers.get("Retry-After")))


def _broken(error: Exception) -> Failure:
    """A connection that failed, or an answer cut short."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return Failure("timed out", again=True)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Failure(f"no connection: {cause.verify_message}", again=False)
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return Failure(str(error) if "bad answer" in str(error) else f"bad answer: {error}", again=False)
    return Failure(f"no connection: {cause or type(cause).__name__}", again=True)


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; ``None`` if it asks for nothing."""
    try:
        seconds = float(value or "")
    except ValueError:
        try:
            when = parsedate_to_datetime(value or "")
        except ValueError:
            return None
        aware = when if when.tzinfo else when.replace(tzinfo=UTC)
        seconds = (aware - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if seconds < float("inf") else None  # NaN compares as false
