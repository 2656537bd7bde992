"""One append-only log on disk for all transfers whose bytes are in memory only (``memory_area.py``).

A record (``runtime/journal.py``) begins with the 16 bytes of the transfer's identifier. Nothing is written before an
import begins; each append is fsynced, once for all threads that append at the same time. The log is a row of files: a
new one is begun when the last has some size, and the oldest is deleted once no transfer in it is remembered.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from orthanc_transfers.receiver.disk_errors import disk_errors
from orthanc_transfers.runtime import files
from orthanc_transfers.runtime.journal import Journal, Kind, Record, encode_record, read_records

_PREFIX = "log-"
_ID = 16
SEGMENT_SIZE = 1024 * 1024
"""Bytes after which a new file is begun."""


class MemoryLog:
    """The log in ``folder``, which need not exist. Thread-safe."""

    def __init__(self, folder: Path, segment_size: int = SEGMENT_SIZE) -> None:
        self._folder = folder
        self._segment_size = segment_size
        self._lock = threading.Lock()
        self._remembered: dict[int, set[str]] = {number: set() for number in self._numbers()}
        """By the numbers of the files, in ascending order: the transfers that have records in them."""
        self._segment: _Segment | None = None

    def _numbers(self) -> list[int]:
        names = (path.name.removeprefix(_PREFIX) for path in self._folder.glob(f"{_PREFIX}*"))
        return sorted(int(name) for name in names if name.isdecimal())

    def read(self) -> dict[str, list[Record]]:
        """The records of each transfer, in their order, without its identifier. Raises ``OSError``."""
        found: dict[str, list[Record]] = {}
        for number in self._remembered:
            for record in read_records(self._path(number).read_bytes()):
                identifier = record.payload[:_ID].hex()
                found.setdefault(identifier, []).append(record._replace(payload=record.payload[_ID:]))
                self._remembered[number].add(identifier)
        return found

    def append(self, identifier: str, *records: tuple[Kind, bytes]) -> None:
        """Write some records of a transfer at once; survives a power failure. Raises ``NoSpace``, ``TransferError``."""
        key = bytes.fromhex(identifier)
        data = b"".join(encode_record(kind, key + payload) for kind, payload in records)
        with disk_errors():
            with self._lock:
                segment = self._current()
                self._remembered[segment.number].add(identifier)
                ticket = segment.append(data)
            segment.sync(ticket)

    def _current(self) -> _Segment:
        segment = self._segment
        if segment is None or segment.size >= self._segment_size or segment.deleted:
            number = max(self._remembered, default=0) + 1
            self._folder.mkdir(mode=0o700, exist_ok=True)
            segment = self._segment = _Segment(number, self._path(number))
            for path in (self._folder, self._folder.parent):
                files.sync(path)
            self._remembered[number] = set()
        return segment

    def forget(self, identifier: str) -> None:
        """A transfer need not be remembered any more."""
        with self._lock:
            for identifiers in self._remembered.values():
                identifiers.discard(identifier)
            for number in list(self._unused()):
                self._path(number).unlink(missing_ok=True)
                del self._remembered[number]

    def _unused(self) -> Iterator[int]:
        # Oldest first, and no gaps: what ended in a later file must not seem unfinished in an earlier one.
        for number, identifiers in self._remembered.items():
            if identifiers or (self._segment is not None and number == self._segment.number):
                return
            yield number

    def _path(self, number: int) -> Path:
        return self._folder / f"{_PREFIX}{number}"


class _Segment:
    """One file of the log. ``sync`` may be called by several threads."""

    def __init__(self, number: int, path: Path) -> None:
        self.number = number
        self.size = 0
        self._path = path
        self._journal = Journal(path)
        self._syncing = threading.Lock()
        self._synced = 0

    @property
    def deleted(self) -> bool:
        """Whether its file is gone: with the staging directory, say."""
        return not self._path.exists()

    def append(self, data: bytes) -> int:
        """Write; returns what ``sync`` has to be called with."""
        self._journal.append(data)
        self.size += len(data)
        return self.size

    def sync(self, ticket: int) -> None:
        """Fsync, unless another thread has done so since the write of that ``ticket``."""
        with self._syncing:
            if self._synced < ticket:
                size = self.size
                self._journal.sync()
                self._synced = size

    def __del__(self) -> None:
        # A thread may still be syncing it when a new one is begun.
        try:
            self._journal.close()
        except (AttributeError, OSError):
            return
