"""Bytes of a bucket <-> bytes on the wire, and which codec suits which bytes.

A new codec is a member of ``Codec``, a branch in ``encode`` and in ``decode``, and a rule in ``choose``.

``split16+zstd`` puts the bytes at even positions before those at odd positions, so that the high bytes of
16-bit pixels, nearly all alike, stand together. DICOM elements have even length (PS3.5, 7.1), so pixels
keep their alignment when files are laid end to end.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import zstandard
from isal import isal_zlib

from orthanc_transfers.core.errors import BadFile, WrongSize

Buffer = bytes | bytearray | memoryview


class Codec(enum.Enum):
    """How the bytes of a bucket are encoded, as the header ``transfers-codec`` names it."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    SPLIT16_ZSTD = "split16+zstd"


class Compression(enum.Enum):
    """What a user asks for."""

    AUTO = "auto"
    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


LEVEL = 1
"""Of zstd. Higher ones cost much time for a few percent of noisy pixels."""

_ISAL_LEVEL = 1
# wbits of zlib: a window of 32 KB, in a gzip member.
_GZIP = 31


def encode(pieces: Sequence[Buffer], codec: Codec, level: int = LEVEL) -> list[Buffer]:
    """The pieces laid end to end, encoded as one unit; with ``NONE`` the same pieces, not copied.

    ``gzip`` is one member, ``zstd`` one frame with its content size. ``level`` is of zstd.
    """
    match codec:
        case Codec.NONE:
            return list(pieces)
        case Codec.GZIP:
            return [isal_zlib.compress(_joined(pieces), _ISAL_LEVEL, _GZIP)]
        case Codec.ZSTD:
            return [_compress(_joined(pieces), level)]
        case Codec.SPLIT16_ZSTD:
            return [_compress(_split16(pieces), level)]


def decode(body: Buffer, codec: Codec, size: int) -> memoryview:
    """The ``size`` bytes that were encoded.

    Raises ``BadFile`` if the body is not of that codec, is cut short or goes on behind its end;
    ``WrongSize`` if it holds another number of bytes. Never allocates much more than ``size`` bytes,
    whatever the body claims.
    """
    match codec:
        case Codec.NONE:
            decoded = memoryview(body)
        case Codec.GZIP:
            decoded = memoryview(_gunzip(body, size))
        case Codec.ZSTD:
            decoded = memoryview(_decompress(body, size))
        case Codec.SPLIT16_ZSTD:
            decoded = memoryview(_join16(_decompress(body, size)))
    if decoded.nbytes != size:
        raise _wrong_size(decoded.nbytes, size)
    return decoded


def content_type(codec: Codec) -> str:
    """The header ``Content-Type`` of a body."""
    return "application/gzip" if codec is Codec.GZIP else "application/octet-stream"


def choose(compression: Compression, pieces: Sequence[Buffer], accepted: Collection[Codec]) -> Codec:
    """The codec for these bytes, out of the ``accepted`` ones; ``NONE`` if all else fails.

    ``AUTO`` takes what a trial on samples finds best. ``ZSTD`` does so too, but always compresses.
    """
    for codec in _preferences(compression, pieces, accepted):
        if codec in accepted:
            return codec
    return Codec.NONE


def _preferences(
    compression: Compression, pieces: Sequence[Buffer], accepted: Collection[Codec]
) -> Iterator[Codec]:
    if compression is Compression.NONE:
        return
    if compression is not Compression.GZIP and not accepted.isdisjoint(_ZSTDS):
        raise NotImplementedError
    yield Codec.GZIP


_ZSTDS = frozenset({Codec.ZSTD, Codec.SPLIT16_ZSTD})


def _joined(pieces: Sequence[Buffer]) -> Buffer:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _wrong_size(found: int, size: int) -> WrongSize:
    return WrongSize(f"a body holds {found} bytes where {size} were announced")
