"""What Orthanc's limits leave room for: which patients it will not recycle."""

from __future__ import annotations

import json
from typing import Any

from orthanc_transfers.core.storage_limits import Kept, StorageLimits
from orthanc_transfers.host.instance_index import InstanceIndex
from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.runtime.cancellation import Cancellation

# Patients that are asked, one by one, whether they are protected: 0.1 ms each.
_MAX_ASKED = 4096


class OrthancCapacity:
    """Implements ``interfaces.Capacity``. To be used once Orthanc has started. Thread-safe."""

    def __init__(self, sdk: Sdk, limits: StorageLimits) -> None:
        self.limits = limits
        self._sdk = sdk
        self._index = InstanceIndex(sdk)

    def kept(self, cancellation: Cancellation) -> Kept:
        """The protected patients, or all where Orthanc rejects. None of the protected where it has too many to ask."""
        statistics = self._json("/statistics")
        if self._json("/system").get("MaximumStorageMode", "Recycle") != "Recycle":
            size = int(statistics["TotalDiskSize"])
            return Kept(frozenset(self._json("/patients")), size, rejecting=True)
        if statistics["CountPatients"] > _MAX_ASKED:
            return Kept()
        protected, size = set(), 0
        for patient in self._json("/patients"):
            cancellation.check()
            if self._index.get(f"/patients/{patient}/protected") == b"1":
                found = self._index.get(f"/patients/{patient}/statistics")
                protected.add(patient)
                size += int(json.loads(found)["DiskSize"]) if found else 0
        return Kept(frozenset(protected), size)

    def _json(self, uri: str) -> Any:
        return json.loads(self._sdk.rest_get(uri))
