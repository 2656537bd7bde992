"""Reads the transfer syntax of a DICOM file, and the UID of its instance, at its beginning."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from orthanc_transfers.core.buffers import Buffer

# PS3.10, 7.1: a preamble of 128 bytes, "DICM", then group 0002 in explicit VR little endian.
_PREAMBLE = 128
_MAGIC = b"DICM"
_META_GROUP = 0x0002
_INSTANCE, _TRANSFER_SYNTAX = 0x0003, 0x0010
# PS3.5, 7.1.2: these have two reserved bytes and a length of 32 bits; group 0002 holds no others of that form.
_LONG_FORM = {b"OB", b"OW", b"UN", b"UT", b"SQ"}

_UID = re.compile(r"[0-9.]{1,64}")

UidOf = Callable[[str], str | None]
"""The SOP Instance UID of an instance, by its identifier in Orthanc; ``None`` if it is unknown."""


def transfer_syntax(data: Buffer) -> str | None:
    """The UID in (0002,0010) of a DICOM file, of which ``data`` is at least the beginning.

    ``None`` if this is no such file, or if the element does not lie within ``data``. Never raises.
    """
    return _meta_uid(data, _TRANSFER_SYNTAX)


def instance_uid(data: Buffer) -> str | None:
    """The SOP Instance UID in (0002,0003), likewise; ``None`` also for what is no UID."""
    uid = _meta_uid(data, _INSTANCE)
    return uid if uid is not None and _UID.fullmatch(uid) else None


def _meta_uid(data: Buffer, wanted: int) -> str | None:
    view = memoryview(data)
    position = _PREAMBLE + len(_MAGIC)
    if view[_PREAMBLE:position] != _MAGIC:
        return None
    try:
        while True:
            group, element, representation, size = struct.unpack_from("<HH2sH", view, position)
            position += 8
            if group != _META_GROUP:
                return None
            if representation in _LONG_FORM:
                (size,) = struct.unpack_from("<I", view, position)
                position += 4
            if element == wanted:
                break
            position += size
    except struct.error:
        return None
    value = bytes(view[position : position + size])
    if len(value) < size:
        return None
    uid = value.rstrip(b"\0 ").decode("ascii", "replace")
    return uid or None
