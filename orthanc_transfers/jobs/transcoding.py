"""Sends what is stored here in another transfer syntax: the store that such a push reads from.

What is announced, sizes and MD5s, is that of the transcoded files. They are made when they are listed and, beyond what
fits in memory, once more when they are sent: no disk is needed, and the same file comes out each time. A lossy one is
another instance (``core/copies.py``).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.checksum import md5
from orthanc_transfers.core.copies import Copy, lossy_copy, sop_instance_uid
from orthanc_transfers.core.dicom import UidOf, transfer_syntax
from orthanc_transfers.core.errors import HostError
from orthanc_transfers.core.model import Beginning, Instance, Manifest, Resource
from orthanc_transfers.core.transfer_syntaxes import LOSSY
from orthanc_transfers.interfaces import Imported, InstanceStore
from orthanc_transfers.jobs.content import TransferStatus
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.pipeline.chunk_reader import ChunkReader
from orthanc_transfers.pipeline.instance_cache import InstanceCache
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

_THREADS = 4
_KEPT = 64 * 1024 * 1024
"""Bytes of files that were made when they were listed, for the moment when they are sent."""

Transcode = Callable[[Buffer, str], memoryview]
"""A DICOM file -> the same in the transfer syntax of that UID. Raises ``HostError``."""


def transcoding(context: RunContext) -> RunContext:
    """The same run, reading from a ``TranscodedStore`` if the order asks for that. Raises ``HostError``."""
    wanted, services = context.order.transcode, context.services
    if wanted is None:
        return context
    if services.transcode is None:
        raise HostError("this Orthanc cannot transcode", 1)
    store = TranscodedStore(services.store, services.transcode, wanted, context.status)
    cache = InstanceCache(store, max(_KEPT, services.settings.cache_size // 4))
    return replace(context, services=replace(services, store=store, reader=ChunkReader(store, cache)))


class TranscodedStore:
    """Implements ``interfaces.InstanceStore`` for a sender. Thread-safe.

    Instances have the identifiers under which they are sent; ``read`` takes those of the originals, too. What is in the
    transfer syntax ``wanted`` already, or cannot be transcoded (a report, say), is read as it is, and counted in
    ``status``.
    """

    def __init__(
        self, store: InstanceStore, transcode: Transcode, wanted: str, status: TransferStatus
    ) -> None:
        self._store = store
        self._transcode = transcode
        self._wanted = wanted
        self._status = status
        self._lock = threading.Lock()
        self._listed: dict[str, Instance] = {}
        """As they are sent, by the identifiers of the originals."""
        self._plain: dict[str, bool] = {}
        """Those that are sent as they are, and whether for want of a codec."""
        self._kept: OrderedDict[str, memoryview] = OrderedDict()
        self._kept_size = 0
        self._transcoded = self._untranscoded = 0

    # --- listing

    def manifest(self, resources: Sequence[Resource], cancellation: Cancellation | None = None) -> Manifest:
        return self._converted(self._store.manifest(resources, cancellation), cancellation)

    def beginning(
        self, resources: Sequence[Resource], count: int, cancellation: Cancellation | None = None
    ) -> Beginning:
        listed = self._store.beginning(resources, count, cancellation)
        return replace(listed, manifest=self._converted(listed.manifest, cancellation))

    def _converted(self, manifest: Manifest, cancellation: Cancellation | None) -> Manifest:
        def work(instance: Instance) -> None:
            self._list(instance)

        new = [one for one in manifest if one.id not in self._listed]
        threads.run_all("transfers-transcode", _THREADS, new, work, cancellation or Cancellation())
        return Manifest(self._listed[one.id] for one in manifest)

    def sent(self, original: str) -> Instance:
        """An instance as it is sent, by the identifier of the original. Raises ``UnknownResource``."""
        found = self._listed.get(original)
        return self._list(self._store.instance(original)) if found is None else found

    @property
    def known(self) -> int:
        """Number of instances whose transcoded files are known."""
        return len(self._listed)

    def counts(self, originals: Iterable[str]) -> tuple[int, int]:
        """How many of them are transcoded, and how many cannot be."""
        plain = [self._plain.get(one) for one in originals]
        return plain.count(None), plain.count(True)

    def _list(self, instance: Instance) -> Instance:
        identifier = instance.id
        original = self._store.read(identifier)
        wanted = transfer_syntax(original) != self._wanted
        copy = self._make(identifier, original) if wanted else None
        found = instance if copy is None else _described(copy)
        with self._lock:
            self._listed[identifier] = found
            self._transcoded += copy is not None
            self._untranscoded += wanted and copy is None
            self._status.transcoded, self._status.untranscoded = self._transcoded, self._untranscoded
            if copy is None:
                self._plain[identifier] = wanted
                return found
            if copy.id != identifier:
                self._status.originals[copy.id] = identifier
            if self._kept_size + len(copy.data) <= _KEPT:
                self._kept[identifier] = copy.data
                self._kept_size += len(copy.data)
        return found

    def _make(self, identifier: str, original: Buffer) -> Copy | None:
        """The transcoded file; ``None`` if it cannot be made."""
        if transfer_syntax(original) is None:
            return None
        try:
            made = self._transcode(original, self._wanted)
        except HostError:
            return None
        if self._wanted not in LOSSY or sop_instance_uid(made) == sop_instance_uid(original):
            return Copy(identifier, made)
        return lossy_copy(original, identifier, made)

    # --- reading

    def _original(self, identifier: str) -> str:
        return self._status.originals.get(identifier, identifier)

    def instance(self, identifier: str) -> Instance:
        original = self._original(identifier)
        return self._listed.get(original) or self._store.instance(original)

    def read(self, identifier: str) -> memoryview:
        identifier = self._original(identifier)
        if identifier in self._plain:
            return self._store.read(identifier)
        with self._lock:
            kept = self._kept.pop(identifier, None)
            if kept is not None:
                self._kept_size -= len(kept)
                return kept
        original = self._store.read(identifier)
        copy = self._make(identifier, original)
        return original if copy is None else copy.data

    def read_into(self, view: memoryview, identifier: str, offset: int) -> bool:
        return identifier in self._plain and self._store.read_into(view, identifier, offset)

    def md5s(
        self,
        identifiers: Iterable[str],
        cancellation: Cancellation | None = None,
        uid_of: UidOf | None = None,
        *,
        sure: bool = True,
    ) -> dict[str, str | None]:
        known = {one: self._listed.get(self._original(one)) for one in identifiers}
        return {one: found.md5 for one, found in known.items() if found is not None}

    # --- as it is

    def is_intact(self, identifier: str, md5: str, cancellation: Cancellation | None = None) -> bool:
        return self._store.is_intact(identifier, md5, cancellation)

    def exists(self, resource: Resource) -> bool:
        return self._store.exists(resource)

    def patients_of(self, identifiers: Iterable[str], cancellation: Cancellation) -> frozenset[str]:
        return self._store.patients_of(identifiers, cancellation)

    def add(self, data: Buffer) -> Imported:
        return self._store.add(data)

    def received(self, identifier: str) -> str | None:
        return self._store.received(identifier)

    def remove(self, identifier: str) -> None:
        self._store.remove(identifier)

    def sync(self) -> None:
        self._store.sync()

    def transfer_syntax(self, identifier: str) -> str | None:
        return self._store.transfer_syntax(identifier)


def _described(copy: Copy) -> Instance:
    return Instance(copy.id, len(copy.data), md5(copy.data))
