"""Whether Orthanc's storage folder can take a file, looked at before each import.

Orthanc 1.10.1 ends (a C++ exception leaves the SDK) when it cannot make a folder in its storage: no rights, a read-only
or a full file system, no inodes. Later versions refuse the import. So a folder is really made, and removed: once a
second, and before each import where the file system is nearly full. (1 ms measured, beside the 5 ms of an import;
asking how full it is takes some µs.)
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from orthanc_transfers.core.errors import ImportRefused

# Seconds for which a folder that could be made says that the next can.
_VALID = 1.0
# Bytes and inodes, as free to others than root. With less, each import is preceded by a look.
_ROOM = 64 * 1024 * 1024
_INODES = 4096


class StorageCheck:
    """Of the folder ``StorageDirectory``. ``elsewhere`` tells whether a plugin keeps the files instead. Thread-safe."""

    def __init__(self, folder: Path, elsewhere: Callable[[], bool]) -> None:
        self._folder = folder
        self._elsewhere = elsewhere
        self._next = 0.0
        self._off = False

    def require(self) -> None:
        """Raise ``ImportRefused``, with the reason, if no folder can be made in the storage."""
        if self._off or (time.monotonic() < self._next and self._roomy()):
            return
        probe = self._folder / f".transfers-{uuid.uuid4().hex}"
        try:
            # Two, one in the other, as Orthanc makes them.
            os.mkdir(probe, 0o700)
            try:
                os.mkdir(probe / "1", 0o700)
                os.rmdir(probe / "1")
            finally:
                os.rmdir(probe)
        except FileNotFoundError:
            return  # Orthanc makes it, or has none
        except OSError as error:
            if self._elsewhere():
                self._off = True
                return
            raise ImportRefused(
                f"Orthanc cannot write to its storage, {self._folder} ({error.strerror});"
                " is the disk full, or read-only?"
            ) from error
        self._next = time.monotonic() + _VALID

    def _roomy(self) -> bool:
        try:
            disk = os.statvfs(self._folder)
        except OSError:
            return False
        # File systems without a number of inodes (btrfs) say 0 of 0.
        return (
            not disk.f_flag & os.ST_RDONLY
            and disk.f_bavail * disk.f_frsize >= _ROOM
            and (disk.f_favail >= _INODES or not disk.f_files)
        )
