"""Chunks of instances -> bytes: read where they lie, or through one cache that all transfers share."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.model import Chunk, Instance, Manifest
from orthanc_transfers.interfaces import InstanceStore

# Bytes. Pieces below are joined: one large buffer costs less in codecs and sockets than many small ones.
SMALL = 64 * 1024

# Seconds without anything being given back after which the capacity is exceeded rather than waited for:
# a cache may cost memory, but must not make two transfers wait for each other.
IMPATIENCE = 5.0

_logger = logging.getLogger(__name__)

# A set that keeps its order.
_Wanted = Mapping[Instance, None]


class InstanceCache:
    """DICOM files of the store, in memory while they are being sent.

    Holds at most ``capacity`` bytes, or what one call of ``pieces`` needs if that is more. Room is made
    before a file is read, of those that nobody uses, the least recently used first. A file is read once
    however many threads ask for it. What was handed out counts until the views of it are gone. A file whose
    bytes were all handed out is let go at once: a transfer asks for each byte once. An instance that was stored
    anew, with another MD5, is another file.

    Where the store can read parts of files, nothing is held: the system's own cache serves those who come again.
    """

    def __init__(self, store: InstanceStore, capacity: int) -> None:
        self._store = store
        self._capacity = capacity
        # A view may be collected, and so given back, at any allocation: also in the middle of a method here.
        # Hence a reentrant lock, and a list of those given back while their thread was in such a method.
        self._changed = threading.Condition(threading.RLock())
        self._owner: int | None = None
        self._returned: deque[_Pin] = deque()
        self._entries: OrderedDict[Instance, _Entry] = OrderedDict()
        self._used = 0
        self._hits = 0
        self._misses = 0

    @property
    def used(self) -> int:
        """Bytes of memory."""
        return self._used

    @property
    def hits(self) -> int:
        """How many times an instance was in memory when it was asked for, or being read already."""
        return self._hits

    @property
    def misses(self) -> int:
        """How many times an instance was read."""
        return self._misses

    def instance(self, identifier: str) -> Instance:
        """As ``InstanceStore.instance``. Raises ``UnknownResource``."""
        return self._store.instance(identifier)

    def pieces(self, chunks: Sequence[Chunk], manifest: Manifest | None = None) -> list[Buffer]:
        """The bytes of the chunks, to be read end to end: one buffer, or views of the cache, small ones joined.

        ``manifest``, where the caller has one, tells of the instances, which the store is asked for otherwise.
        Raises ``BadRequest`` for a chunk that lies beyond its instance, ``UnknownResource``.
        """
        instances = {
            chunk.id: manifest.instance(chunk.id)
            if manifest and chunk.id in manifest
            else self.instance(chunk.id)
            for chunk in chunks
        }
        for chunk in chunks:
            _check(chunk, instances[chunk.id].size)
        read = self._read_parts(chunks)
        return self._cached(chunks, instances) if read is None else [read]

    def _read_parts(self, chunks: Sequence[Chunk]) -> Buffer | None:
        """Just the bytes of the chunks, where the store can read parts of files."""
        buffer = memoryview(bytearray(sum(chunk.size for chunk in chunks)))
        position = 0
        for chunk in chunks:
            view = buffer[position : position + chunk.size]
            if not self._store.read_into(view, chunk.id, chunk.offset):
                return None
            position += chunk.size
        with self._changed:
            self._misses += len(chunks)
        return buffer

    def _cached(self, chunks: Sequence[Chunk], instances: Mapping[str, Instance]) -> list[Buffer]:
        entries = self._acquire({instances[chunk.id]: None for chunk in chunks})
        try:
            pieces = self._cut(chunks, entries)
            with self._exclusive():
                for chunk in chunks:
                    entries[chunk.id].given += chunk.size
        finally:
            self._release(entries.values())
        return pieces

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """The only thread that looks at the entries, and what was given back taken note of."""
        with self._changed:
            self._owner = threading.get_ident()
            try:
                yield
            finally:
                while self._returned:
                    pin = self._returned.popleft()
                    del pin.entry.pins[id(pin)]
                    self._let_go(pin.entry)
                self._changed.notify_all()
                self._owner = None
        if self._returned:  # just now
            self._take_note()

    def _take_note(self) -> None:
        with self._exclusive():
            pass

    def _wait(self, seconds: float | None = None) -> bool:
        """Let others in until something changes; whether it did."""
        self._owner = None
        try:
            return self._changed.wait(seconds)
        finally:
            self._owner = threading.get_ident()

    def _acquire(self, instances: _Wanted) -> dict[str, _Entry]:
        """Entries with their bytes, this caller counted in each; reads those that are not in memory."""
        got: dict[str, _Entry] = {}
        while len(got) < len(instances):
            present, absent = self._reserve({one: None for one in instances if one.id not in got})
            got |= absent
            try:
                for entry in absent.values():
                    self._load(entry)
                # Own files are read first: so two callers that wait for each other's both end.
                for identifier, entry in present.items():
                    if self._wait_for(entry):
                        got[identifier] = entry
                    else:
                        self._release([entry])
            except BaseException:
                self._abandon(absent.values())
                self._release(got.values())
                self._release(entry for identifier, entry in present.items() if identifier not in got)
                raise
        return got

    def _reserve(self, instances: _Wanted) -> tuple[dict[str, _Entry], dict[str, _Entry]]:
        """Count this caller in the entries of these instances: those there are, and new ones."""
        with self._exclusive():
            while not self._make_room(instances):
                if not self._wait(IMPATIENCE):
                    _logger.info("CacheSize is exceeded: nothing in it is given back")
                    break
            present: dict[str, _Entry] = {}
            absent: dict[str, _Entry] = {}
            for instance in instances:
                entry = self._entries.get(instance)
                if entry is None:
                    entry = absent[instance.id] = self._entries[instance] = _Entry(instance, instance.size)
                    self._used += instance.size
                    self._misses += 1
                else:
                    present[instance.id] = entry
                    self._entries.move_to_end(instance)
                    self._hits += 1
                entry.callers += 1
            return present, absent

    def _make_room(self, instances: _Wanted) -> bool:
        needed = sum(instance.size for instance in instances if instance not in self._entries)
        if self._used + needed <= self._capacity or not needed:
            return True
        others = [entry for instance, entry in self._entries.items() if instance not in instances]
        for entry in others:
            if not entry.in_use:
                self._forget(entry)
                if self._used + needed <= self._capacity:
                    return True
        # More than the capacity, but nobody else has anything to give back.
        return not any(entry.in_use for entry in others)

    def _load(self, entry: _Entry) -> None:
        data = memoryview(self._store.read(entry.instance.id)).cast("B")
        with self._exclusive():
            self._used += len(data) - entry.size
            entry.size = len(data)
            entry.data = data

    def _wait_for(self, entry: _Entry) -> bool:
        """Whether another caller read it; otherwise it is to be read again."""
        with self._exclusive():
            while entry.data is None and not entry.abandoned:
                self._wait()
            return not entry.abandoned

    def _abandon(self, entries: Iterable[_Entry]) -> None:
        with self._exclusive():
            for entry in entries:
                if entry.data is None:
                    entry.abandoned = True
                    self._forget(entry)

    def _forget(self, entry: _Entry) -> None:
        del self._entries[entry.instance]
        self._used -= entry.size

    def _release(self, entries: Iterable[_Entry]) -> None:
        with self._exclusive():
            for entry in entries:
                entry.callers -= 1
                self._let_go(entry)

    def _let_go(self, entry: _Entry) -> None:
        if entry.exhausted and not entry.in_use and self._entries.get(entry.instance) is entry:
            self._forget(entry)

    def _cut(self, chunks: Sequence[Chunk], entries: Mapping[str, _Entry]) -> list[Buffer]:
        pieces: list[Buffer] = []
        run: list[memoryview] = []
        for chunk in chunks:
            entry = entries[chunk.id]
            assert entry.data is not None
            # Once more: the file may have been replaced by a shorter one since its size was asked for.
            _check(chunk, entry.size)
            piece = entry.data[chunk.offset : chunk.offset + chunk.size]
            if chunk.size < SMALL:
                run.append(piece)
                continue
            pieces += _joined(run)
            run = []
            self._pin(piece, entry)
            pieces.append(piece)
        return pieces + _joined(run)

    def _pin(self, piece: memoryview, entry: _Entry) -> None:
        pin = _Pin(piece, self._unpin)
        pin.entry = entry
        # One operation of a dictionary needs no lock, and this caller still keeps the entry in use.
        entry.pins[id(pin)] = pin

    def _unpin(self, pin: weakref.ref[memoryview]) -> None:
        assert isinstance(pin, _Pin)
        self._returned.append(pin)
        if self._owner != threading.get_ident():
            self._take_note()


class _Pin(weakref.ref["memoryview"]):
    """Notices when a view that was handed out is gone."""

    __slots__ = ("entry",)

    entry: _Entry


@dataclass(slots=True)
class _Entry:
    """One file. ``size`` is what is counted for it, also while ``data`` is still being read."""

    instance: Instance
    size: int
    data: memoryview | None = None
    abandoned: bool = False
    callers: int = 0
    given: int = 0
    """Bytes that were handed out."""
    # By identity: the hash of a reference is that of what it refers to, here of all its bytes.
    pins: dict[int, _Pin] = field(default_factory=dict)

    @property
    def exhausted(self) -> bool:
        return self.given >= self.size

    @property
    def in_use(self) -> bool:
        return bool(self.callers or self.pins)


def _joined(run: Sequence[memoryview]) -> list[Buffer]:
    # Joined also when alone: a small view would keep a whole file in memory.
    return [b"".join(run)] if run else []


def _check(chunk: Chunk, size: int) -> None:
    if chunk.offset < 0 or chunk.size < 0 or chunk.offset + chunk.size > size:
        raise BadRequest(
            f"bytes {chunk.offset} to {chunk.offset + chunk.size} of instance {chunk.id}: it has {size}"
        )
