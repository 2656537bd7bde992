"""Fsync of Orthanc's index, so that what Orthanc has stored survives a power failure.

Orthanc fsyncs each DICOM file before it adds it to its index (``SyncStorageArea``, on unless configured).
The index does not follow at once: SQLite, in the mode in which Orthanc opens it (``WAL``, ``SYNCHRONOUS=NORMAL``),
stays consistent through a power failure, but may lose the changes of the last seconds, ten at most. They are in its
log, ``index-wal`` below ``IndexDirectory``, and an fsync of that makes them durable: as ``SYNCHRONOUS=FULL`` does, but
once for a whole transfer. The database ``index`` itself must not be opened here: closing it would give up
SQLite's locks.

Plugins with an index (PostgreSQL, MySQL) or a storage (object stores) of their own see to durability themselves:
where these files or folders do not exist, nothing is synced.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

from orthanc_transfers.runtime.files import sync
from orthanc_transfers.runtime.group import SharedCall

_LOG = "index-wal"


class Durability:
    """Of the index in the folder ``index``, and of the files below the folder ``storage``.

    ``files_synced``: Orthanc fsyncs each file itself.
    """

    def __init__(self, index: Path, storage: Path, *, files_synced: bool) -> None:
        self._index = index
        self._storage = storage
        self._files_synced = files_synced
        self._named: tuple[int, int] | None = None
        """Device and inode of the log whose name was fsynced."""
        self._forcing = SharedCall(self._force)

    def force(self) -> None:
        """Make everything that Orthanc stored and deleted so far durable, once for commits that end together.

        Raises ``OSError``.
        """
        self._forcing.call()

    def _force(self) -> None:
        # The files first: an index that names files which are not there would be worse than one that lacks them.
        if not self._files_synced:
            with contextlib.suppress(FileNotFoundError):
                _sync_all(self._storage)
        self.sync_index()

    def sync_index(self) -> None:
        """Make what Orthanc has written into its index so far durable. Raises ``OSError``."""
        with contextlib.suppress(FileNotFoundError):
            log = self._index / _LOG
            found = os.stat(log)
            sync(log)
            # Its name is new only once, when Orthanc opens the index.
            if self._named != (found.st_dev, found.st_ino):
                sync(self._index)
                self._named = found.st_dev, found.st_ino


def _sync_all(folder: Path) -> None:
    """Sync the whole file system of a folder to disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(fd)
