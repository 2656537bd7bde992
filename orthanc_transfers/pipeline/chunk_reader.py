"""Chunks of instances -> bytes: read in part where the store can, else from the instance cache."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.errors import BadRequest, LostFile
from orthanc_transfers.core.model import Chunk, Instance, Manifest
from orthanc_transfers.interfaces import InstanceStore
from orthanc_transfers.pipeline.instance_cache import InstanceCache

SMALL = 64 * 1024
"""Bytes. Pieces below are joined: one large buffer costs less in codecs and sockets than many small ones."""


class ChunkReader:
    """Reads chunks of the instances of a store. Thread-safe.

    Where the store can read parts of files, nothing is cached: the system's own cache serves repeated reads.
    """

    def __init__(self, store: InstanceStore, cache: InstanceCache) -> None:
        self._store = store
        self._cache = cache
        self._lock = threading.Lock()
        self._partial_reads = 0

    @property
    def partial_reads(self) -> int:
        """Chunks that were read without the cache."""
        return self._partial_reads

    def read(
        self, chunks: Sequence[Chunk], manifest: Manifest | None = None, *, before: bytes = b""
    ) -> list[Buffer]:
        """The bytes of the chunks, laid end to end: one buffer, or views of the cache, small ones joined.

        What is to come ``before`` them is in the same buffer, so that nothing need be copied for it.
        Sizes and MD5s are those of ``manifest`` where it names the instance, otherwise those of the store.
        Raises ``BadRequest`` for a chunk that lies beyond its instance, ``UnknownResource``, ``LostFile``.
        """
        instances = {
            chunk.id: manifest.instance(chunk.id)
            if manifest and chunk.id in manifest
            else self._store.instance(chunk.id)
            for chunk in chunks
        }
        for chunk in chunks:
            _check(chunk, instances[chunk.id].size)
        parts = self._read_parts(chunks, before)
        if parts is not None:
            return [parts]
        return [*([before] if before else []), *self._read_cached(chunks, instances)]

    def _read_parts(self, chunks: Sequence[Chunk], before: bytes) -> Buffer | None:
        """Just the bytes of the chunks; ``None`` where the store can only read whole files."""
        position = len(before)
        buffer = memoryview(bytearray(position + sum(chunk.size for chunk in chunks)))
        buffer[:position] = before
        for chunk in chunks:
            view = buffer[position : position + chunk.size]
            if not self._store.read_into(view, chunk.id, chunk.offset):
                return None
            position += chunk.size
        with self._lock:
            self._partial_reads += len(chunks)
        return buffer

    def _read_cached(self, chunks: Sequence[Chunk], instances: Mapping[str, Instance]) -> list[Buffer]:
        pieces: list[Buffer] = []
        small: list[memoryview] = []
        with self._cache.lease(instances[chunk.id] for chunk in chunks) as lease:
            for chunk in chunks:
                size = lease.size(chunk.id)
                if chunk.offset + chunk.size > size:
                    raise LostFile(
                        f"the file of instance {chunk.id} has {size} bytes on this Orthanc, whose index says"
                        f" {instances[chunk.id].size}: it was overwritten meanwhile, or is damaged"
                    )
                if chunk.size < SMALL:
                    small.append(lease.view(chunk))
                    continue
                pieces += _joined(small)
                small = []
                pieces.append(lease.hand_out(chunk))
            pieces += _joined(small)
        return pieces


def _joined(small: Sequence[memoryview]) -> list[Buffer]:
    # Joined also when alone: a small view would keep a whole file in memory.
    return [b"".join(small)] if small else []


def _check(chunk: Chunk, size: int) -> None:
    if chunk.offset < 0 or chunk.size < 0 or chunk.offset + chunk.size > size:
        raise BadRequest(
            f"bytes {chunk.offset} to {chunk.offset + chunk.size} of instance {chunk.id}: it has {size}"
        )
