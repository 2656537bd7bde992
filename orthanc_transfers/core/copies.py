"""Lossy copies of instances: what they are called.

A lossy transcoder gives its file a new, random ``SOPInstanceUID``, for it is another image (PS3.3, C.12.1.1.4). Here
that is one made of the file: the same file is the same instance each time it is made, and another one is another.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.dicom_elements import META, Found, dataset_start, find, find_in_dataset
from orthanc_transfers.core.model import orthanc_identifier

_MEDIA_STORAGE_SOP_INSTANCE, _SOP_INSTANCE = (0x0002, 0x0003), (0x0008, 0x0018)
_STUDY, _SERIES, _PATIENT = (0x0020, 0x000D), (0x0020, 0x000E), (0x0010, 0x0020)
_META_LENGTH = 140
"""Where the value of (0002,0000) is."""
_VALUE_LENGTH = 2
"""Bytes before a UID that say how long it is, in explicit VR."""


@dataclass(frozen=True, slots=True)
class Copy:
    """``data``: a DICOM file that Orthanc stores as the instance ``id``."""

    id: str
    data: memoryview


def sop_instance_uid(data: Buffer) -> bytes | None:
    """Of a DICOM file; ``None`` if that cannot be told."""
    found = (find_in_dataset(data, {_SOP_INSTANCE}) or {}).get(_SOP_INSTANCE)
    return None if found is None else found.text


def lossy_copy(original: Buffer, identifier: str, made: Buffer) -> Copy | None:
    """``made`` of the instance ``original``, called by what it is.

    ``None`` if Orthanc would know it by an identifier that cannot be told beforehand, for example because of its
    characters. ``made`` must be in explicit VR little endian, as all that is compressed.
    """
    before = find_in_dataset(original, {_SOP_INSTANCE, _STUDY, _SERIES, _PATIENT})
    if before is None or not {_SOP_INSTANCE, _STUDY, _SERIES} <= before.keys():
        return None
    levels = [before[tag].text if tag in before else b"" for tag in (_PATIENT, _STUDY, _SERIES)]
    if orthanc_identifier(*levels, before[_SOP_INSTANCE].text) != identifier:
        return None
    neutral = _renamed(made, before[_SOP_INSTANCE].text)
    if neutral is None:
        return None
    uid = _uid_of(hashlib.sha256(neutral).digest())
    data = _renamed(neutral, uid)
    return None if data is None else Copy(orthanc_identifier(*levels, uid), memoryview(data))


def _uid_of(digest: bytes) -> bytes:
    """A UID derived from a UUID (PS3.5, B.2), of version 8 (RFC 9562, 5.8)."""
    number = int.from_bytes(digest[:16]) & ~(0xF << 76) & ~(0x3 << 62)
    return f"2.25.{number | 0x8 << 76 | 0x2 << 62}".encode()


def _renamed(data: Buffer, uid: bytes) -> bytes | None:
    """The same file with another ``SOPInstanceUID``."""
    view, start = memoryview(data), dataset_start(data)
    dataset = find_in_dataset(data, {_SOP_INSTANCE})
    if start is None or not dataset:
        return None
    try:
        meta = find(view[:start], META, {_MEDIA_STORAGE_SOP_INSTANCE})
    except struct.error:
        return None
    if not meta:
        return None
    value = uid + b"\0" * (len(uid) % 2)
    head = _replaced(view[:start], meta[_MEDIA_STORAGE_SOP_INSTANCE], value)
    struct.pack_into("<I", head, _META_LENGTH, len(head) - META)
    return bytes(head + _replaced(view, dataset[_SOP_INSTANCE], value)[start:])


def _replaced(view: memoryview, found: Found, value: bytes) -> bytearray:
    length = struct.pack("<H", len(value))
    rest = view[found.start + len(found.value) :]
    return bytearray(b"".join((view[: found.start - _VALUE_LENGTH], length, value, rest)))
