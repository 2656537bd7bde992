"""Whether Orthanc's storage folder can take a file, looked at before each import.

Orthanc 1.10.1 ends (a C++ exception leaves the SDK) when it cannot make a folder in its storage: no rights, a read-only
or a full file system, no inodes. Later versions refuse the import. So a folder is really made, and removed: once a
second, and before each import where the file system is nearly full. (1 ms measured, beside the 5 ms of an import;
asking how full it is takes some µs.) Those of its 256 folders that are there must be writable, too: a run of Orthanc as
another user, root say, leaves such as are not, and the next file may belong there.
"""

from __future__ import annotations

import errno
import os
import re
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
# So many times as much is not used up within so many seconds.
_PLENTY = 16
_PLENTIFUL = 0.05
# Of the layout of Orthanc's ``FilesystemStorage``: ``ab/cd/abcd….``
_SHARD = re.compile("[0-9a-f]{2}")


class StorageCheck:
    """Of the folder ``StorageDirectory``. ``elsewhere`` tells whether a plugin keeps the files instead. Thread-safe."""

    def __init__(self, folder: Path, elsewhere: Callable[[], bool]) -> None:
        self._folder = folder
        self._name = os.fspath(folder)
        self._elsewhere = elsewhere
        self._next = self._next_roomy = 0.0
        self._off = False

    def require(self) -> None:
        """Raise ``ImportRefused``, with the reason, if no folder can be made in the storage."""
        now = time.monotonic()
        if self._off or (now < self._next and (now < self._next_roomy or self._roomy(now))):
            return
        if self._next and self._roomy(now):
            self._next = now + _VALID  # one thread is enough to look again
        try:
            self._look()
        except ImportRefused:
            self._next = 0.0
            raise

    def _look(self) -> None:
        probe = self._folder / f".transfers-{uuid.uuid4().hex}"
        try:
            # Two, one in the other, as Orthanc makes them.
            os.mkdir(probe, 0o700)
            try:
                os.mkdir(probe / "1", 0o700)
                os.rmdir(probe / "1")
            finally:
                os.rmdir(probe)
            self._require_writable()
        except FileNotFoundError:
            return  # Orthanc makes it, or has none
        except OSError as error:
            if self._elsewhere():
                self._off = True
                return
            if error.errno in (errno.EACCES, errno.EPERM):
                cure = "give it to the user as whom Orthanc runs"
            else:
                cure = "is the disk full, or read-only?"
            folder = self._folder if error.filename is None else Path(error.filename)
            folder = self._folder if folder.is_relative_to(probe) else folder
            raise ImportRefused(
                f"Orthanc cannot write to its storage, {folder} ({error.strerror}); {cure}"
            ) from error
        self._next = time.monotonic() + _VALID

    def _require_writable(self) -> None:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if _SHARD.fullmatch(entry.name) and not _is_writable(entry.path):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), entry.path)

    def _roomy(self, now: float) -> bool:
        try:
            disk = os.statvfs(self._name)
        except OSError:
            return False
        if disk.f_flag & os.ST_RDONLY:
            return False
        # File systems without a number of inodes (btrfs) say 0 of 0.
        inodes = disk.f_favail / _INODES if disk.f_files else _PLENTY
        share = min(disk.f_bavail * disk.f_frsize / _ROOM, inodes)
        self._next_roomy = now + _PLENTIFUL if share >= _PLENTY else 0.0
        return share >= 1


def _is_writable(folder: str) -> bool:
    # Orthanc removes a folder with its last file, and may make it anew, at any moment.
    return any(
        os.access(folder, os.W_OK | os.X_OK, effective_ids=True) or not os.path.exists(folder)
        for _ in range(3)
    )
