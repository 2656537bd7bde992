"""An incoming transfer whose bytes are in memory only, from the one request that brings them to the end of its import.

What is on disk is in one log for all of these (``memory_log.py``), and nothing before the import begins: then what is
about to be imported, and what of it was absent; at the end the outcome, or that it was undone. A process that dies
before the import leaves nothing; one that dies during it leaves the log, by which the next start finds what was
imported: all of it, and it is committed; or a part, which is undone (``recovery.py``). The sender has the bytes until
it knows the outcome, and sends them again.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orthanc_transfers.core.errors import Corrupted, TransferError, UnknownTransaction
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.history import History, to_bits
from orthanc_transfers.receiver.memory_log import MemoryLog
from orthanc_transfers.runtime.journal import Kind


class MemoryArea(Area):
    """Implements ``Area``. ``directory`` has its import log, and ``opened`` is what the log says of its beginning.

    ``release`` is called once, when its memory and its directory are free.
    """

    def __init__(
        self,
        directory: Path,
        identifier: str,
        manifest: Manifest,
        meta: dict[str, Any],
        history: History,
        log: MemoryLog,
        opened: bytes | None,
        release: Callable[[], None],
    ) -> None:
        super().__init__(directory, manifest, meta, history)
        self.id = identifier
        self._log = log
        self._opened = opened
        self._release: Callable[[], None] | None = release
        self._bytes: memoryview | None = None
        self._offered: memoryview | None = None
        """Memory of a request, of all bytes, until that is over."""
        self._lent = False
        """Whether that is what ``_bytes`` is."""
        self._readers = 0
        """Threads that read from it just now, or let Orthanc do so."""
        self._unread = threading.Condition(self._lock)

    in_memory = True

    def grow(self, manifest: Manifest, changes: Mapping[str, Any]) -> None:
        raise AssertionError("it was announced as a whole")

    def forget_instances(self) -> None:
        super().forget_instances()
        self._free()

    @property
    def takes_extras(self) -> bool:
        return False

    # --- the bytes

    @property
    def bytes_lost(self) -> bool:
        return self._bytes is None and self.manifest.size > 0

    def write(self, pieces: Sequence[tuple[Range, int]], data: memoryview) -> None:
        """``data`` is kept instead of copied if it is the whole area, and nothing can change it or it was lent."""
        with self._lock:
            if self._closing:
                raise UnknownTransaction(f"transfer {self.id} has ended")
            whole = self.manifest.area
            if self._bytes is None and list(pieces) == [(whole, 0)] and len(data) == whole.size:
                self._lent = data is self._offered
                kept = self._lent or isinstance(data.obj, bytes)
                self._bytes = data if kept else memoryview(bytes(data))
                return
            if self._bytes is None or self._bytes.readonly or self._lent:
                self._bytes, self._lent = memoryview(bytearray(self._bytes or whole.size)), False
            target = self._bytes
        for item, offset in pieces:
            target[item.start : item.stop] = data[offset : offset + item.size]

    @contextlib.contextmanager
    def lending(self, data: memoryview) -> Iterator[None]:
        """All bytes, in memory that lives until the end of the block: a copy of it is made then, if it still matters.

        Waits for those who read from it, of which an import is one.
        """
        self._offered = data
        try:
            yield
        finally:
            with self._unread:
                self._offered = None
                if self._lent and self._bytes is not None:
                    self._bytes = memoryview(bytes(self._bytes))
                self._lent = False
                self._unread.wait_for(lambda: not self._readers)

    @contextlib.contextmanager
    def _held(self, item: Range) -> Iterator[tuple[memoryview, bool]]:
        """The bytes themselves, and whether they are lent, so that none may be used after the block."""
        with self._lock:
            kept, lent = self._bytes, self._lent
            self._readers += lent
        try:
            if kept is None and item.size:
                raise Corrupted(
                    f"the bytes of transfer {self.id} were lost with the process that had received them"
                )
            yield memoryview(b"") if kept is None else kept[item.start : item.stop], lent
        finally:
            if lent:
                with self._unread:
                    self._readers -= 1
                    self._unread.notify_all()

    @contextlib.contextmanager
    def whole(self, item: Range) -> Iterator[memoryview]:
        with self._held(item) as (view, _):
            yield view

    def read(self, item: Range, buffer: memoryview) -> memoryview:
        """The bytes themselves, and ``buffer`` is left alone, unless they are lent."""
        with self._held(item) as (view, lent):
            if not lent:
                return view
            buffer[: item.size] = view
            return buffer[: item.size]

    def blocks(self, item: Range, buffer: memoryview) -> Iterator[memoryview]:
        if item.size:
            with self._held(item) as (view, _):
                yield view

    def give_back(self) -> None:
        """It takes no room on disk."""

    # --- the log

    def journal_ranges(self, kind: Kind, ranges: Sequence[Range]) -> None:
        """Not journalled: they are not on disk."""

    def journal_stored(self, indices: frozenset[int]) -> None:
        """Not journalled: looked up again at the commit."""

    def journal_committing(self, absent: frozenset[int]) -> None:
        records = [(Kind.COMMITTING, to_bits(absent, len(self.manifest)))]
        if self._opened is not None:
            records.insert(0, (Kind.OPENED, self._opened))
        self._log.append(self.id, *records)
        self._opened = None
        self.absent = absent

    def journal_receiving(self) -> None:
        self._log.append(self.id, (Kind.RECEIVING, b""))
        self.absent = None

    def journal_outcome(self, outcome: dict[str, Any]) -> None:
        records = [(Kind.OUTCOME, json.dumps(outcome).encode())]
        if self._opened is not None:
            records.insert(0, (Kind.OPENED, self._opened))  # it failed before an import began
        try:
            self._log.append(self.id, *records)
        finally:
            self.close()

    def journal_correction(self, outcome: dict[str, Any]) -> None:
        with contextlib.suppress(TransferError):
            self._log.append(self.id, (Kind.OUTCOME, json.dumps(outcome).encode()))

    # --- the end

    def close(self) -> None:
        with self._lock:
            self._closing = True

    def discard(self) -> None:
        self.close()
        self._log.forget(self.id)
        self._free()

    def _free(self) -> None:
        with self._lock:
            release, self._release = self._release, None
            self._bytes = None
        if release is not None:
            release()
