"""Finds elements near the beginning of a DICOM file, without parsing the rest of it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection
from typing import NamedTuple

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.dicom import transfer_syntax

Tag = tuple[int, int]

META = 144
"""Where the elements begin that (0002,0000) counts: after the preamble, "DICM", and itself (PS3.10, 7.1)."""

_GROUP_LENGTH = 132
_IMPLICIT, _DEFLATED, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
_ITEM, _END_OF_ITEM, _END_OF_SEQUENCE = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF
# PS3.5, 7.1.2: all others have a length of 16 bits.
_LONG_FORM = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}

# Bytes that are inflated at most, and elements that are looked at: more come before the patient in no real file.
_MAX_INFLATED = 256 * 1024
_MAX_ELEMENTS = 10_000


class Found(NamedTuple):
    """The value of an element."""

    start: int
    """Index in the bytes it was looked for in."""
    value: bytes

    @property
    def text(self) -> bytes:
        """Without padding."""
        return self.value.strip(b" \0\t\r\n")


def dataset_start(data: Buffer) -> int | None:
    """Index of the first byte after group 0002; ``None`` if this is no DICOM file with a preamble."""
    if transfer_syntax(data) is None:
        return None
    try:
        element, size = struct.unpack_from("<I4xI", memoryview(data), _GROUP_LENGTH)
    except struct.error:
        return None
    return META + size if element == 0x00000002 else None


def find_in_dataset(data: Buffer, wanted: Collection[Tag]) -> dict[Tag, Found] | None:
    """Those of some elements that a file has, not within sequences. ``data`` is at least the beginning of the file.

    ``None`` if that cannot be told: no DICOM file with a preamble, or they lie behind ``data``. Never raises. Indices
    are those of the file, if its transfer syntax is not the deflated one.
    """
    start, syntax = dataset_start(data), transfer_syntax(data)
    if start is None:
        return None
    view = memoryview(data)
    try:
        if syntax == _DEFLATED:
            view = memoryview(zlib.decompressobj(-zlib.MAX_WBITS).decompress(view[start:], _MAX_INFLATED))
            start = 0
        return find(view, start, wanted, ">" if syntax == _BIG_ENDIAN else "<", implicit=syntax == _IMPLICIT)
    except (struct.error, zlib.error):
        return None


def find(
    view: memoryview, start: int, wanted: Collection[Tag], order: str = "<", *, implicit: bool = False
) -> dict[Tag, Found] | None:
    """The same in elements that begin at ``start``. Raises ``struct.error`` at the end of ``view``."""
    found: dict[Tag, Found] = {}
    position, depth, last = start, 0, max(wanted)
    for _ in range(_MAX_ELEMENTS):
        tag = struct.unpack_from(order + "HH", view, position)
        if not depth and tag > last:
            return found
        if implicit or tag[0] == _ITEM[0]:
            (size,) = struct.unpack_from(order + "I", view, position + 4)
            position += 8
        elif bytes(view[position + 4 : position + 6]) in _LONG_FORM:
            (size,) = struct.unpack_from(order + "I", view, position + 8)
            position += 12
        else:
            (size,) = struct.unpack_from(order + "H", view, position + 6)
            position += 8
        if not depth and tag in wanted:
            value = bytes(view[position : position + size])
            if len(value) != size:
                return None
            found[tag] = Found(position, value)
            if tag == last:
                return found
        if tag in (_END_OF_ITEM, _END_OF_SEQUENCE):
            depth -= 1
        elif size == _UNDEFINED:
            depth += 1
        else:
            position += size
    return None
