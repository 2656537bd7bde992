"""One reception on disk: a directory with the area's bytes, the manifest and the journal.

``area`` holds the bytes of the instances end to end, as a sparse file; ``manifest`` says what they are, under
a checksum; ``journal`` says which of them arrived and how far the commit got (see ``journal.py``).

**What is forced to disk, and what is not.** All that was written survives the death of the process: it is in
the kernel's cache. Against a loss of power only two moments are protected, the beginning of an import and
its outcome: the journal and the directory are synced then. The manifest is before the reception has a name, so that
there is none without one. The bytes of the area never are.
They would have to be written out in full before the import writes them once more, and nothing is won: every
instance carries its MD5, which is checked again when an import goes on after a restart. If the area turns out
to be broken then, what was imported is undone, and the lost instances are asked for again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import mmap
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orthanc_transfers.core.errors import BadFile, Corrupted, NoSpace, TransferError, UnknownTransaction
from orthanc_transfers.core.model import Instance, Manifest
from orthanc_transfers.core.ranges import Range, RangeSet
from orthanc_transfers.runtime import files
from orthanc_transfers.runtime.journal import (
    Journal,
    Kind,
    Record,
    encode_range,
    encode_record,
    read_records,
)

AREA = "area"
MANIFEST = "manifest"
JOURNAL = "journal"
MAKE_ROOM = "make room there, then resubmit the job"
_BLOCK = 1024 * 1024
_FORMAT = "orthanc-transfers-manifest-1"


@dataclass
class History:
    """What a journal tells. Bits are those of ``to_bits``, by place in the manifest."""

    have: RangeSet = field(default_factory=RangeSet)
    """Bytes received, without those of instances that were already stored."""
    stored: frozenset[int] = frozenset()
    """Places of the instances that were already stored when the reception began."""
    absent: frozenset[int] | None = None
    """Places of the instances that were absent before the import; ``None``: no import has begun."""
    outcome: dict[str, Any] | None = None
    """How it ended; ``None``: it has not."""


def replay(records: Iterator[Record], manifest: Manifest) -> History:
    """The state that a journal's records lead to. Records that make no sense count for nothing."""
    history = History()
    for record in records:
        with contextlib.suppress(ValueError, RecursionError):
            _apply(record, manifest, history)
    return history


def _apply(record: Record, manifest: Manifest, history: History) -> None:
    match record.kind:
        case Kind.RECEIVED | Kind.LOST:
            item = record.range
            if item.stop > manifest.size:
                raise ValueError("beyond the area")
            if record.kind is Kind.RECEIVED:
                history.have.add(item)
            else:
                history.have.discard(item)
                gone = {manifest.index_of(instance.id) for instance, _ in manifest.overlapping(item)}
                history.stored -= gone
        case Kind.STORED:
            # Fewer bits are of the time before the reception grew.
            count = min(len(manifest), 8 * len(record.payload))
            history.stored = from_bits(record.payload, count)
        case Kind.COMMITTING:
            history.absent = from_bits(record.payload, len(manifest))
        case Kind.RECEIVING:
            history.absent = None
        case Kind.OUTCOME:
            outcome = json.loads(record.payload)
            if isinstance(outcome, dict):
                history.outcome = outcome


