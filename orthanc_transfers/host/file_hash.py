"""MD5s of stored files, for those of which Orthanc's index has none.

Hashed by parts from Orthanc's storage folder, so that a file of gigabytes takes no memory; one that Orthanc does not
keep there as it is, whole, from Orthanc.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable

from orthanc_transfers.core import checksum
from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.host.index_questions import IndexedFile
from orthanc_transfers.host.storage_area import StorageArea
from orthanc_transfers.runtime.cancellation import Cancellation

# Bytes of a part: a few ms, after which a cancellation is noticed.
_PART = 4 * 1024 * 1024

# MD5s remembered, of some 200 bytes each: a file is asked for at least twice, when it is listed and when it is sent
# or imported.
_MAX_REMEMBERED = 50_000


class FileHashes:
    """Thread-safe. ``read`` returns a whole file by the identifier of its instance."""

    def __init__(self, storage_area: StorageArea, read: Callable[[str], Buffer]) -> None:
        self._storage_area = storage_area
        self._read = read
        self._lock = threading.Lock()
        self._remembered: OrderedDict[str, str] = OrderedDict()

    def md5(self, identifier: str, file: IndexedFile, cancellation: Cancellation) -> str:
        """As it was when it was hashed first: Orthanc never changes an attachment, it makes a new one.

        Raises what ``read`` does; ``Canceled``.
        """
        if file.uuid is None:
            return self.hash(identifier, file, cancellation)
        with self._lock:
            known = self._remembered.get(file.uuid)
        if known is None:
            known = self.hash(identifier, file, cancellation)
            with self._lock:
                self._remembered[file.uuid] = known
                if len(self._remembered) > _MAX_REMEMBERED:
                    self._remembered.popitem(last=False)
        return known

    def hash(self, identifier: str, file: IndexedFile, cancellation: Cancellation) -> str:
        """As the file is now. Raises the same."""
        return self._hash_by_parts(file, cancellation) or checksum.md5(self._read(identifier))

    def _hash_by_parts(self, file: IndexedFile, cancellation: Cancellation) -> str | None:
        """``None`` where only whole files can be read, or this one cannot."""
        if file.uuid is None:
            return None
        digest = hashlib.md5(usedforsecurity=False)
        buffer = memoryview(bytearray(min(_PART, file.size)))
        for offset in range(0, file.size, _PART):
            cancellation.check()
            part = buffer[: file.size - offset]
            if not self._storage_area.read_into(part, file.uuid, file.size, offset):
                return None
            digest.update(part)
        return digest.hexdigest()
