"""Append-only log of CRC-checked records: what happened to one incoming transfer, or to one push.

A record is ``MAGIC kind length CRC-32 payload``. Appending is one ``write`` on a file opened for appending,
so threads need no lock among themselves. A record that a killed process left half written fails its
checksum and is skipped; the reader then looks for the next one, so that damage costs the damaged record only.
"""

from __future__ import annotations

import enum
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from orthanc_transfers.core.errors import NoSpace
from orthanc_transfers.core.ranges import Range

MAGIC = b"\xd1TJ\x01"
_HEADER = struct.Struct("<4sBII")
_RANGE = struct.Struct("<QQ")
# A record that claims more is damaged: this is a bit for each of a hundred million instances.
_MAX_PAYLOAD = 1 << 24


class Kind(enum.IntEnum):
    """What a record says."""

    RECEIVED = 1
    """A range of the area is on disk."""
    LOST = 2
    """A range is missing again: its instance had another MD5, or is no longer stored."""
    STORED = 3
    """Bits of the instances that were already stored when the transfer began."""
    COMMITTING = 4
    """Bits of the instances that were absent from Orthanc when the import began."""
    RECEIVING = 5
    """A commit was undone and its transfer goes on."""
    OUTCOME = 6
    """JSON: how it ended."""
    SENDING = 7
    """JSON: how the receiver knows a push of version 1, and which of its buckets were acknowledged."""
    SENT = 8
    """A range of bucket indices was acknowledged."""
    IMPORTING = 9
    """In a file of its own (``receiver/import_log.py``): the indices of the instances being imported."""
    DELETING = 10
    """There too: those being deleted again."""
    OPENED = 11
    """In the log of transfers in memory (``receiver/memory_log.py``): JSON, what is received."""


class Record(NamedTuple):
    """One record."""

    kind: Kind
    payload: bytes

    @property
    def range(self) -> Range:
        """The range of ``RECEIVED`` or ``LOST``. Raises ``ValueError`` for another payload."""
        if len(self.payload) != _RANGE.size:
            raise ValueError("not a range")
        return Range(*_RANGE.unpack(self.payload))


def encode_record(kind: Kind, payload: bytes) -> bytes:
    """The bytes of a record as they are on disk."""
    checksum = zlib.crc32(payload, zlib.crc32(bytes([kind])))
    return _HEADER.pack(MAGIC, kind, len(payload), checksum) + payload


def encode_range(kind: Kind, item: Range) -> bytes:
    """The bytes of a record about a range."""
    return encode_record(kind, _RANGE.pack(item.start, item.stop))


def read_records(data: bytes) -> Iterator[Record]:
    """All complete records. Never raises, whatever the bytes are."""
    position = data.find(MAGIC)
    while position >= 0:
        record, position = _read_record(data, position)
        if record is not None:
            yield record
        position = data.find(MAGIC, position)


def _read_record(data: bytes, position: int) -> tuple[Record | None, int]:
    body = position + _HEADER.size
    if body <= len(data):
        _, kind, length, checksum = _HEADER.unpack_from(data, position)
        payload = data[body : body + min(length, _MAX_PAYLOAD)]
        if len(payload) == length and zlib.crc32(payload, zlib.crc32(bytes([kind]))) == checksum:
            try:
                return Record(Kind(kind), payload), body + length
            except ValueError:
                return None, body + length
    return None, position + 1


class Journal:
    """A journal open for appending. Thread-safe, without a lock."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def append(self, records: bytes) -> None:
        """Write one or several encoded records at once. Survives the death of the process.

        Raises ``NoSpace`` if they did not fit completely; the reader skips the part that did.
        """
        if os.write(self._fd, records) != len(records):
            raise NoSpace(
                "the journal cannot grow, the disk of the staging directory is full: make room there"
            )

    def sync(self) -> None:
        """Fsync it: all that was appended survives a power failure."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file. Nothing may be appended afterwards."""
        os.close(self._fd)