def to_bits(places: Sequence[int] | frozenset[int] | set[int], count: int) -> bytes:
    """A set of places below ``count`` as one bit each."""
    bits = bytearray((count + 7) // 8)
    for place in places:
        bits[place >> 3] |= 1 << (place & 7)
    return bytes(bits)


def from_bits(bits: bytes, count: int) -> frozenset[int]:
    """The inverse of ``to_bits``. Raises ``ValueError`` for bits of another count."""
    if len(bits) != (count + 7) // 8:
        raise ValueError("bits of another manifest")
    return frozenset(place for place in range(count) if bits[place >> 3] >> (place & 7) & 1)


class Area:
    """The files of one reception. Thread-safe; every method but the properties may wait for the disk."""

    def __init__(self, directory: Path, manifest: Manifest, meta: dict[str, Any], history: History) -> None:
        self.id = directory.name
        self.directory = directory
        self.manifest = manifest
        self.meta = meta
        """What the owner of the reception wants to find again, JSON."""
        self.history = history
        """As read when the area was opened."""
        self.absent = history.absent
        """Places of what was absent before the import that has begun; ``None`` if none has."""
        self.written = history.have.size
        """Bytes that take room on disk, kept up by who writes them."""
        self._lock = threading.Lock()
        self._users = 0
        self._closing = False
        self._fd = -1
        self._journal: Journal | None = None

    @staticmethod
    def create(directory: Path, manifest: Manifest, meta: dict[str, Any]) -> Area:
        """Lay the files down in a new directory, which appears under its name only when complete."""
        unfinished = directory.with_name(f".new-{directory.name}")
        try:
            os.mkdir(unfinished, 0o700)
            try:
                # A power failure leaves all of this reception, or nothing: not one that makes no sense.
                files.create(unfinished / MANIFEST, _manifest_file(manifest, meta), synced=True)
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
        return Area(directory, manifest, meta, History())

    @staticmethod
    def reopen(directory: Path) -> Area:
        """Read what is on disk. Raises ``BadFile`` if that is not a reception of this version."""
        try:
            manifest, meta = _read_manifest(directory / MANIFEST)
            journal = directory / JOURNAL
            records = read_records(journal.read_bytes() if journal.exists() else b"")
            history = replay(records, manifest)
            if history.outcome is not None:
                # The process died before it let go of it, or a loss of power brought it back.
                with contextlib.suppress(OSError):
                    (directory / AREA).unlink()
            elif (directory / AREA).stat().st_size < manifest.size:
                # It may be larger: the process died before it had noted that the reception grew.
                raise BadFile(f"the area of reception {directory.name} is smaller than its manifest says")
        except OSError as error:
            raise BadFile(f"reception {directory.name} cannot be read: {error}") from error
        return Area(directory, manifest, meta, history)

    def grow(self, manifest: Manifest, changes: Mapping[str, Any]) -> None:
        """Take in the instances that another manifest has behind those of this one; ``changes`` go to ``meta`` on disk.

        Survives a loss of power. To be called by one thread at a time.
        """
        path = self.directory / MANIFEST
        with self._use(), _disk_errors():
            # What the owner took out of memory is on disk only.
            _, meta = _read_manifest(path)
            # The area first: one that is larger than its manifest says is found again after a crash.
            os.ftruncate(self._fd, manifest.size)
            files.replace(path, _manifest_file(manifest, {**meta, **changes}), synced=True)
            files.sync(self.directory)
        self.manifest = manifest

    def forget_instances(self) -> None:
        """The outcome is all that is of interest now: keep nothing in memory that grows with the manifest."""
        self.manifest = Manifest(())
        self.history = History(outcome=self.history.outcome)
        self.absent = None

    # --- the bytes

    def write(self, pieces: Sequence[tuple[Range, int]], data: memoryview) -> None:
        """Write ranges of the area, each from its place in ``data`` on. Raises ``NoSpace``."""
        with self._use(), _disk_errors():
            for item, position in pieces:
                files.write_at(self._fd, data[position : position + item.size], item.start)

    def read(self, item: Range, buffer: memoryview) -> memoryview:
        """The bytes of a range, read into the beginning of ``buffer``."""
        with self._use(), _disk_errors():
            view = buffer[: item.size]
            files.read_at(self._fd, view, item.start)
            return view

    def blocks(self, item: Range, buffer: memoryview) -> Iterator[memoryview]:
        """The bytes of a range, in blocks that are read into ``buffer`` one after the other."""
        with self._use(), _disk_errors():
            position = item.start
            while position < item.stop:
                block = buffer[: item.stop - position]
                files.read_at(self._fd, block, position)
                yield block
                position += len(block)

    @contextlib.contextmanager
    def mapped(self, item: Range) -> Iterator[memoryview]:
        """A range as memory that the kernel fills and takes back at need.

        Raises ``TransferError`` if it cannot be read: all of it is read first, for what cannot be read of a
        mapping ends the process (SIGBUS), and again after the next start.
        """
        with self._use():
            for _ in self.blocks(item, memoryview(bytearray(min(_BLOCK, item.size)))):
                pass
            before = item.start % mmap.ALLOCATIONGRANULARITY
            with _disk_errors():
                memory = mmap.mmap(
                    self._fd, item.size + before, access=mmap.ACCESS_READ, offset=item.start - before
                )
            memory.madvise(mmap.MADV_SEQUENTIAL)
            view = memoryview(memory)[before:]
            try:
                yield view
            finally:
                view.release()
                # A view that its reader still holds keeps the mapping, which goes with it then.
                with contextlib.suppress(BufferError):
                    memory.close()

    # --- the journal

    def note(self, kind: Kind, ranges: Sequence[Range]) -> None:
        """Journal what happened to some ranges."""
        self._append(b"".join(encode_range(kind, item) for item in ranges))

    def note_stored(self, places: frozenset[int]) -> None:
        """Journal the places of instances whose bytes are not needed."""
        self._append(encode_record(Kind.STORED, to_bits(places, len(self.manifest))))

    def note_committing(self, absent: frozenset[int]) -> None:
        """Journal the beginning of an import; it survives a loss of power."""
        self._append(encode_record(Kind.COMMITTING, to_bits(absent, len(self.manifest))))
        self._sync()
        self.absent = absent

    def note_receiving(self) -> None:
        """Journal that an import was undone; it survives a loss of power."""
        self._append(encode_record(Kind.RECEIVING, b""))
        self._sync()
        self.absent = None

    def note_outcome(self, outcome: dict[str, Any]) -> None:
        """Journal how it ended; it survives a loss of power. The bytes are let go, and the files closed."""
        record = encode_record(Kind.OUTCOME, json.dumps(outcome).encode())
        try:
            try:
                self._append(record)
            except NoSpace:
                self._let_go()  # that makes room
                self._append(record)
            self._sync()
            self._let_go()
        finally:
            self.close()

    def _let_go(self) -> None:
        with _disk_errors(), contextlib.suppress(FileNotFoundError):
            os.unlink(self.directory / AREA)

    def _append(self, records: bytes) -> None:
        with self._use(), _disk_errors():
            assert self._journal is not None
            self._journal.append(records)

    def _sync(self) -> None:
        with self._use(), _disk_errors():
            assert self._journal is not None
            self._journal.sync()
            for path in (self.directory, self.directory.parent):
                files.sync(path)

    # --- the files' life: they are closed only when nobody is using them

    @contextlib.contextmanager
    def _use(self) -> Iterator[None]:
        with self._lock:
            if self._closing:
                raise UnknownTransaction(f"reception {self.id} has ended")
            if self._journal is None:
                with _disk_errors():
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
        """Give the files back as soon as nobody uses them, and take no new user."""
        with self._lock:
            self._closing = True
        self._close_if_unused()

    def discard(self) -> None:
        """Delete everything."""
        # Out of sight first: a process that dies while it deletes leaves something that is known as garbage.
        gone = self.directory.with_name(f".gone-{self.id}")
        with contextlib.suppress(OSError):
            os.rename(self.directory, gone)
        with self._lock:
            self._closing = True
        self._close_if_unused()
        shutil.rmtree(gone, ignore_errors=True)

    def _close_if_unused(self) -> None:
        with self._lock:
            if not self._closing or self._users or self._journal is None:
                return
            journal, self._journal = self._journal, None
            fd, self._fd = self._fd, -1
        journal.close()
        if fd >= 0:
            os.close(fd)


def disk_error(error: OSError) -> TransferError:
    """What an error of the operating system means to a user."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"the disk of the staging directory is full ({error.strerror}): {MAKE_ROOM}")
    return TransferError(
        f"the staging directory cannot be used ({error}): see that StagingDirectory is there and can be written,"
        " then resubmit the job"
    )


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_error(error) from error
    except EOFError as error:
        raise Corrupted("the area on disk is shorter than its manifest") from error


def _manifest_file(manifest: Manifest, meta: Mapping[str, Any]) -> bytes:
    rows = [[instance.id, instance.size, instance.md5] for instance in manifest]
    body = json.dumps({"meta": meta, "instances": rows}, separators=(",", ":")).encode()
    return f"{_FORMAT} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def _read_manifest(path: Path) -> tuple[Manifest, dict[str, Any]]:
    head, _, body = path.read_bytes().partition(b"\n")
    if head.decode("ascii", "replace").split(" ") != [_FORMAT, hashlib.sha256(body).hexdigest()]:
        raise BadFile(f"{path} is damaged, or of another version of the plugin")
    try:
        content = json.loads(body)
        meta: dict[str, Any] = content["meta"]
        return Manifest(_instance(*row) for row in content["instances"]), meta
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise BadFile(f"{path} makes no sense: {error!r}") from error


def _instance(identifier: Any, size: Any, md5: Any) -> Instance:
    if not (isinstance(identifier, str) and type(size) is int and isinstance(md5, str)):
        raise TypeError("not an instance")
    return Instance(identifier, size, md5)
