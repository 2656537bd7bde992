"""A store of files in memory, for the tests of what reads from one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.checksum import md5
from orthanc_transfers.core.errors import UnknownResource
from orthanc_transfers.core.model import Chunk, Instance, Manifest
from orthanc_transfers.pipeline.chunk_reader import ChunkReader
from orthanc_transfers.pipeline.instance_cache import InstanceCache


class FileStore:
    """Files in memory; ``reads`` are those that were read, ``listed`` those that were asked for in the index."""

    def __init__(self, files: dict[str, bytes], on_read: Callable[[str], None] = lambda name: None) -> None:
        self.files = files
        self.reads: list[str] = []
        self.listed: list[str] = []
        self.parts: list[tuple[str, int, int]] = []
        self.reads_parts = False
        self._on_read = on_read

    def read_into(self, view: memoryview, identifier: str, offset: int) -> bool:
        if not self.reads_parts:
            return False
        self.parts.append((identifier, offset, len(view)))
        view[:] = self.files[identifier][offset : offset + len(view)]
        return True

    def read(self, identifier: str) -> memoryview:
        self.reads.append(identifier)
        self._on_read(identifier)
        if identifier not in self.files:
            raise UnknownResource(identifier)
        # A copy, as from Orthanc: each read is new memory.
        return memoryview(bytearray(self.files[identifier]))

    def instance(self, identifier: str) -> Instance:
        self.listed.append(identifier)
        if identifier not in self.files:
            raise UnknownResource(identifier)
        return manifest_of(self.files).instance(identifier)


def manifest_of(files: dict[str, bytes]) -> Manifest:
    return Manifest(Instance(name, len(data), md5(data)) for name, data in files.items())


def files_of(count: int, size: int) -> dict[str, bytes]:
    generator = random.Random(count * size)
    return {f"i{number}": generator.randbytes(size) for number in range(count)}


def wholes(files: dict[str, bytes]) -> list[Chunk]:
    return [Chunk(name, 0, len(data)) for name, data in files.items()]


def joined(pieces: Iterable[Buffer]) -> bytes:
    return b"".join(pieces)


def make(store: FileStore, capacity: int) -> tuple[ChunkReader, InstanceCache]:
    """A reader, and the cache of so many bytes that it reads from."""
    cache = InstanceCache(store, capacity)  # type: ignore[arg-type]
    return ChunkReader(store, cache), cache  # type: ignore[arg-type]
