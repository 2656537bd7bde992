"""The database of a cluster: a few kept connections, and statements that wait while it is away.

Each statement is a transaction of its own, and is run again if its answer was lost: all of them are idempotent.
psycopg releases the GIL while it waits.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from orthanc_transfers.cluster.connection import is_temporary, sentence
from orthanc_transfers.core.errors import Busy, Canceled, ConfigurationError, TransferError

PATIENCE = 35.0
"""Seconds that a request waits for a database that is away."""

FOREVER = float("inf")
"""The same for what must not be given up: it waits until the database is there, or Orthanc stops."""

_RETRY_AFTER = 5.0
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 1.0

# Seconds after the database was lost for which failures of others may come from that.
_AFTERMATH = 30.0

# Connections kept, and open at most, each for a thread.
_CONNECTIONS = 8

Connection = psycopg.Connection[tuple[Any, ...]]


class Database:
    """Thread-safe. ``conninfo`` as in ``connection.connection_string``. Nothing is connected before the first use.

    psycopg's own pool waits longer and longer for a database that is away, up to half as long as it was; here each
    caller tries, once a second.
    """

    def __init__(self, conninfo: str, connections: int = _CONNECTIONS) -> None:
        self._conninfo = conninfo
        self._free = threading.BoundedSemaphore(connections)
        # Single operations of a list need no lock.
        self._idle: list[Connection] = []
        self._closed = threading.Event()
        self._lost = -_AFTERMATH
        """When a connection was lost, or could not be made, for the last time (monotonic)."""
        self.losses = 0
        """How often it was not there when it was asked."""
        self.requests = 0
        """Statements sent, for measurements."""

    def prove(self, patience: float = PATIENCE) -> None:
        """Connect, for the first time.

        Raises ``ConfigurationError`` if that cannot be, or the database is not there after ``patience`` seconds.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                self._idle.append(self._connect())
                return
            except psycopg.Error as error:
                if not is_temporary(error) or time.monotonic() >= deadline:
                    raise ConfigurationError(
                        f"the cluster's database cannot be used: {sentence(error)}"
                    ) from None
            if self._closed.wait(_LONGEST_DELAY):
                raise ConfigurationError("Orthanc stops")

    def query(
        self, statement: str, values: Sequence[Any] = (), *, patience: float = PATIENCE
    ) -> list[tuple[Any, ...]]:
        """The rows of one statement, ``[]`` if it returns none.

        Raises ``Busy`` if the database was away for ``patience`` seconds, ``Canceled`` once it was closed meanwhile;
        ``TransferError`` if the database refuses the statement.
        """
        deadline = time.monotonic() + patience
        delay = 0.0
        while True:
            kept = bool(self._idle)
            try:
                return self._once(statement, values)
            except (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError) as error:
                self._lost = time.monotonic()
                self.losses += 1
                # A connection that was kept may have died long ago.
                if time.monotonic() + delay >= deadline and not (kept and not delay):
                    raise Busy(
                        f"the cluster's database cannot be reached: {sentence(error)}", _RETRY_AFTER
                    ) from error
            except psycopg.Error as error:
                raise TransferError(f"the cluster's database refused a request: {sentence(error)}") from error
            if self._closed.wait(delay):
                raise Canceled("this server stops")
            delay = min(_LONGEST_DELAY, max(_FIRST_DELAY, 2 * delay))

    def was_away(self) -> bool:
        """Wait until the database is there; returns whether it was away just now. Raises ``Canceled``."""
        self.query("SELECT 1", patience=FOREVER)
        return time.monotonic() - self._lost < _AFTERMATH

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection, for several statements. Raises ``psycopg.Error``; then it is not used again."""
        with self._free:
            connection = self._take()
            try:
                yield connection
            except BaseException:
                connection.close()
                # They are most likely dead as well.
                self._drop_idle()
                raise
            self._idle.append(connection)
        if self._closed.is_set():
            self._drop_idle()

    def local_address(self) -> str:
        """The address of this host from which the database, or what is before it, is reached; empty if that is here."""
        with self.connection() as connection, socket.socket(fileno=os.dup(connection.fileno())) as end:
            # What pools connections in between is the database's client: it would tell that one's address.
            if end.family not in (socket.AF_INET, socket.AF_INET6):
                return ""
            own, other = end.getsockname()[0], end.getpeername()[0]
        return "" if own == other else str(own)

    def close(self) -> None:
        """Close all connections, and give up what waits."""
        self._closed.set()
        self._drop_idle()

    def _once(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self.connection() as connection:
            self.requests += 1
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def _take(self) -> Connection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._connect()
            if not connection.closed:
                return connection

    def _connect(self) -> Connection:
        connection = psycopg.connect(self._conninfo, autocommit=True)
        # No prepared statements: whatever pools connections in between knows nothing of them.
        connection.prepare_threshold = None
        return connection

    def _drop_idle(self) -> None:
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return
