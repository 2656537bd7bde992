"""Which instances of a transfer are being imported, or deleted, at this moment, on disk: what the death of Orthanc
leaves tells what it died of.

A file beside the journal, in which each attempt has a slot: one record (``runtime/journal.py``) that is
overwritten whenever an import or a deletion begins or ends. Nothing is fsynced: what was written survives the death
of the process, and a power failure is no fault of an instance. An attempt that ends, or is left to the next start by a
server that stops, leaves an empty slot. Why not in the journal itself: docs/decisions/0025-crash-loops.md.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from orthanc_transfers.core.errors import ImportRefused, TransferError
from orthanc_transfers.core.model import name_instances
from orthanc_transfers.receiver.disk_errors import disk_errors
from orthanc_transfers.receiver.unfinished_undo import NOTHING_KEPT
from orthanc_transfers.runtime import files
from orthanc_transfers.runtime.cancellation import Cancellation
from orthanc_transfers.runtime.journal import Kind, encode_record, read_records

NAME = "importing"
MAX_DEATHS = 2
"""So many times Orthanc may die while it imports the instances of a transfer, and again while it deletes one."""
_SLOT = 4096


class ImportLog:
    """The instances of one transfer, by their indices in the manifest. Thread-safe.

    ``closing``: the server stops; what hangs then is not what it dies of.
    Raises ``TransferError`` where it cannot be read or written.
    """

    def __init__(self, directory: Path, closing: Cancellation) -> None:
        with disk_errors():
            self._fd = os.open(directory / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                slots = _read(self._fd)
            except BaseException:
                os.close(self._fd)
                raise
        self.deaths = [slot.indices for slot in slots if slot.indices and not slot.deleting]
        """The instances that were being imported at each death of Orthanc."""
        self.deaths_deleting = Counter(index for slot in slots if slot.deleting for index in slot.indices)
        """How often Orthanc has died while an instance was being deleted again."""
        self._slot = next((number for number, slot in enumerate(slots) if not slot.indices), len(slots))
        self._lock = threading.Lock()
        self._under_way: set[int] = set()
        self._told = False
        """Whether the slot says that something is under way."""
        self._deleting = False
        self._closed = False
        self._forget = closing.on_cancel(self.close)

    def __enter__(self) -> ImportLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()
        self.close()

    @property
    def suspects(self) -> frozenset[int]:
        """The instances that may be what Orthanc died of: those under way at every death, or else at any."""
        if not self.deaths:
            return frozenset()
        return frozenset.intersection(*self.deaths) or frozenset.union(*self.deaths)

    @property
    def culprits(self) -> frozenset[int]:
        """What was under way at every death, once there were too many: that is no coincidence."""
        return frozenset.intersection(*self.deaths) if self.exhausted else frozenset()

    @property
    def exhausted(self) -> bool:
        """Whether Orthanc has died so often that the import is not tried again."""
        return len(self.deaths) >= MAX_DEATHS

    def refusal(self, suspects: Collection[str]) -> ImportRefused:
        """Of an import that is not tried again; ``suspects`` by their identifiers."""
        return ImportRefused(
            f"Orthanc ended {len(self.deaths)} times while {name_instances(suspects)} was being imported:"
            f" {NOTHING_KEPT}, and it is not tried again; look for the crash, or for a lack of memory, in the logs of"
            " Orthanc and its machine, and send the others without it"
        )

    @contextlib.contextmanager
    def importing(self, *indices: int) -> Iterator[None]:
        """Instances are being imported, or read by Orthanc: whatever it may die of.

        Several of them, one after the other, are told of in one write: any of them may be what it dies of.
        """
        with self._lock:
            self._under_way.update(indices)
            try:
                self._write()
            except TransferError:
                self._under_way.difference_update(indices)
                raise
        try:
            yield
        finally:
            # If that fails, an instance is suspected without reason at the next death.
            with self._lock, contextlib.suppress(TransferError):
                self._under_way.difference_update(indices)
                self._write()

    @contextlib.contextmanager
    def deleting(self, index: int) -> Iterator[None]:
        """An instance is being deleted again; no import begins any more. Never fails: the deletion matters more."""
        with self._lock, contextlib.suppress(TransferError):
            self._deleting = True
            self._under_way.add(index)
            self._write()
        try:
            yield
        finally:
            with self._lock, contextlib.suppress(TransferError):
                self._under_way.discard(index)
                self._write()

    def close(self) -> None:
        """This attempt is over, or left to the next start by a server that stops: it was no death."""
        with self._lock:
            if self._closed:
                return
            self._under_way.clear()
            if self._told:
                with contextlib.suppress(TransferError):
                    self._write()
            self._closed = True
            os.close(self._fd)

    def _write(self) -> None:
        if self._closed:
            return
        # A few for each thread (``importer.py``): it fits into its slot, and into one page.
        kind = Kind.DELETING if self._deleting else Kind.IMPORTING
        record = encode_record(kind, struct.pack(f"<{len(self._under_way)}I", *self._under_way))
        self._told = True
        with disk_errors():
            files.write_at(self._fd, memoryview(record), self._slot * _SLOT)
        self._told = bool(self._under_way)


def tells_nothing(directory: Path) -> bool:
    """Whether the log of a directory is there and tells of no death. Raises ``OSError``."""
    try:
        fd = os.open(directory / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not any(slot.indices for slot in _read(fd))
    finally:
        os.close(fd)


class _Slot(NamedTuple):
    indices: frozenset[int]
    deleting: bool


def _read(fd: int) -> list[_Slot]:
    slots = []
    for offset in range(0, os.fstat(fd).st_size, _SLOT):
        record = next(read_records(os.pread(fd, _SLOT, offset)), None)
        valid = (
            record is not None
            and record.kind in (Kind.IMPORTING, Kind.DELETING)
            and len(record.payload) % 4 == 0
        )
        numbers = struct.iter_unpack("<I", record.payload) if record is not None and valid else ()
        deleting = record is not None and record.kind is Kind.DELETING
        slots.append(_Slot(frozenset(number for (number,) in numbers), deleting))
    return slots
