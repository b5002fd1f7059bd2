"""A content-addressed cache of model outputs, shared by all crawls, recipes and tasks of one machine.

One SQLite file in WAL mode: a kill loses at most the batch being stored. It is a cache and behaves as one: whatever is
wrong with the file (damaged, locked, no space, no permission) costs hits and never fails a task. Every entry carries a
checksum over key and value, so a damaged one is a miss. The least recently used entries go when the file is full.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

log = logging.getLogger(__name__)

MAX_BYTES = 2 << 30
"""Size of the file at which old entries go; an output of a chunk takes about 220 bytes with its index."""
EVICTED = 2
"""Entries that go for each one stored while the file is full: more than come, so that it stops growing."""
BUSY_SECONDS = 10.0
"""Wait for another task's write before a batch is not stored."""
KEYS_AT_ONCE = 500
"""Keys of one SELECT; SQLite allows 999 everywhere."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outputs (
    key BLOB PRIMARY KEY, value BLOB NOT NULL, checksum BLOB NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outputs_by_use ON outputs (used);
"""
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_Result = TypeVar("_Result")


class SqliteOutputCache:
    """The cache in one file; a context manager.

    Args:
        path: The SQLite file; its folder is created. A file lock beside it tells who has it open.
        max_bytes: Size at which the least recently used entries go.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._lock: IO[str] | None = None
        self._connection: sqlite3.Connection | None = None
        self._session = 0
        self._off = False

    def __enter__(self) -> "SqliteOutputCache":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; the next call opens it again."""
        with contextlib.suppress(sqlite3.Error):
            if self._connection is not None:
                self._connection.close()
        if self._lock is not None:
            self._lock.close()
        self._connection, self._lock = None, None

    def find(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """Returns the values that are there and whole, and marks them as used."""
        return self._guarded(lambda connection: self._find(connection, keys)) or {}

    def store(self, values: Mapping[bytes, str]) -> None:
        """Keeps values; a key that is there keeps its place and gets the new value."""
        self._guarded(lambda connection: self._store(connection, values))

    def _find(self, connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, str]:
        found: dict[bytes, str] = {}
        damaged: list[bytes] = []
        stale: list[bytes] = []
        for start in range(0, len(keys), KEYS_AT_ONCE):
            some = keys[start : start + KEYS_AT_ONCE]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, value, checksum, used FROM outputs WHERE key IN ({marks})"
            for key, value, checksum, used in connection.execute(query, list(some)):
                if not isinstance(value, bytes) or checksum != _checksum(key, value):
                    damaged.append(key)
                    continue
                found[key] = value.decode()
                if used != self._session:
                    stale.append(key)
        if damaged or stale:
            with _writing(connection):
                connection.executemany("DELETE FROM outputs WHERE key = ?", [(key,) for key in damaged])
                used_now = [(self._session, key) for key in stale]
                connection.executemany("UPDATE outputs SET used = ? WHERE key = ?", used_now)
        if damaged:
            log.warning("%d damaged entries of %s were thrown away", len(damaged), self.path.name)
        return found

    def _store(self, connection: sqlite3.Connection, values: Mapping[bytes, str]) -> None:
        encoded = [(key, value.encode()) for key, value in values.items()]
        rows = [(key, value, _checksum(key, value), self._session) for key, value in encoded]
        with _writing(connection):
            if self._size(connection) > self._max_bytes:
                oldest = "SELECT key FROM outputs ORDER BY used LIMIT ?"
                connection.execute(f"DELETE FROM outputs WHERE key IN ({oldest})", (EVICTED * len(rows),))
            connection.executemany("INSERT OR REPLACE INTO outputs VALUES (?, ?, ?, ?)", rows)

    @staticmethod
    def _size(connection: sqlite3.Connection) -> int:
        """Returns the bytes of pages in use."""
        page_size, pages, free = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_size", "page_count", "freelist_count")
        )
        return page_size * (pages - free)

    def _guarded(self, step: Callable[[sqlite3.Connection], _Result]) -> _Result | None:
        """Returns what a step returns, None where the file does not serve; a damaged file is replaced once."""
        for attempt in (1, 2):
            if self._off:
                return None
            try:
                return step(self._open())
            except (sqlite3.Error, OSError) as error:
                self._recover(error, last=attempt == 2)
        return None

    def _recover(self, error: Exception, *, last: bool) -> None:
        """Moves a damaged file aside; after any other error, and where others have it open, does without the cache."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest is detail
        damaged = code in _DAMAGE
        if damaged and not last and self._move_aside():
            log.warning("the cache %s is damaged (%s); it was moved aside and begins anew", self.path.name, error)
            return
        busy = code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        log.warning("the cache %s does not serve this time: %s", self.path.name, error)
        self._off = self._off or not busy
        self.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self.path.with_name(self.path.name + ".lock").open("a")
            fcntl.flock(self._lock, fcntl.LOCK_SH)  # held while the file is open: nobody moves it meanwhile
            self._connection = connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
            (last,) = connection.execute("SELECT max(used) FROM outputs").fetchone()
            self._session = int(last or 0) + 1
        return self._connection

    def _move_aside(self) -> bool:
        """Renames the file where no other task has it open; returns whether it is gone.

        An open SQLite file must not be renamed: its last user would delete the journal of the new one.
        """
        self.close()
        with self.path.with_name(self.path.name + ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            for suffix in ("-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):
                    place = self.path.with_name(self.path.name + suffix)
                    os.replace(place, place.with_name(f"{self.path.name}.damaged{suffix}"))
        return True


@contextlib.contextmanager
def _writing(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction that waits for other writers at its beginning, where waiting is safe."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _checksum(key: bytes, value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=8, key=key).digest()
