"""Writes received ranges to the area, tracks gaps, verifies each instance's MD5.

An instance that lies completely in one written buffer is hashed from that buffer. One that arrives in parts is
hashed along the received prefix (``hashing.py``). So when the last byte has arrived, little is left to be verified.

Bytes that were received are never written again, unless their instance turned out to be wrong: whatever
arrives twice, late or in another version cannot change what was verified.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from orthanc_transfers.core.checksum import md5
from orthanc_transfers.core.model import Instance, Manifest
from orthanc_transfers.core.ranges import Range, RangeSet
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.hashing import MAX_ROUNDS, PrefixHasher
from orthanc_transfers.runtime.journal import Kind


@dataclass(eq=False, slots=True)
class _Write:
    """Bytes on their way to the disk."""

    bytes: RangeSet
    pieces: list[tuple[Range, int]]
    """Ranges to be written, each with the offset of its bytes in the data."""
    contended: bool = False
    """Another thread writes some of the same bytes: what is on disk may be its own."""


@dataclass(slots=True)
class _Verdicts:
    """What the bytes of one write say of the instances they touch, by index."""

    good: list[int] = field(default_factory=list)
    """Verified from the buffer."""
    wrong: list[int] = field(default_factory=list)
    """Another MD5 than announced."""
    partial: list[int] = field(default_factory=list)
    """Not completely in the buffer."""


class AreaWriter:
    """What has arrived of one area. Thread-safe; nothing blocks while its lock is held.

    Instances are named by their indices in the manifest.
    """

    def __init__(self, area: Area) -> None:
        self._area = area
        self._manifest: Manifest = area.manifest
        self._lock = threading.Lock()
        self._quiet = threading.Condition(self._lock)
        self._have = RangeSet(area.history.have)
        self._stored: set[int] = set()
        self._stored_size = 0
        self._good: set[int] = set()
        self._wrong: set[int] = set()
        self._hasher = PrefixHasher(
            area, self._lock, settled=self._settled, verified=lambda index: index in self._good
        )
        self._writes: list[_Write] = []
        self._active = 0
        self._judge_empty(range(len(self._manifest)))
        for index in area.history.stored:
            self._mark_stored(index)

    def _judge_empty(self, indices: Iterable[int]) -> None:
        empty = md5(b"")
        for index in indices:
            instance = self._instance(index)
            if not instance.size:
                (self._good if instance.md5 == empty else self._wrong).add(index)

    # --- queries

    def missing(self) -> list[Range]:
        """The ranges that are needed and have not been received, in order."""
        with self._lock:
            return list(self._have.missing(self._manifest.area))

    @property
    def stored(self) -> frozenset[int]:
        """Instances whose bytes are not needed, since Orthanc has them."""
        with self._lock:
            return frozenset(self._stored)

    @property
    def stored_count(self) -> tuple[int, int]:
        """Number and bytes of those."""
        with self._lock:
            return len(self._stored), self._stored_size

    def flaw(self) -> str | None:
        """What keeps the area from being committed, naming an instance; ``None``: every byte is there."""
        with self._lock:
            if self._wrong:
                instance = self._instance(min(self._wrong))
                return f"the MD5 of instance {instance.id} differs from the one announced, {instance.md5}"
            for gap in self._have.missing(self._manifest.area):
                for instance, _ in self._manifest.overlapping(gap):
                    return f"instance {instance.id} was not received completely"
            return None

    def unchecked(self, indices: Iterable[int]) -> list[int]:
        """Those of ``indices`` whose MD5 is not verified, and that are not stored already."""
        with self._lock:
            return [index for index in indices if index not in self._good and index not in self._stored]

    # --- changes

    def skip(self, indices: frozenset[int]) -> None:
        """Mark instances as stored already, before any of their bytes is written. Raises ``NoSpace``."""
        self._area.journal_stored(self.stored | indices)
        with self._lock:
            for index in indices:
                self._mark_stored(index)

    def grow(self) -> None:
        """Take in the instances by which the area has grown."""
        with self._lock:
            known, self._manifest = len(self._manifest), self._area.manifest
            self._judge_empty(range(known, len(self._manifest)))

    def _mark_stored(self, index: int) -> None:
        item = self._range(index)
        self._stored.add(index)
        self._stored_size += item.size
        self._have.add(item)
        self._wrong.discard(index)

    def lose(self, indices: Sequence[int]) -> None:
        """Mark the bytes of instances as missing again."""
        ranges = [self._range(index) for index in indices]
        with self._lock:
            for index, item in zip(indices, ranges, strict=True):
                if index in self._stored:
                    self._stored.discard(index)
                    self._stored_size -= item.size
                else:
                    self._area.written -= item.size
                self._good.discard(index)
                self._have.discard(item)
        self._area.journal_ranges(Kind.LOST, ranges)

    def write(self, ranges: Sequence[Range], data: memoryview, gate: Callable[[], None]) -> None:
        """Put ``data`` into the area, scattered over the ranges in their order. Raises ``NoSpace``.

        ``gate`` raises if nothing may be written any more. Once it does, ``quiesce`` waits for every write
        that passed before.
        """
        write = self._begin(_joined(ranges), gate)
        try:
            self._perform(write, data)
        finally:
            with self._quiet:
                self._active -= 1
                self._quiet.notify_all()

    def quiesce(self) -> None:
        """Wait for the writes under way; the caller lets no new one begin."""
        with self._quiet:
            while self._active:
                self._quiet.wait()

    def _begin(self, ranges: Sequence[Range], gate: Callable[[], None]) -> _Write:
        with self._lock:
            gate()
            pieces: list[tuple[Range, int]] = []
            wanted = RangeSet()
            offset = 0
            for item in ranges:
                for gap in self._have.missing(item):
                    for piece in wanted.missing(gap):
                        pieces.append((piece, offset + piece.start - item.start))
                    wanted.add(gap)
                offset += item.size
            write = _Write(wanted, pieces)
            for other in self._writes:
                if any(other.bytes.missing(piece).size < piece.size for piece, _ in pieces):
                    write.contended = other.contended = True
            self._writes.append(write)
            self._active += 1
            return write

    def _perform(self, write: _Write, data: memoryview) -> None:
        accepted = write.bytes
        verdicts = _Verdicts()
        done = False
        try:
            self._area.write(write.pieces, data)
            for item, offset in write.pieces:
                self._verify_buffer(item, data[offset : offset + item.size], verdicts)
            if verdicts.wrong:
                accepted = RangeSet(write.bytes)
                for index in verdicts.wrong:
                    accepted.discard(self._range(index))
            if accepted:
                # Journalled before it counts: what memory knows, the disk knows too.
                self._area.journal_ranges(Kind.RECEIVED, list(accepted))
            done = True
        finally:
            with self._lock:
                self._writes.remove(write)
                if done:
                    self._accept(accepted, verdicts.wrong)
                    if write.contended:
                        verdicts.partial += verdicts.good
                    else:
                        self._good.update(verdicts.good)
        for index in verdicts.partial:
            self._hash(index, MAX_ROUNDS)

    def _accept(self, accepted: RangeSet, wrong: Iterable[int]) -> None:
        for item in accepted:
            self._have.add(item)
            self._area.written += item.size
            if self._wrong:
                self._wrong -= {
                    self._manifest.index_of(one.id) for one, _ in self._manifest.overlapping(item)
                }
        self._wrong.update(wrong)

    def _verify_buffer(self, item: Range, data: memoryview, verdicts: _Verdicts) -> None:
        for instance, whole in self._manifest.overlapping(item):
            index = self._manifest.index_of(instance.id)
            if item.start <= whole.start and whole.stop <= item.stop:
                same = md5(data[whole.start - item.start : whole.stop - item.start]) == instance.md5
                (verdicts.good if same else verdicts.wrong).append(index)
            else:
                verdicts.partial.append(index)

    # --- MD5s along the received prefix

    def check(self, index: int) -> None:
        """Verify an instance that was received completely, from the disk; ``flaw`` tells of a wrong one."""
        self._hash(index, None)

    def _hash(self, index: int, rounds: int | None) -> None:
        digest = self._hasher.advance(index, self._range(index), rounds)
        if digest is None:
            return
        if digest == self._instance(index).md5:
            with self._lock:
                self._good.add(index)
            return
        self.lose([index])
        with self._lock:
            self._wrong.add(index)

    def _settled(self, item: Range) -> int:
        # Bytes that a second writer is still writing may yet change.
        settled = self._have.prefix(item)
        for write in self._writes:
            for other in write.bytes:
                if other.start < item.start + settled and other.stop > item.start:
                    settled = max(0, other.start - item.start)
        return settled

    def _instance(self, index: int) -> Instance:
        return self._manifest.instances[index]

    def _range(self, index: int) -> Range:
        return self._manifest.range_of(self._instance(index).id)


def _joined(ranges: Sequence[Range]) -> list[Range]:
    # Neighbours become one range: one call to the kernel instead of one for each small instance.
    joined: list[Range] = []
    for item in ranges:
        if joined and joined[-1].stop == item.start:
            joined[-1] = Range(joined[-1].start, item.stop)
        elif item.size:
            joined.append(item)
    return joined
