"""What Orthanc has stored, forced to disk, so that it survives a loss of power.

Orthanc forces each DICOM file to disk before it puts it into its index (``SyncStorageArea``, on unless configured).
The index does not follow at once: SQLite, in the mode in which Orthanc opens it (``WAL``, ``SYNCHRONOUS=NORMAL``),
keeps it whole through a loss of power, but not the changes of the last seconds, ten at most. They are in its log,
``index-wal`` below ``IndexDirectory``, and forcing that to disk makes them stay: as ``SYNCHRONOUS=FULL`` does, but
once for a whole transfer. The database ``index`` itself must not be opened here: to close it would give up
SQLite's locks.

Indexes of plugins (PostgreSQL, MySQL) and their storage (object stores) see to it themselves: what is not in these
folders, or has no such folder, is none of our business.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

from orthanc_transfers.runtime.files import sync

_LOG = "index-wal"


class Durability:
    """Of the index below one folder, and of the files below another.

    ``files_synced``: Orthanc forces each file to disk itself.
    """

    def __init__(self, index: Path, storage: Path, *, files_synced: bool) -> None:
        self._index = index
        self._storage = storage
        self._files_synced = files_synced

    def force(self) -> None:
        """Let everything that Orthanc stored and deleted so far survive a loss of power. Raises ``OSError``."""
        # The files first: an index that names files which are not there would be worse than one that lacks them.
        if not self._files_synced:
            with contextlib.suppress(FileNotFoundError):
                _sync_all(self._storage)
        self.sync_index()

    def sync_index(self) -> None:
        """Let what Orthanc has written into its index so far survive a loss of power. Raises ``OSError``."""
        with contextlib.suppress(FileNotFoundError):
            sync(self._index / _LOG)
            sync(self._index)


def _sync_all(folder: Path) -> None:
    """Force the whole file system of a folder to disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(fd)
