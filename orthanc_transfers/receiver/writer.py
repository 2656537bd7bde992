"""Bytes as they arrive in an area: which are there, which are still missing, and whose MD5 is right.

An instance that lies whole in one written buffer is hashed from that buffer. One that arrives in parts is
hashed along the bytes that are there without a gap from its beginning, read back from the kernel's cache, by
one thread at a time. So when the last byte has arrived, little is left to be verified.

Bytes that were received are never written again, unless their instance turned out to be wrong: whatever
arrives twice, late or in another version, cannot change what was verified.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from orthanc_transfers.core.checksum import md5
from orthanc_transfers.core.model import Instance, Manifest
from orthanc_transfers.core.ranges import Range, RangeSet
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.runtime.journal import Kind

_BLOCK = 1024 * 1024
# A thread that brought a bucket may go on hashing what others bring, but not for as long as they do.
_MOST_ROUNDS = 4


@dataclass(eq=False, slots=True)
class _Write:
    """Bytes on their way to the disk."""

    bytes: RangeSet
    pieces: list[tuple[Range, int]]
    """Ranges to be written, each with its place in the data."""
    contended: bool = False
    """Somebody writes some of the same bytes: what is on disk may be theirs."""


@dataclass(eq=False, slots=True)
class _Prefix:
    """The MD5 of an instance as far as it is known."""

    digest: hashlib._Hash = field(default_factory=lambda: hashlib.md5(usedforsecurity=False))
    position: int = 0
    busy: bool = False


class AreaWriter:
    """What has arrived of one area. Thread-safe; nothing blocks while its lock is held."""

    def __init__(self, area: Area) -> None:
        self._area = area
        self._manifest: Manifest = area.manifest
        self._lock = threading.Lock()
        self._quiet = threading.Condition(self._lock)
        self._have = RangeSet(area.history.have)
        self._stored: set[int] = set()
        self._stored_size = 0
        self._stored_in_the_end: tuple[int, int] | None = None
        self._good: set[int] = set()
        self._wrong: set[int] = set()
        self._prefixes: dict[int, _Prefix] = {}
        self._writes: list[_Write] = []
        self._active = 0
        self._judge_empty(range(len(self._manifest)))
        for place in area.history.stored:
            self._believe(place)

    def _judge_empty(self, places: Iterable[int]) -> None:
        nothing = md5(b"")
        for place in places:
            instance = self._instance(place)
            if not instance.size:
                (self._good if instance.md5 == nothing else self._wrong).add(place)

    # --- questions

    def missing(self) -> list[Range]:
        """The ranges that are needed and not there, in order."""
        with self._lock:
            return list(self._have.missing(self._manifest.area))

    @property
    def stored(self) -> frozenset[int]:
        """Places of the instances whose bytes are not needed."""
        with self._lock:
            return frozenset(self._stored)

    @property
    def stored_count(self) -> tuple[int, int]:
        """Number and bytes of those."""
        with self._lock:
            return self._stored_in_the_end or (len(self._stored), self._stored_size)

    def flaw(self) -> str | None:
        """What keeps the area from being committed, naming an instance; ``None``: every byte is there."""
        with self._lock:
            if self._wrong:
                instance = self._manifest.instances[min(self._wrong)]
                return f"the MD5 of instance {instance.id} differs from the one announced, {instance.md5}"
            for gap in self._have.missing(self._manifest.area):
                for instance, _ in self._manifest.overlapping(gap):
                    return f"instance {instance.id} was not received whole"
            return None

    def unchecked(self, places: Iterable[int]) -> list[int]:
        """Those of some places whose MD5 is not verified, and that are not stored already."""
        with self._lock:
            return [place for place in places if place not in self._good and place not in self._stored]

    # --- changes

    def forget_instances(self) -> None:
        """Nothing is to be written any more: keep nothing that grows with the manifest, but ``stored_count``."""
        with self._lock:
            self._stored_in_the_end = len(self._stored), self._stored_size
            self._manifest = Manifest(())
            self._have = RangeSet()
            for places in (self._stored, self._good, self._wrong):
                places.clear()
            self._prefixes.clear()

    def skip(self, places: frozenset[int]) -> None:
        """Say which instances are stored already, before anything of them was written."""
        self._area.note_stored(self.stored | places)
        with self._lock:
            for place in places:
                self._believe(place)

    def grow(self) -> None:
        """The area has grown."""
        with self._lock:
            known, self._manifest = len(self._manifest), self._area.manifest
            self._judge_empty(range(known, len(self._manifest)))

    def _believe(self, place: int) -> None:
        whole = self._whole(place)
        self._stored.add(place)
        self._stored_size += whole.size
        self._have.add(whole)
        self._wrong.discard(place)

    def lose(self, places: Sequence[int]) -> None:
        """The bytes of some instances are missing again."""
        wholes = [self._whole(place) for place in places]
        with self._lock:
            for place, whole in zip(places, wholes, strict=True):
                if place in self._stored:
                    self._stored.discard(place)
                    self._stored_size -= whole.size
                else:
                    self._area.written -= whole.size
                self._good.discard(place)
                self._have.discard(whole)
        self._area.note(Kind.LOST, wholes)

    def write(self, ranges: Sequence[Range], data: memoryview, gate: Callable[[], None]) -> None:
        """Put ``data`` into the area, scattered over the ranges in their order. Raises ``NoSpace``.

        ``gate`` raises if nothing may be written any more. After that became so, ``quiesce`` waits for
        every write that passed before.
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
            position = 0
            for item in ranges:
                for gap in self._have.missing(item):
                    for piece in wanted.missing(gap):
                        pieces.append((piece, position + piece.start - item.start))
                    wanted.add(gap)
                position += item.size
            write = _Write(wanted, pieces)
            for other in self._writes:
                if any(other.bytes.missing(piece).size < piece.size for piece, _ in pieces):
                    write.contended = other.contended = True
            self._writes.append(write)
            self._active += 1
            return write

    def _perform(self, write: _Write, data: memoryview) -> None:
        accepted = write.bytes
        good: list[int] = []
        wrong: list[int] = []
        parts: list[int] = []
        done = False
        try:
            self._area.write(write.pieces, data)
            for item, position in write.pieces:
                self._verify_buffer(item, data[position : position + item.size], good, wrong, parts)
            if wrong:
                accepted = RangeSet(write.bytes)
                for place in wrong:
                    accepted.discard(self._whole(place))
            if accepted:
                # Journalled before it is believed: what memory knows, the disk knows too.
                self._area.note(Kind.RECEIVED, list(accepted))
            done = True
        finally:
            with self._lock:
                self._writes.remove(write)
                if done:
                    self._accept(accepted, wrong)
                    if write.contended:
                        parts += good
                    else:
                        self._good.update(good)
        for place in parts:
            self._hash_prefix(place, _MOST_ROUNDS)

    def _accept(self, accepted: RangeSet, wrong: Iterable[int]) -> None:
        for item in accepted:
            self._have.add(item)
            self._area.written += item.size
            if self._wrong:
                self._wrong -= {
                    self._manifest.index_of(one.id) for one, _ in self._manifest.overlapping(item)
                }
        self._wrong.update(wrong)

    def _verify_buffer(
        self, item: Range, data: memoryview, good: list[int], wrong: list[int], parts: list[int]
    ) -> None:
        for instance, whole in self._manifest.overlapping(item):
            place = self._manifest.index_of(instance.id)
            if item.start <= whole.start and whole.stop <= item.stop:
                same = md5(data[whole.start - item.start : whole.stop - item.start]) == instance.md5
                (good if same else wrong).append(place)
            else:
                parts.append(place)

    # --- MD5s along what is there

    def check(self, place: int) -> None:
        """Verify an instance that is there whole, from the disk; ``flaw`` tells of a wrong one."""
        self._hash_prefix(place, None)

    def _hash_prefix(self, place: int, rounds: int | None) -> None:
        whole = self._whole(place)
        with self._lock:
            prefix = self._prefixes.setdefault(place, _Prefix())
            if prefix.busy or place in self._good:
                return
            prefix.busy = True
        try:
            buffer = memoryview(bytearray(min(_BLOCK, whole.size)))
            while rounds is None or rounds > 0:
                rounds = None if rounds is None else rounds - 1
                with self._lock:
                    stop = self._settled(whole)
                if stop <= prefix.position:
                    break
                for block in self._area.blocks(
                    Range(whole.start + prefix.position, whole.start + stop), buffer
                ):
                    prefix.digest.update(block)
                prefix.position = stop
        except BaseException:
            # Where the digest stands is not known any more.
            with self._lock:
                self._prefixes.pop(place, None)
            raise
        with self._lock:
            prefix.busy = False
            finished = prefix.position == whole.size
            if finished:
                del self._prefixes[place]
        if finished:
            self._conclude(place, prefix.digest.hexdigest())

    def _settled(self, whole: Range) -> int:
        # Bytes that a second writer is still writing may yet change.
        settled = self._have.prefix(whole)
        for write in self._writes:
            for item in write.bytes:
                if item.start < whole.start + settled and item.stop > whole.start:
                    settled = max(0, item.start - whole.start)
        return settled

    def _conclude(self, place: int, digest: str) -> None:
        if digest == self._instance(place).md5:
            with self._lock:
                self._good.add(place)
            return
        self.lose([place])
        with self._lock:
            self._wrong.add(place)

    def _instance(self, place: int) -> Instance:
        return self._manifest.instances[place]

    def _whole(self, place: int) -> Range:
        return self._manifest.range_of(self._instance(place).id)


def _joined(ranges: Sequence[Range]) -> list[Range]:
    # Neighbours become one range: one call to the kernel instead of one for each small instance.
    joined: list[Range] = []
    for item in ranges:
        if joined and joined[-1].stop == item.start:
            joined[-1] = Range(joined[-1].start, item.stop)
        elif item.size:
            joined.append(item)
    return joined
