"""Importing a file into Orthanc, and why Orthanc refused one, in words for a user."""

from __future__ import annotations

import json

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.errors import HostError, ImportRefused
from orthanc_transfers.host.native.sdk import Sdk
from orthanc_transfers.host.native.structures import Code
from orthanc_transfers.interfaces import Imported, ImportStatus

_REASONS: dict[int, str] = {
    Code.BAD_FILE_FORMAT: "it is not a DICOM file that Orthanc can read",
    Code.FULL_STORAGE: "Orthanc's storage is full (MaximumStorageSize, MaximumPatientCount)",
    Code.NOT_ENOUGH_MEMORY: "Orthanc has not enough memory",
    Code.CANNOT_WRITE_FILE: "Orthanc cannot write to its storage; is the disk full?",
    Code.FILE_STORAGE_CANNOT_WRITE: "Orthanc cannot write to its storage; is the disk full?",
}

# Orthanc's storage fails if two threads make the same folder at the same moment, which is no full disk: seen once in
# many thousand imports on 1.10.1.
_ATTEMPTS = 3


def import_instance(sdk: Sdk, data: Buffer) -> Imported:
    """Import one DICOM file, without copying it on its way.

    Raises ``ImportRefused`` with the reason.
    """
    if data[:2] == b"PK":
        # Orthanc would unpack it and import whatever is inside.
        raise ImportRefused("it is a ZIP archive, not a DICOM file")
    try:
        answer = json.loads(_post(sdk, data))
        return Imported(ImportStatus(answer["Status"]), str(answer["ID"]))
    except HostError as error:
        reason = _REASONS.get(error.code) or f"Orthanc reports {sdk.describe(error.code)!r}"
        refused = ImportRefused(f"{reason} (error {error.code})")
        refused.index_away = error.index_away
        raise refused from None
    except (ValueError, KeyError, TypeError) as error:
        raise ImportRefused(f"Orthanc sent an invalid response to its import: {error!r}") from None


def _post(sdk: Sdk, data: Buffer) -> bytes:
    for _ in range(_ATTEMPTS - 1):
        try:
            return sdk.rest_post("/instances", data)
        except HostError as error:
            if error.code != Code.FILE_STORAGE_CANNOT_WRITE:
                raise
    return sdk.rest_post("/instances", data)
