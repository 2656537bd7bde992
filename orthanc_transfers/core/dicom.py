"""The little that a transfer must know of the inside of a DICOM file."""

from __future__ import annotations

Buffer = bytes | bytearray | memoryview

# Value representations with a 4-byte length, after two reserved bytes (DICOM PS3.5, 7.1.2).
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_PREAMBLE = 128
_META_GROUP = b"\x02\x00"
_TRANSFER_SYNTAX = b"\x02\x00\x10\x00"


def transfer_syntax(data: Buffer) -> str | None:
    """UID of the transfer syntax of a file (DICOM PS3.10, 7.1: element (0002,0010) of the file meta information).

    ``None`` if the file has none. Never raises, whatever the bytes.
    """
    head = bytes(data[: _PREAMBLE + 4096])
    if head[_PREAMBLE : _PREAMBLE + 4] != b"DICM":
        return None
    position = _PREAMBLE + 4
    while head[position : position + 2] == _META_GROUP:
        tag, representation = head[position : position + 4], head[position + 4 : position + 6]
        if representation in _LONG:
            size = int.from_bytes(head[position + 8 : position + 12], "little")
            position += 12
        else:
            size = int.from_bytes(head[position + 6 : position + 8], "little")
            position += 8
        if tag == _TRANSFER_SYNTAX:
            value = head[position : position + size].rstrip(b"\0 ")
            return value.decode("ascii") if value and value.isascii() else None
        position += size
    return None
