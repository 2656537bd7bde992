"""A database of SQLite in one file: made, checked, written by one connection, read by others.

SQLite releases the GIL while it works. On storage that several machines share, locks and mappings may not work, or
may last longer than who made them: there SQLite uses neither, and one connection does all, of one process.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Seconds that a connection waits for another one.
_BUSY = 5.0

_WITHOUT_LOCKS = "unix-none"
"""SQLite's own name of its file system without locks. It maps nothing either: the index of the log is in memory."""

# Readers that are kept for the next questions.
_READERS = 4

_DAMAGED = (
    "file is not a database",
    "malformed",
    "disk image",
    "no such table",
    "no such column",
    "no such index",
)


class SqliteFile:
    """The file is wherever ``path`` says that it is, with the tables that ``schema`` makes. Thread-safe.

    ``synced``: a transaction survives a power failure once it has ended; else only the end of the process.
    ``set_aside`` is the name that a damaged file gets, which is deleted otherwise. ``later`` makes what files of before
    may lack. ``shared``: it is on storage that several machines share; no other process has it open.
    Methods raise ``sqlite3.Error``, ``OSError``.
    """

    def __init__(
        self,
        path: Callable[[], Path],
        schema: str,
        version: int,
        *,
        synced: bool,
        set_aside: str | None = None,
        later: str = "",
        shared: bool = False,
    ) -> None:
        self._where = path
        self._schema = schema
        self._version = version
        self._synchronous = "FULL" if synced else "NORMAL"
        self._set_aside = set_aside
        self._later = later
        self._shared = shared
        # Who writes may read meanwhile.
        self._lock = threading.RLock()
        self._writer: sqlite3.Connection | None = None
        # Single operations of a list need no lock. To connect takes longer than most questions.
        self._readers: list[sqlite3.Connection] = []

    @property
    def _path(self) -> Path:
        return self._where()

    def exists(self) -> bool:
        """Whether there is such a file."""
        return self._path.exists()

    def open(self) -> bool:
        """Make it usable: a file that is not there, or damaged, becomes an empty one. Returns whether it is new."""
        with self._lock:
            return self._open()

    def _open(self) -> bool:
        if self._writer is not None and self._path.exists():
            return False
        self._close()
        if self._path.exists():
            try:
                self._connect_writer()
                return False
            except sqlite3.DatabaseError as error:
                self._close()
                if not is_damage(error):
                    raise
                if self._set_aside is not None:
                    self._path.rename(self._path.with_name(self._set_aside))
        self._create()
        return True

    def _connect_writer(self) -> None:
        writer = self._writer = self._connect()
        self._prepare(writer)
        (version,) = writer.execute("PRAGMA user_version").fetchone()
        (verdict,) = writer.execute("PRAGMA quick_check(1)").fetchone()
        if version != self._version or verdict != "ok":
            raise sqlite3.DatabaseError(f"malformed: version {version}, {verdict}")
        writer.execute(self._later)

    def _create(self) -> None:
        self._path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        for suffix in ("", "-wal", "-shm", "-journal"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        # It holds names of patients. SQLite gives its other files the same mode.
        os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        writer = self._writer = self._connect()
        self._prepare(writer)
        # All or nothing: a process that dies meanwhile leaves an empty file, which is made anew.
        writer.executescript(f"BEGIN; {self._schema} PRAGMA user_version = {self._version}; COMMIT;")
        writer.execute(self._later)

    def _prepare(self, writer: sqlite3.Connection) -> None:
        if self._shared:
            # Before the log is touched for the first time, or its index would be a mapping.
            writer.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        writer.execute("PRAGMA journal_mode = WAL").fetchall()
        writer.execute(f"PRAGMA synchronous = {self._synchronous}")

    def _connect(self) -> sqlite3.Connection:
        # Threads take turns at the connection that writes. No file is made by connecting.
        return connect(
            self._path,
            "rw",
            shared=self._shared,
            timeout=_BUSY,
            isolation_level=None,
            check_same_thread=False,
        )

    def discard(self) -> None:
        """It is damaged: ``open`` makes a new one."""
        with self._lock:
            self._close()
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing is written any more."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(sqlite3.Error):
                self._writer.close()
            self._writer = None
        self._readers, idle = [], self._readers
        for reader in idle:
            reader.close()

    @contextmanager
    def writing(self, *, synced: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction; if not ``synced``, a power failure may undo it, unless another one is synced after it."""
        with self._lock:
            writer = self._opened()
            writer.execute(f"PRAGMA synchronous = {self._synchronous if synced else 'NORMAL'}")
            with _transaction(writer, "BEGIN IMMEDIATE"):
                yield writer

    def _opened(self) -> sqlite3.Connection:
        if self._writer is None:
            raise sqlite3.OperationalError(f"{self._path.name} is not open")
        return self._writer

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one state from its first question on; its ``row_factory`` may be set.

        It is another one than that which writes, unless ``shared``: there who asks within a transaction of the same
        thread sees what that has written so far.
        """
        if self._shared:
            with self._reading_alone() as reader:
                yield reader
            return
        readers = self._readers
        try:
            reader = readers.pop()
        except IndexError:
            reader = self._connect()
        try:
            reader.execute("BEGIN")
            yield reader
            reader.execute("COMMIT")
        except BaseException:
            reader.close()
            raise
        if readers is self._readers and len(readers) < _READERS:
            readers.append(reader)
        else:
            reader.close()

    @contextmanager
    def _reading_alone(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            reader = self._opened()
            before = reader.row_factory
            within = contextlib.nullcontext() if reader.in_transaction else _transaction(reader, "BEGIN")
            try:
                with within:
                    yield reader
            finally:
                reader.row_factory = before


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def connect(path: Path, mode: str, *, shared: bool, **options: Any) -> sqlite3.Connection:
    """Open a file in a ``mode`` of SQLite. ``shared``: without locks and mappings, so by one connection at a time."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    if shared:
        uri += f"&vfs={_WITHOUT_LOCKS}"
    connection: sqlite3.Connection = sqlite3.connect(uri, uri=True, **options)
    if shared:
        connection.execute("PRAGMA mmap_size = 0").fetchall()
    return connection


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is broken, or gone: it is to be made anew."""
    return any(sign in str(error) for sign in _DAMAGED)
