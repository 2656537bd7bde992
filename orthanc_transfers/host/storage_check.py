"""Whether Orthanc's storage folder can take a file, looked at before each one that is to be written there.

Orthanc 1.10.1 ends (a C++ exception leaves the SDK) when it cannot make a folder in its storage: no rights, a read-only
or a full file system, no inodes. Later versions refuse the import. So a folder is really made, and removed: once a
second, and before each file where the file system is nearly full. (1 ms measured, beside the 5 ms of an import;
asking how full it is takes some µs.) There, files are written one at a time: else one could take the room in which the
folder of another was tried. Those of its 256 folders that are there must be writable, too: a run of Orthanc as
another user, root say, leaves such as are not, and the next file may belong there.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orthanc_transfers.core.errors import ImportRefused, TransferError

# Seconds for which a folder that could be made says that the next can.
_VALID = 1.0
# Bytes and inodes, as free to others than root, beside the files that are being written. With less, it is nearly full.
_ROOM = 64 * 1024 * 1024
_INODES = 4096
# So many times as much is not used up within so many seconds.
_PLENTY = 16
_PLENTIFUL = 0.05
# Bytes that others, Orthanc's index say, may take while a file is written to a disk that is nearly full.
_SPARE = 256 * 1024
# Of the layout of Orthanc's ``FilesystemStorage``: ``ab/cd/abcd….``
_SHARD = re.compile("[0-9a-f]{2}")


class StorageCheck:
    """Of the folder ``StorageDirectory``. ``elsewhere`` tells whether a plugin keeps the files instead. Thread-safe."""

    def __init__(self, folder: Path, elsewhere: Callable[[], bool]) -> None:
        self._folder = folder
        self._name = os.fspath(folder)
        self._elsewhere = elsewhere
        self._off = False
        self._changed = threading.Condition()
        self._writing = self._size = 0
        """Files that are being written, and their bytes."""
        self._next_trial = self._next_look = 0.0
        self._free = 0
        """Bytes there were at the last look, if the next need not be before the next file."""

    @contextmanager
    def room_for(self, size: int) -> Iterator[None]:
        """While Orthanc writes a file of ``size`` bytes to its storage.

        Raises ``ImportRefused``, with the reason, if no folder can be made there, or the disk has no room for it.
        """
        if self._off:
            yield
            return
        with self._changed:
            while not self._admitted(size):
                self._changed.wait()
            self._writing += 1
            self._size += size
        try:
            yield
        finally:
            with self._changed:
                self._writing -= 1
                self._size -= size
                self._changed.notify_all()

    def _admitted(self, size: int) -> bool:
        """Whether the file may be written now, rather than after the others. Raises ``ImportRefused``."""
        now = time.monotonic()
        if self._roomy(size, now):
            if now >= self._next_trial:
                self._next_trial = now + _VALID
                self._try()
            return True
        if self._is_elsewhere():
            return True
        if self._writing:
            return False
        self._try()
        free, _ = self._look()
        if free < size + _SPARE:
            raise self._refused(
                f"(it needs {size} bytes, and {_SPARE} for others; {free} are free); make room there"
            )
        return True

    def _roomy(self, size: int, now: float) -> bool:
        needed = _ROOM + self._size + size
        plenty = needed + (_PLENTY - 1) * _ROOM
        if now >= self._next_look or self._free < plenty:
            self._free, inodes = self._look()
            self._next_look = now + _PLENTIFUL if inodes >= _PLENTY * _INODES else 0.0
            if inodes < _INODES:
                return False
        return self._free >= needed

    def _look(self) -> tuple[int, int]:
        """Bytes and inodes that are free."""
        try:
            disk = os.statvfs(self._name)
        except OSError:
            return sys.maxsize, sys.maxsize  # Orthanc makes it, or has none
        if disk.f_flag & os.ST_RDONLY:
            return 0, 0
        # Some network file systems do not tell how large they are, some (btrfs) have no number of inodes.
        free = disk.f_bavail * disk.f_frsize if disk.f_blocks else sys.maxsize
        return free, disk.f_favail if disk.f_files else sys.maxsize

    def _try(self) -> None:
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
            return
        except OSError as error:
            if self._is_elsewhere():
                return
            self._next_trial = 0.0
            if error.errno in (errno.EACCES, errno.EPERM):
                cure = "give it to the user as whom Orthanc runs"
            else:
                cure = "is the disk full, or read-only?"
            folder = self._folder if error.filename is None else Path(error.filename)
            folder = self._folder if folder.is_relative_to(probe) else folder
            raise self._refused(f"({error.strerror}); {cure}", folder) from error

    def _refused(self, why: str, folder: Path | None = None) -> ImportRefused:
        return ImportRefused(f"Orthanc cannot write to its storage, {folder or self._folder} {why}")

    def _is_elsewhere(self) -> bool:
        try:
            self._off = self._elsewhere()
        except TransferError:
            return True  # Orthanc can import nothing now, and says why
        return self._off

    def _require_writable(self) -> None:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if _SHARD.fullmatch(entry.name) and not _is_writable(entry.path):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), entry.path)


def _is_writable(folder: str) -> bool:
    # Orthanc removes a folder with its last file, and may make it anew, at any moment.
    return any(
        os.access(folder, os.W_OK | os.X_OK, effective_ids=True) or not os.path.exists(folder)
        for _ in range(3)
    )
