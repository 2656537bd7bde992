"""Reads the patient's identifier (0010,0020) at the beginning of a DICOM file."""

from __future__ import annotations

import hashlib
import struct
import zlib

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.dicom import transfer_syntax

# PS3.10, 7.1: the preamble, "DICM", and (0002,0000), which says how long group 0002 is.
_PREAMBLE = 132
_GROUP_LENGTH = 12
_IMPLICIT, _DEFLATED, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"

_PATIENT_ID = (0x0010, 0x0020)
_ITEM, _END_OF_ITEM, _END_OF_SEQUENCE = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF
# PS3.5, 7.1.2: all others have a length of 16 bits.
_LONG_FORM = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}

# Bytes that are inflated at most, and elements that are looked at: more come before the patient in no real file.
_MAX_INFLATED = 256 * 1024
_MAX_ELEMENTS = 10_000


def patient_id(data: Buffer) -> bytes | None:
    """The value without padding; empty where the file has none. ``data`` is at least the beginning of a file.

    ``None`` if that cannot be told: no DICOM file with a preamble, or the element lies behind ``data``. Never raises.
    """
    syntax = transfer_syntax(data)
    if syntax is None:
        return None
    view = memoryview(data)
    try:
        element, size = struct.unpack_from("<I4xI", view, _PREAMBLE)
        if element != 0x00000002:
            return None
        view = view[_PREAMBLE + _GROUP_LENGTH + size :]
        if syntax == _DEFLATED:
            view = memoryview(zlib.decompressobj(-zlib.MAX_WBITS).decompress(view, _MAX_INFLATED))
        return _find(view, ">" if syntax == _BIG_ENDIAN else "<", implicit=syntax == _IMPLICIT)
    except (struct.error, zlib.error):
        return None


def _find(view: memoryview, order: str, *, implicit: bool) -> bytes | None:
    """Raises ``struct.error`` at the end of ``view``."""
    position = depth = 0
    for _ in range(_MAX_ELEMENTS):
        tag = struct.unpack_from(order + "HH", view, position)
        if not depth and tag > _PATIENT_ID:
            return b""
        if implicit or tag[0] == 0xFFFE:
            (size,) = struct.unpack_from(order + "I", view, position + 4)
            position += 8
        elif bytes(view[position + 4 : position + 6]) in _LONG_FORM:
            (size,) = struct.unpack_from(order + "I", view, position + 8)
            position += 12
        else:
            (size,) = struct.unpack_from(order + "H", view, position + 6)
            position += 8
        if not depth and tag == _PATIENT_ID:
            value = bytes(view[position : position + size])
            return value.strip(b" \0\t\r\n") if len(value) == size else None
        if tag in (_END_OF_ITEM, _END_OF_SEQUENCE):
            depth -= 1
        elif size == _UNDEFINED:
            depth += 1
        else:
            position += size
    return None


def orthanc_patient(value: bytes) -> str | None:
    """Orthanc's identifier of a patient: the SHA-1 of ``PatientID``. ``None`` if its characters need their set."""
    if not value.isascii():
        return None
    digest = hashlib.sha1(value, usedforsecurity=False).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))
