"""LRU cache of the files being sent, shared by all transfers."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from orthanc_transfers.core.model import Chunk, Instance
from orthanc_transfers.interfaces import InstanceStore

# Seconds without anything being given back after which the capacity is exceeded rather than waited for:
# a cache may cost memory, but must not make two transfers wait for each other.
IMPATIENCE = 5.0

_logger = logging.getLogger(__name__)

# A set that keeps its order.
_Instances = Mapping[Instance, None]


class InstanceCache:
    """DICOM files of the store, in memory while they are being sent. Thread-safe.

    Holds at most ``capacity`` bytes, or what one ``lease`` needs if that is more. Room is made before a file is read,
    by evicting files that are not in use, the least recently used first. A file is read once however many threads
    ask for it (single flight). Bytes that were handed out count until the views of them are gone. A file whose bytes
    were all handed out is dropped at once: a transfer asks for each byte once. An instance that was stored anew, with
    another MD5, is another file.
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
        """How many times an instance was in memory, or already being read, when it was asked for."""
        return self._hits

    @property
    def misses(self) -> int:
        """How many times an instance was read."""
        return self._misses

    @contextmanager
    def lease(self, instances: Iterable[Instance]) -> Iterator[Lease]:
        """Keep the files of these instances in memory for the length of a ``with``. Raises ``UnknownResource``."""
        entries = self._acquire(dict.fromkeys(instances))
        try:
            lease = Lease(entries, self._unpin)
            yield lease
            with self._exclusive():
                lease.count()
        finally:
            self._release(entries.values())

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the lock; before it is released, process the views that were given back."""
        with self._changed:
            self._owner = threading.get_ident()
            try:
                yield
            finally:
                while self._returned:
                    pin = self._returned.popleft()
                    del pin.entry.pins[id(pin)]
                    self._drop_exhausted(pin.entry)
                self._changed.notify_all()
                self._owner = None
        if self._returned:  # just now
            self._process_returned()

    def _process_returned(self) -> None:
        with self._exclusive():
            pass

    def _wait(self, seconds: float | None = None) -> bool:
        """Release the lock until something changes; whether it did."""
        self._owner = None
        try:
            return self._changed.wait(seconds)
        finally:
            self._owner = threading.get_ident()

    def _acquire(self, instances: _Instances) -> dict[str, _Entry]:
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
                    if self._await_load(entry):
                        got[identifier] = entry
                    else:
                        self._release([entry])
            except BaseException:
                self._abandon(absent.values())
                self._release(got.values())
                self._release(entry for identifier, entry in present.items() if identifier not in got)
                raise
        return got

    def _reserve(self, instances: _Instances) -> tuple[dict[str, _Entry], dict[str, _Entry]]:
        """Count this caller in the entries of these instances: those present, and new ones."""
        with self._exclusive():
            while not self._make_room(instances):
                if not self._wait(IMPATIENCE):
                    _logger.info("CacheSize is exceeded: all of its files are in use")
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

    def _make_room(self, instances: _Instances) -> bool:
        needed = sum(instance.size for instance in instances if instance not in self._entries)
        if self._used + needed <= self._capacity or not needed:
            return True
        others = [entry for instance, entry in self._entries.items() if instance not in instances]
        for entry in others:
            if not entry.in_use:
                self._drop(entry)
                if self._used + needed <= self._capacity:
                    return True
        # More than the capacity, but no other caller has anything to give back.
        return not any(entry.in_use for entry in others)

    def _load(self, entry: _Entry) -> None:
        data = memoryview(self._store.read(entry.instance.id)).cast("B")
        with self._exclusive():
            self._used += len(data) - entry.size
            entry.size = len(data)
            entry.data = data

    def _await_load(self, entry: _Entry) -> bool:
        """Whether another caller read it; if not, it must be read again."""
        with self._exclusive():
            while entry.data is None and not entry.abandoned:
                self._wait()
            return not entry.abandoned

    def _abandon(self, entries: Iterable[_Entry]) -> None:
        with self._exclusive():
            for entry in entries:
                if entry.data is None:
                    entry.abandoned = True
                    self._drop(entry)

    def _drop(self, entry: _Entry) -> None:
        del self._entries[entry.instance]
        self._used -= entry.size

    def _release(self, entries: Iterable[_Entry]) -> None:
        with self._exclusive():
            for entry in entries:
                entry.callers -= 1
                self._drop_exhausted(entry)

    def _drop_exhausted(self, entry: _Entry) -> None:
        if entry.exhausted and not entry.in_use and self._entries.get(entry.instance) is entry:
            self._drop(entry)

    def _unpin(self, pin: weakref.ref[memoryview]) -> None:
        assert isinstance(pin, _Pin)
        self._returned.append(pin)
        if self._owner != threading.get_ident():
            self._process_returned()


class Lease:
    """The files of one ``InstanceCache.lease``, by identifier of the instance. For one thread."""

    def __init__(
        self, entries: Mapping[str, _Entry], unpin: Callable[[weakref.ref[memoryview]], None]
    ) -> None:
        self._entries = entries
        self._unpin = unpin
        self._given: list[tuple[_Entry, int]] = []

    def size(self, identifier: str) -> int:
        """Bytes of a file, as it was read."""
        return self._entries[identifier].size

    def view(self, chunk: Chunk) -> memoryview:
        """The bytes of a chunk, valid as long as the lease."""
        entry = self._entries[chunk.id]
        assert entry.data is not None
        self._given.append((entry, chunk.size))
        return entry.data[chunk.offset : chunk.offset + chunk.size]

    def hand_out(self, chunk: Chunk) -> memoryview:
        """The same, valid beyond the lease: the file stays in the cache until the view is gone."""
        view = self.view(chunk)
        pin = _Pin(view, self._unpin)
        pin.entry = self._entries[chunk.id]
        # One operation of a dictionary needs no lock, and this caller still keeps the entry in use.
        pin.entry.pins[id(pin)] = pin
        return view

    def count(self) -> None:
        """Add what was viewed to what was handed out of each file."""
        for entry, size in self._given:
            entry.given += size


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
