"""A receiver without Orthanc: a store in memory, a clock that tests turn, and everything wired."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.codec import Compression
from orthanc_transfers.core.dicom import UidOf, transfer_syntax
from orthanc_transfers.core.errors import Canceled, ImportRefused, UnknownResource
from orthanc_transfers.core.messages_v1 import PushCreationV1
from orthanc_transfers.core.messages_v2 import PushCreationV2
from orthanc_transfers.core.model import Beginning, Chunk, Instance, Manifest, Resource
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.interfaces import Capacity, Disks, Imported, ImportStatus
from orthanc_transfers.receiver.extras_commit import ExtrasPolicy
from orthanc_transfers.receiver.incoming import IncomingTransfer
from orthanc_transfers.receiver.metrics import PushMetrics
from orthanc_transfers.receiver.open_request import OpenRequest
from orthanc_transfers.receiver.ownership import Ownership
from orthanc_transfers.receiver.protocol_v1 import PushV1
from orthanc_transfers.receiver.protocol_v2 import PushV2
from orthanc_transfers.receiver.pushes import PushService
from orthanc_transfers.receiver.registry import Registry
from orthanc_transfers.receiver.reports import Reports
from orthanc_transfers.receiver.staging import Staging
from orthanc_transfers.runtime.cancellation import Cancellation

PATIENCE = 20.0
"""Seconds after which a test that waits for something gives up."""


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def identify(data: bytes) -> str:
    """What the store of these tests calls a file: as in Orthanc, it follows from the content.

    Files of the same name are the same instance in another version.
    """
    return hashlib.sha1(data[_HEADER:].partition(b":")[0]).hexdigest()


_HEADER = 128 + 4 + 8 + 64


def dicom(name: str, size: int, syntax: str = "1.2.840.10008.1.2.1") -> bytes:
    """A file of about that size: the transfer syntax as in DICOM PS3.10, then ``name:`` and a body."""
    element = b"\x02\x00\x10\x00UI" + (64).to_bytes(2, "little") + syntax.encode().ljust(64, b"\0")
    body = hashlib.sha256(name.encode()).digest() * (size // 32 + 1)
    return bytes(128) + b"DICM" + element + f"{name}:".encode() + body[:size]


class MemoryStore:
    """An ``InstanceStore`` in memory, with switches for what can go wrong."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.refused: dict[str, str] = {}
        self.filtered: set[str] = set()
        self.overwrites = False
        self.patients: dict[str, None] = {}
        """Patients, and instances that are each one of their own."""
        self.unreadable: set[str] = set()
        """Stored, but their files cannot be read."""
        self.before_add: Callable[[str], None] = lambda identifier: None
        self.before_md5s: Callable[[Cancellation], None] = lambda cancellation: None
        self.before_sync: Callable[[], None] = lambda: None
        self.synced: set[str] = set()
        """Those that a power failure leaves."""
        self.before_remove: Callable[[str], None] = lambda identifier: None
        self.times: dict[str, str] = {}
        """When instances were received."""
        self.added: list[str] = []
        self.removed: list[str] = []
        self._lock = threading.Lock()

    def put(self, data: bytes) -> str:
        self.files[identify(data)] = data
        return identify(data)

    def manifest(self, resources: Sequence[Resource], cancellation: Cancellation | None = None) -> Manifest:
        raise NotImplementedError

    def beginning(
        self, resources: Sequence[Resource], count: int, cancellation: Cancellation | None = None
    ) -> Beginning:
        raise NotImplementedError

    def md5s(
        self,
        identifiers: Iterable[str],
        cancellation: Cancellation | None = None,
        uid_of: UidOf | None = None,
        *,
        sure: bool = True,
    ) -> dict[str, str | None]:
        self.before_md5s(cancellation or Cancellation())
        return {
            identifier: None if identifier in self.unreadable else md5(self.files[identifier])
            for identifier in identifiers
            if identifier in self.files
        }

    def is_intact(self, identifier: str, md5: str, cancellation: Cancellation | None = None) -> bool:
        known = self.md5s([identifier])[identifier]
        return known is not None and hashlib.md5(self.read(identifier)).hexdigest() == known

    def patients_of(self, identifiers: Iterable[str], cancellation: Cancellation) -> frozenset[str]:
        return frozenset(self.patients.keys() & set(identifiers))

    def read(self, identifier: str) -> memoryview:
        if identifier not in self.files:
            raise UnknownResource(identifier)
        return memoryview(self.files[identifier])

    def add(self, data: Buffer) -> Imported:
        content = bytes(data)
        identifier = identify(content)
        self.before_add(identifier)
        if identifier in self.refused:
            raise ImportRefused(self.refused[identifier])
        if identifier in self.filtered:
            return Imported(ImportStatus.FILTERED_OUT, "")
        with self._lock:
            if identifier in self.files and not self.overwrites:
                return Imported(ImportStatus.ALREADY_STORED, identifier)
            self.files[identifier] = content
            self.added.append(identifier)
        return Imported(ImportStatus.SUCCESS, identifier)

    def received(self, identifier: str) -> str | None:
        return self.times.get(identifier, "") if identifier in self.files else None

    def remove(self, identifier: str) -> None:
        self.before_remove(identifier)
        with self._lock:
            self.files.pop(identifier, None)
            self.removed.append(identifier)

    def sync(self) -> None:
        self.before_sync()
        self.synced = set(self.files)

    def transfer_syntax(self, identifier: str) -> str | None:
        return transfer_syntax(self.files[identifier])


