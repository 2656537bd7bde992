"""A store of small files in memory, in place of Orthanc."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.checksum import md5
from orthanc_transfers.core.dicom import UidOf
from orthanc_transfers.core.errors import (
    ImportRefused,
    UnknownResource,
)
from orthanc_transfers.core.model import Beginning, Instance, Level, Manifest, Resource
from orthanc_transfers.interfaces import (
    Imported,
    ImportStatus,
)
from orthanc_transfers.runtime.cancellation import Cancellation

STUDY = "57d1d2f5-aaaaaaaa-bbbbbbbb-cccccccc-00000001"


@cache
def file(number: int, size: int = 3000) -> bytes:
    """A "DICOM file" of words of 16 bits that compress; its first 16 bytes stand for its UIDs."""
    words = bytearray()
    value = number
    while len(words) < size:
        value = (value * 31 + 7) % 1021
        words += (1000 + value % 64).to_bytes(2, "little")
    return number.to_bytes(16, "little") + bytes(words[: size - 16])


def identify(data: Buffer) -> str:
    """The identifier that "Orthanc" computes from a file."""
    digest = hashlib.sha1(bytes(data[:16])).hexdigest()
    return "-".join(digest[index : index + 8] for index in range(0, 40, 8))


class MemoryStore:
    """``interfaces.InstanceStore``: files in a dictionary, in one study, or each by itself."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.refused: set[str] = set()
        self.listed: dict[str, str] = {}
        """MD5s in the "index" that differ from those of the files."""
        self.before_add: Callable[[], None] = lambda: None
        self.before_md5s: Callable[[Cancellation], None] = lambda cancellation: None
        self.before_manifest: Callable[[], None] = lambda: None
        """Called before all are listed, not before the first are."""
        self._lock = threading.Lock()

    def put(self, *files: bytes) -> list[str]:
        for data in files:
            self.files[identify(data)] = data
        return [identify(data) for data in files]

    def manifest(self, resources: Sequence[Resource], cancellation: Cancellation | None = None) -> Manifest:
        self.before_manifest()
        return self._manifest(resources)

    def beginning(
        self, resources: Sequence[Resource], count: int, cancellation: Cancellation | None = None
    ) -> Beginning:
        whole = self._manifest(resources)
        return Beginning(Manifest(whole.instances[:count]), max(0, len(whole) - count))

    def patients_of(self, identifiers: Iterable[str], cancellation: Cancellation) -> frozenset[str]:
        known = set(identifiers)
        return frozenset({"patient"} if self.files and known & {STUDY, *self.files} else ())

    def _manifest(self, resources: Sequence[Resource]) -> Manifest:
        found: set[str] = set()
        for resource in resources:
            if resource.level is Level.STUDY and resource.id == STUDY and self.files:
                found |= set(self.files)
            elif resource.level is Level.INSTANCE and resource.id in self.files:
                found.add(resource.id)
            else:
                raise UnknownResource(f"there is no {resource.level.value.lower()} {resource.id}")
        return Manifest(Instance(name, len(self.files[name]), self._md5(name)) for name in sorted(found))

    def _md5(self, identifier: str) -> str:
        return self.listed.get(identifier) or md5(self.files[identifier])

    def md5s(
        self,
        identifiers: Iterable[str],
        cancellation: Cancellation | None = None,
        uid_of: UidOf | None = None,
        *,
        sure: bool = True,
    ) -> dict[str, str | None]:
        self.before_md5s(cancellation or Cancellation())
        return {name: self._md5(name) for name in identifiers if name in self.files}

    def is_intact(self, identifier: str, md5: str, cancellation: Cancellation | None = None) -> bool:
        return identifier in self.files

    def read(self, identifier: str) -> memoryview:
        if identifier not in self.files:
            raise UnknownResource(f"there is no instance {identifier}")
        return memoryview(self.files[identifier])

    def instance(self, identifier: str) -> Instance:
        return Instance(identifier, len(self.read(identifier)), self._md5(identifier))

    def read_into(self, view: memoryview, identifier: str, offset: int) -> bool:
        return False

    def add(self, data: Buffer) -> Imported:
        self.before_add()
        identifier = identify(data)
        if identifier in self.refused:
            raise ImportRefused("the storage is full")
        with self._lock:
            if identifier in self.files:
                return Imported(ImportStatus.ALREADY_STORED, identifier)
            self.files[identifier] = bytes(data)
        return Imported(ImportStatus.SUCCESS, identifier)

    def received(self, identifier: str) -> str | None:
        return "" if identifier in self.files else None

    def remove(self, identifier: str) -> None:
        self.files.pop(identifier, None)

    def sync(self) -> None:
        pass

    def transfer_syntax(self, identifier: str) -> str | None:
        return "1.2.840.10008.1.2.1"
