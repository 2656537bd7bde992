"""The disks of Orthanc's storage and of its index, as far as no plugin keeps these elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

from orthanc_transfers.core.disk_room import Disk, OrthancDisks
from orthanc_transfers.core.errors import TransferError
from orthanc_transfers.core.storage_limits import StorageLimits
from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.runtime.files import disk_of

_INDEX = "index"
_LOG = "index-wal"


class HostDisks:
    """Implements ``interfaces.Disks``. To be used once Orthanc has started. Thread-safe."""

    def __init__(self, sdk: Sdk, storage: Path, index: Path, limits: StorageLimits) -> None:
        self._sdk = sdk
        self._storage = storage
        self._index = index
        self._limits = limits

    def look(self, *, exactly: bool) -> OrthancDisks:
        """See ``interfaces.Disks``."""
        storage = None if self._files_elsewhere() else _disk(self._storage)
        index = _disk(self._index / _INDEX)
        growth = self._growth() if exactly and storage is not None else None
        return OrthancDisks(storage, index, _size(self._index / _LOG), growth)

    def _files_elsewhere(self) -> bool:
        try:
            return self._sdk.storage_is_elsewhere()
        except TransferError:
            return True

    def _growth(self) -> int | None:
        if not self._limits.size:
            return None
        try:
            stored = int(json.loads(self._sdk.rest_get("/statistics"))["TotalDiskSize"])
        except TransferError:
            return None
        return max(0, self._limits.size - stored)


def _disk(path: Path) -> Disk | None:
    try:
        return disk_of(path)
    except OSError:
        return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
