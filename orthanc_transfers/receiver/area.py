"""One incoming transfer on disk: a directory with the area's bytes, the manifest and the journal.

``area`` holds the bytes of the instances end to end, as a sparse file; ``manifest`` says what they are, under
a checksum; ``journal`` says which of them arrived and how far the commit got (see ``runtime/journal.py``).

**What is fsynced, and what is not.** All that was written survives the death of the process: it is in
the kernel's cache. Against a power failure only two moments are protected, the beginning of an import and
its outcome: the journal and the directory are fsynced then. The manifest is fsynced before the directory gets
its name, so that no transfer is found without one. The bytes of the area are not: they would have to be
written out in full before the import writes them once more, and nothing is won, since every
instance carries its MD5, which is checked again when an import goes on after a restart. If the area turns out
to be broken then, what was imported is undone, and the lost instances are asked for again.

On storage that several machines share they are, at the beginning of an import: another machine goes on with it when
this one is gone, and sees what was written through. It could not ask a sender of version 1 for the rest.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import shutil
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orthanc_transfers.core.errors import BadFile, NoSpace, TransferError, UnknownTransaction
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.receiver.disk_errors import disk_error, disk_errors
from orthanc_transfers.receiver.history import History, replay, to_bits
from orthanc_transfers.receiver.manifest_file import encode_manifest, read_manifest
from orthanc_transfers.runtime import files
from orthanc_transfers.runtime.journal import Journal, Kind, encode_range, encode_record, read_records

AREA = "area"
MANIFEST = "manifest"
JOURNAL = "journal"
_BLOCK = 1024 * 1024

# Shared by all that have ended, of which there are thousands.
_NO_INSTANCES = Manifest(())
_NO_HISTORY = History()


class Area:
    """The files of one incoming transfer. Thread-safe; every method may block on the disk.

    ``shared``: they are on storage that several machines share, and are not mapped.
    """

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        meta: dict[str, Any],
        history: History,
        *,
        shared: bool = False,
    ) -> None:
        self.id = directory.name
        self._folder = str(directory)  # a Path takes four times as much
        self.manifest = manifest
        self.meta = meta
        """What the owner of the transfer wants to find again, JSON."""
        self.history = history
        """As read when the area was opened."""
        self._shared = shared
        self.absent = history.absent
        """Indices of the instances that were absent before the import that has begun; ``None`` if none has."""
        self.written = history.have.size
        """Bytes that take room on disk, updated by the writer."""
        self.imported = (0, 0)
        """Bytes and number of its instances that need no more room in Orthanc: see ``count_imported``."""
        self._lock = threading.Lock()
        self._users = 0
        self._closing = False
        self._gone: str | None = None
        """Folder to be deleted once the files are closed."""
        self._fd = -1
        self._journal: Journal | None = None

    @property
    def directory(self) -> Path:
        """With its files."""
        return Path(self._folder)

    @staticmethod
    def create(directory: Path, manifest: Manifest, meta: dict[str, Any], *, shared: bool = False) -> Area:
        """Create the files in a new directory, which gets its name only when complete. Raises ``NoSpace``."""
        unfinished = directory.with_name(f".new-{directory.name}")
        try:
            os.mkdir(unfinished, 0o700)
            try:
                # A power failure leaves all of this transfer or nothing, never a half that nothing can read.
                files.create(unfinished / MANIFEST, encode_manifest(manifest, meta), synced=True)
                fd = os.open(unfinished / AREA, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                try:
                    os.ftruncate(fd, manifest.size)
                finally:
                    os.close(fd)
                os.rename(unfinished, directory)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
        except OSError as error:
            raise disk_error(error) from error
        return Area(directory, manifest, meta, History(), shared=shared)

    @staticmethod
    def reopen(directory: Path, *, shared: bool = False) -> Area:
        """Read what is on disk. Raises ``BadFile`` unless that is a transfer of this version."""
        try:
            manifest, meta = read_manifest(directory / MANIFEST)
            journal = directory / JOURNAL
            records = read_records(journal.read_bytes() if journal.exists() else b"")
            history = replay(records, manifest)
            if history.outcome is not None:
                # The process died before it deleted the bytes, or a power failure brought them back.
                with contextlib.suppress(OSError):
                    (directory / AREA).unlink()
            elif (directory / AREA).stat().st_size < manifest.size:
                # It may be larger: the process died before the manifest said that the transfer grew.
                raise BadFile(f"the area of transfer {directory.name} is smaller than its manifest says")
        except OSError as error:
            raise BadFile(f"transfer {directory.name} cannot be read: {error}") from error
        return Area(directory, manifest, meta, history, shared=shared)

    def grow(self, manifest: Manifest, changes: Mapping[str, Any]) -> None:
        """Take in the instances that another manifest has behind those of this one; ``changes`` go to ``meta`` on disk.

        Survives a power failure. To be called by one thread at a time. Raises ``NoSpace``, ``UnknownTransaction``.
        """
        path = self.directory / MANIFEST
        with self._use(), disk_errors():
            # What the owner took out of memory is on disk only.
            _, meta = read_manifest(path)
            # The area first: one that is larger than its manifest says is found again after a crash.
            os.ftruncate(self._fd, manifest.size)
            files.replace(path, encode_manifest(manifest, {**meta, **changes}), synced=True)
            files.sync(self.directory)
        self.manifest = manifest

    def count_imported(self, sizes: Collection[int]) -> None:
        """Orthanc has instances of these sizes now, for which room was reserved."""
        with self._lock:
            size, count = self.imported
            self.imported = (size + sum(sizes), count + len(sizes))

    def forget_imported(self) -> None:
        """Orthanc has none of them any more."""
        with self._lock:
            self.imported = (0, 0)

    def forget_instances(self) -> None:
        """Free everything in memory that grows with the manifest: only the outcome is of interest now."""
        self.manifest = _NO_INSTANCES
        self.history = _NO_HISTORY
        self.absent = None

    @property
    def takes_extras(self) -> bool:
        """Whether its folder keeps what comes beside DICOM (``extras_folder.py``)."""
        return True

    # --- the bytes

    in_memory = False
    """Whether its bytes are in memory only."""

    @property
    def bytes_lost(self) -> bool:
        """Whether its bytes were in the memory of a process that has ended."""
        return False

    def lending(self, data: memoryview) -> contextlib.AbstractContextManager[None]:
        """During it, what is written may stay in the memory ``data``, which has all bytes."""
        return contextlib.nullcontext()

    def write(self, pieces: Sequence[tuple[Range, int]], data: memoryview) -> None:
        """Write ranges of the area, each with the offset of its bytes in ``data``. Raises ``NoSpace``."""
        with self._use(), disk_errors():
            for item, offset in pieces:
                files.write_at(self._fd, data[offset : offset + item.size], item.start)

    def read(self, item: Range, buffer: memoryview) -> memoryview:
        """The bytes of a range, read into the beginning of ``buffer``."""
        with self._use(), disk_errors():
            view = buffer[: item.size]
            files.read_at(self._fd, view, item.start)
            return view

    def blocks(self, item: Range, buffer: memoryview) -> Iterator[memoryview]:
        """The bytes of a range, in blocks that are read into ``buffer`` one after the other."""
        with self._use(), disk_errors():
            position = item.start
            while position < item.stop:
                block = buffer[: item.stop - position]
                files.read_at(self._fd, block, position)
                yield block
                position += len(block)

    @contextlib.contextmanager
    def whole(self, item: Range) -> Iterator[memoryview]:
        """A large range in one piece, as memory that the kernel loads and evicts on demand; on shared storage a copy.

        Raises ``TransferError`` if it cannot be read: all of it is read first, since a read error in a
        mapping kills the process (SIGBUS), and would again after each restart. On shared storage another machine
        may cut or delete the file at any time: nothing is mapped.
        """
        if self._shared:
            yield self.read(item, memoryview(bytearray(item.size)))
            return
        with self._use():
            for _ in self.blocks(item, memoryview(bytearray(min(_BLOCK, item.size)))):
                pass
            before = item.start % mmap.ALLOCATIONGRANULARITY
            with disk_errors():
                memory = mmap.mmap(
                    self._fd, item.size + before, access=mmap.ACCESS_READ, offset=item.start - before
                )
            memory.madvise(mmap.MADV_SEQUENTIAL)
            view = memoryview(memory)[before:]
            try:
                yield view
            finally:
                view.release()
                # A view that its reader still holds keeps the mapping alive until it is released.
                with contextlib.suppress(BufferError):
                    memory.close()

    def give_back(self) -> None:
        """Free the room of the bytes, which are lost: all read as zeros from now on. Raises ``TransferError``."""
        with self._use(), disk_errors():
            os.ftruncate(self._fd, 0)
            os.ftruncate(self._fd, self.manifest.size)

    # --- the journal

    def journal_ranges(self, kind: Kind, ranges: Sequence[Range]) -> None:
        """Journal what happened to some ranges."""
        self._append(b"".join(encode_range(kind, item) for item in ranges))

    def journal_stored(self, indices: frozenset[int]) -> None:
        """Journal the indices of instances whose bytes are not needed."""
        self._append(encode_record(Kind.STORED, to_bits(indices, len(self.manifest))))

    def journal_committing(self, absent: frozenset[int]) -> None:
        """Journal the beginning of an import; survives a power failure. ``absent`` are indices of the manifest."""
        if self._shared:
            with self._use(), disk_errors():
                os.fdatasync(self._fd)
        self._append(encode_record(Kind.COMMITTING, to_bits(absent, len(self.manifest))))
        self._sync()
        self.absent = absent

    def journal_receiving(self) -> None:
        """Journal that an import was undone; survives a power failure."""
        self._append(encode_record(Kind.RECEIVING, b""))
        self._sync()
        self.absent = None

    def journal_outcome(self, outcome: dict[str, Any]) -> None:
        """Journal how it ended, delete the bytes and close the files; survives a power failure."""
        record = encode_record(Kind.OUTCOME, json.dumps(outcome).encode())
        try:
            try:
                self._append(record)
            except NoSpace:
                self._delete_bytes()  # makes room
                self._append(record)
            self._sync()
            self._delete_bytes()
        finally:
            self.close()

    def journal_correction(self, outcome: dict[str, Any]) -> None:
        """Journal another outcome than before, of an area that is closed; without effect if that is not possible."""
        with contextlib.suppress(OSError, TransferError):
            journal = Journal(self.directory / JOURNAL)
            try:
                journal.append(encode_record(Kind.OUTCOME, json.dumps(outcome).encode()))
            finally:
                journal.close()

    def _delete_bytes(self) -> None:
        with disk_errors(), contextlib.suppress(FileNotFoundError):
            os.unlink(self.directory / AREA)

    def _append(self, records: bytes) -> None:
        with self._use(), disk_errors():
            assert self._journal is not None
            self._journal.append(records)

    def _sync(self) -> None:
        with self._use(), disk_errors():
            assert self._journal is not None
            self._journal.sync()
            for path in (self.directory, self.directory.parent):
                files.sync(path)

    # --- closing: only once no thread uses the files

    @contextlib.contextmanager
    def _use(self) -> Iterator[None]:
        with self._lock:
            if self._closing:
                raise UnknownTransaction(f"transfer {self.id} has ended")
            if self._journal is None:
                with disk_errors():
                    self._open()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
            self._close_if_unused()

    def _open(self) -> None:
        fd = os.open(self.directory / AREA, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._journal = Journal(self.directory / JOURNAL)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def close(self) -> None:
        """Close the files as soon as no thread uses them; every use from now on is refused."""
        with self._lock:
            self._closing = True
        self._close_if_unused()

    def discard(self) -> None:
        """Delete everything, as soon as no thread uses the files."""
        # Renamed first: a process that dies while it deletes leaves what is recognized as garbage.
        gone = self.directory.with_name(f".gone-{self.id}")
        with contextlib.suppress(OSError):
            os.rename(self.directory, gone)
        with self._lock:
            self._closing = True
            self._gone = str(gone)
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        with self._lock:
            if not self._closing or self._users:
                return
            journal, self._journal = self._journal, None
            fd, self._fd = self._fd, -1
            gone, self._gone = self._gone, None
        if journal is not None:
            journal.close()
        if fd >= 0:
            os.close(fd)
        if gone is not None:
            # Not before: NFS gives a file that is open another name, and its folder would stay.
            shutil.rmtree(gone, ignore_errors=True)