class TestClock:
    """Time that passes when a test says so."""

    __test__ = False

    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class Receiver:
    """A receiver: ``restart`` is what the death of its process leaves."""

    root: Path
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: TestClock = field(default_factory=TestClock)
    settings: Settings = field(default_factory=Settings)
    read_only: bool = False
    capacity: Capacity | None = None
    disks: Disks | None = None
    extras: ExtrasPolicy | None = None
    ownership: Ownership | None = None

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.reports = Reports(self.root / "reports", self.settings.report_retention, self.clock)
        self.staging = Staging(
            self.root, max_size=self.settings.max_staging_size, clock=self.clock, disks=self.disks
        )
        self.registry = Registry(
            self.staging,
            self.store,
            self.reports,
            self.settings,
            self.clock,
            read_only=self.read_only,
            capacity=self.capacity,
            extras=self.extras,
            ownership=self.ownership,
        )
        self.metrics = PushMetrics()
        self.pushes = PushService(self.registry, self.settings, self.clock, self.metrics)
        self.v1, self.v2 = PushV1(self.pushes), PushV2(self.pushes)

    def stop(self) -> None:
        self.pushes.close()

    close = stop

    def restart(self) -> None:
        self.stop()
        self.start()

    def open(
        self,
        manifest: Manifest,
        token: str = "a" * 32,
        cancellation: Cancellation | None = None,
        **options: Any,
    ) -> IncomingTransfer:
        request = {"kind": "pull", "check_stored": True, **options}
        return self.registry.open(OpenRequest(token=token, manifest=manifest, **request), cancellation)

    def pull(self, files: Sequence[bytes], token: str = "a" * 32, **options: Any) -> IncomingTransfer:
        return self.open(manifest_of(files), token, **options)

    def leftovers(self) -> set[str]:
        """Names in the staging directory that belong to a transfer, or were set aside."""
        return {path.name for path in self.root.iterdir()} - {"lock", "reports"}


@contextmanager
def running_receiver(root: Path, **settings: Any) -> Iterator[Receiver]:
    receiver = Receiver(root, settings=Settings(**settings))
    try:
        yield receiver
    finally:
        receiver.stop()


def manifest_of(files: Sequence[bytes]) -> Manifest:
    return Manifest(Instance(identify(data), len(data), md5(data)) for data in files)


def fill(transfer: IncomingTransfer, files: Sequence[bytes]) -> None:
    """Bring what is missing."""
    area = memoryview(b"".join(files))
    for item in transfer.missing():
        transfer.write([item], area[item.start : item.stop])


def creation_of(files: Sequence[bytes], *buckets: Sequence[Chunk], gzip: bool = False) -> PushCreationV1:
    """A version-1 push; one bucket for each file unless said otherwise."""
    manifest = manifest_of(files)
    whole = tuple((Chunk(one.id, 0, one.size),) for one in manifest if one.size)
    planned = tuple(tuple(bucket) for bucket in buckets) or whole
    return PushCreationV1(Compression.GZIP if gzip else Compression.NONE, manifest, planned)


def creation2_of(files: Sequence[bytes], token: str = "b" * 32) -> PushCreationV2:
    return PushCreationV2(token, manifest_of(files))


def halves(item: Range) -> tuple[Range, Range]:
    middle = (item.start + item.stop) // 2
    return Range(item.start, middle), Range(middle, item.stop)


def wait_until(condition: Callable[[], bool]) -> None:
    """Return once it holds; fail after ``PATIENCE`` seconds."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.005)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it did not happen")


def hold_imports(
    receiver: Receiver, after: int = 0, *, hang: bool = False
) -> tuple[threading.Event, threading.Event]:
    """From now on imports wait, once so many are done, until the second event; the first one says that one waits.

    A server that stops lets them go on, once its commits have been told to stop: none begins another import then.
    ``hang``: it does not.
    """
    begun, go_on = threading.Event(), threading.Event()

    def hold(identifier: str) -> None:
        if len(receiver.store.added) >= after:
            begun.set()
            go_on.wait(PATIENCE)

    receiver.store.before_add = hold
    if not hang:
        # Called after those of the commits that begin from now on: the last added is called first.
        receiver.registry._closing.on_cancel(go_on.set)
    return begun, go_on


def hold_lookups(receiver: Receiver) -> threading.Event:
    """From now on a look-up of what Orthanc has takes until it is canceled; the event says that one has begun."""
    begun = threading.Event()

    def look_up(cancellation: Cancellation) -> None:
        begun.set()
        cancellation.wait(PATIENCE)

    receiver.store.before_md5s = look_up
    return begun


def crash_while_importing(
    receiver: Receiver, files: Sequence[bytes], *, resumable: bool = True, kind: str = "push"
) -> str:
    """A process that dies when some of the files are imported; returns the transfer's identifier."""
    begun, _ = hold_imports(receiver, after=3)
    transfer = receiver.pull(files, kind=kind, resumable=resumable, meta={"version": 0})
    fill(transfer, files)
    with ThreadPoolExecutor(1) as pool:
        commit = pool.submit(transfer.commit)
        assert begun.wait(PATIENCE)
        receiver.stop()
        with pytest.raises(Canceled):
            commit.result(PATIENCE)
    receiver.store.before_add = lambda identifier: None
    return transfer.id
