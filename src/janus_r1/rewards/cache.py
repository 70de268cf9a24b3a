"""Answers that need not be asked for again: JSON values by key, in memory or in one SQLite file.

SQLite rather than a file an answer: one transaction each, safe with many threads and processes.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

from janus_r1.errors import UserError

LOCK_WAIT_S = 30.0  # for other processes that write the same file


def key(*parts: str | bytes) -> str:
    """A digest of the parts; their borders count."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


class Cache:
    """At most ``limit`` values, the oldest dropped first. Without a path they live as long as this object.

    Raises:
        UserError: from every method, when the file is no cache or the disk refuses.
    """

    def __init__(self, path: str | Path | None = None, limit: int = 1_000_000) -> None:
        self.path, self.limit = path, limit
        self._lock = threading.Lock()
        try:
            if path is not None:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(str(path or ":memory:"), timeout=LOCK_WAIT_S, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise self._complaint(error) from None
        # A killed process loses nothing; a power cut may, which a cache can bear. Else every put takes 15 ms.
        self._run("PRAGMA synchronous = OFF")
        self._run("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        self._count = int(self._run("SELECT COUNT(*) FROM answers")[0][0])

    def get(self, name: str) -> Any:
        """The value, or ``None``."""
        rows = self._run("SELECT value FROM answers WHERE key = ?", name)
        try:
            return json.loads(rows[0][0]) if rows else None
        except (TypeError, ValueError, RecursionError):
            return None  # somebody else's row: as if it were not there

    def put(self, name: str, value: Any) -> None:
        self._run("INSERT OR REPLACE INTO answers VALUES (?, ?)", name, json.dumps(value))
        self._count += 1
        if self._count > self.limit:
            oldest = "SELECT rowid FROM answers ORDER BY rowid LIMIT ?"
            self._run(f"DELETE FROM answers WHERE rowid IN ({oldest})", str(max(1, self.limit // 10)))
            self._count = int(self._run("SELECT COUNT(*) FROM answers")[0][0])

    def _run(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        try:
            with self._lock, self._file:
                return self._file.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._complaint(error) from None

    def _complaint(self, error: Exception) -> UserError:
        return UserError(f"cannot use the cache {self.path}: {error}; delete it, or set another path or none")
