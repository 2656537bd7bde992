"""What peers fetch from here in another transfer syntax: nothing is kept of who fetches what."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.messages_transcoding import TranscodedList, TranscodedRequest
from orthanc_transfers.core.model import Chunk, Instance, Manifest
from orthanc_transfers.interfaces import InstanceStore
from orthanc_transfers.jobs.content import TransferStatus
from orthanc_transfers.jobs.transcoding import Transcode, TranscodedStore
from orthanc_transfers.pipeline.chunk_reader import ChunkReader
from orthanc_transfers.pipeline.instance_cache import InstanceCache
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

_THREADS = 4
_SECONDS = 2.0
"""After which a list is sent as far as it has come: no proxy gives up on a request of that duration."""

_STORES = 2
"""Transfer syntaxes whose files are remembered: each has its cache."""
_MAX_KNOWN = 100_000
"""Instances of one transfer syntax that are remembered, 300 bytes each."""


class TranscodedFiles:
    """Made again where they are not in memory any more. Thread-safe. ``capacity``: bytes of each cache."""

    def __init__(self, store: InstanceStore, transcode: Transcode, capacity: int) -> None:
        self._store = store
        self._transcode = transcode
        self._capacity = capacity
        self._lock = threading.Lock()
        self._stores: OrderedDict[str, tuple[TranscodedStore, ChunkReader]] = OrderedDict()

    def listed(self, wanted: TranscodedRequest, cancellation: Cancellation) -> TranscodedList:
        """As many as can be made in good time, at least one. Raises ``UnknownResource``, ``Canceled``."""
        store, _ = self._of(wanted.transcode)
        found: dict[str, Instance] = {}

        def make(identifier: str) -> None:
            found[identifier] = store.sent(identifier)

        began, done = time.monotonic(), 0
        while done < len(wanted.instances) and (not done or time.monotonic() - began < _SECONDS):
            some = wanted.instances[done : done + _THREADS]
            threads.run_all("transfers-transcode", _THREADS, some, make, cancellation)
            done += len(some)
        originals = wanted.instances[:done]
        return TranscodedList(tuple(found[one] for one in originals), originals, *store.counts(originals))

    def read(self, transcode: str, chunks: Sequence[Chunk]) -> list[Buffer]:
        """As ``ChunkReader.read``; chunks name the instances as they are stored here."""
        store, reader = self._of(transcode)
        originals = dict.fromkeys(chunk.id for chunk in chunks)
        return reader.read(chunks, Manifest(replace(store.sent(one), id=one) for one in originals))

    def _of(self, transcode: str) -> tuple[TranscodedStore, ChunkReader]:
        with self._lock:
            known = self._stores.get(transcode)
            if known is None or known[0].known > _MAX_KNOWN:
                store = TranscodedStore(self._store, self._transcode, transcode, TransferStatus())
                known = store, ChunkReader(store, InstanceCache(store, self._capacity))
                self._stores[transcode] = known
            self._stores.move_to_end(transcode)
            while len(self._stores) > _STORES:
                self._stores.popitem(last=False)
            return known
