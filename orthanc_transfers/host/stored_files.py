"""Orthanc's own storage folder, from which parts of large files can be read.

The SDK reads files whole, and twice as much memory as the file has is in use meanwhile (tried on 1.10.1: 1200 MB
for 600). The layout of the folder is that of Orthanc's ``FilesystemStorage``: ``ab/cd/abcd….`` below
``StorageDirectory``, one file an attachment, never changed once it is written.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class StoredFiles:
    """The attachments below one folder. Where a plugin keeps them elsewhere, there are none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, uuid: str, whole: int, offset: int, size: int) -> bytes | None:
        """A part of an attachment of ``whole`` bytes; ``None`` if there is no such file of that size."""
        if not _UUID.fullmatch(uuid):
            return None
        try:
            fd = os.open(self._folder / uuid[:2] / uuid[2:4] / uuid, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            # Another size: compressed by Orthanc (StorageCompression), or not what it seems.
            if os.fstat(fd).st_size != whole:
                return None
            part = os.pread(fd, size, offset)
        except OSError:
            return None
        finally:
            os.close(fd)
        return part if len(part) == size else None
