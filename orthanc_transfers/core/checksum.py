"""Checksums: MD5 of each file, XXH3 of each bucket on the wire."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import xxhash

from orthanc_transfers.core.buffers import Buffer

MD5_OF_NOTHING = "d41d8cd98f00b204e9800998ecf8427e"
"""Of 0 bytes. Orthanc's index has it for files of 2^31 bytes and more, too (1.10.1 to 1.12.7)."""


def md5(data: Buffer) -> str:
    """MD5 as Orthanc's index has it: 32 lower-case hexadecimal digits."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def xxh3(pieces: Sequence[Buffer]) -> str:
    """XXH3-64 (seed 0) of the pieces laid end to end: 16 lower-case hexadecimal digits."""
    digest = xxhash.xxh3_64()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
