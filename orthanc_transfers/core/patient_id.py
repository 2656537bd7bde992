"""Reads the patient's identifier (0010,0020) at the beginning of a DICOM file."""

from __future__ import annotations

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.dicom_elements import find_in_dataset
from orthanc_transfers.core.model import orthanc_identifier

_PATIENT_ID = (0x0010, 0x0020)


def patient_id(data: Buffer) -> bytes | None:
    """The value without padding; empty where the file has none. ``data`` is at least the beginning of a file.

    ``None`` if that cannot be told: no DICOM file with a preamble, or the element lies behind ``data``. Never raises.
    """
    found = find_in_dataset(data, {_PATIENT_ID})
    if found is None:
        return None
    return found[_PATIENT_ID].text if _PATIENT_ID in found else b""


def orthanc_patient(value: bytes) -> str | None:
    """Orthanc's identifier of a patient: the SHA-1 of ``PatientID``. ``None`` if its characters need their set."""
    return orthanc_identifier(value) if value.isascii() else None
