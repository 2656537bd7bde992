"""Bucket bytes <-> wire bytes. A new codec is a member of ``Codec``, and a case of ``encode`` and ``decode``.

Why these: on real CT and MR of 16 bits, isal's gzip works at 300 MB/s a core (zlib level 6: 18) for nearly the
same size; zstd does about the same, and on the low and the high bytes of the words laid apart (``split16``) it
saves a fifth more. Compressed transfer syntaxes do not get smaller with anything.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Collection, Sequence

import zstandard
from isal import isal_zlib

from orthanc_transfers.core.errors import BadFile, WrongSize

Buffer = bytes | bytearray | memoryview


class Codec(enum.Enum):
    """How a bucket's bytes are encoded; the values are those of the header ``transfers-codec``."""

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


# isal's level 1 is 1.5 times faster than its level 2 and 3, which save less than a tenth.
_ISAL_LEVEL = 1
_GZIP = 16 + 15  # zlib's way to say: a gzip header, the largest window
# The largest frame that a decoder must hold a window for: more is a sign of a bomb.
_MAX_WINDOW = 1 << 27

_SAMPLES = 4
_SAMPLE_SIZE = 8192
# What compresses by less than this is not worth the time: wires are rarely that much slower than codecs.
_WORTH = 0.95
# Splitting pays if it saves at least this much more.
_SPLIT_WORTH = 0.98


def encode(pieces: Sequence[Buffer], codec: Codec, level: int = 1) -> list[Buffer]:
    """The pieces laid end to end, encoded as one unit. ``NONE`` gives the very same pieces, not copied.

    ``level`` is zstd's.
    """
    if codec is Codec.NONE:
        return list(pieces)
    if codec is Codec.GZIP:
        compressor = isal_zlib.compressobj(_ISAL_LEVEL, isal_zlib.DEFLATED, _GZIP)
        encoded: list[Buffer] = [compressor.compress(piece) for piece in pieces]
        encoded.append(compressor.flush())
        return [part for part in encoded if len(part)]
    if codec is Codec.SPLIT16_ZSTD:
        return [_compressor(level).compress(_split16(_joined(pieces)))]
    if len(pieces) == 1:
        return [_compressor(level).compress(pieces[0])]
    size = sum(len(piece) for piece in pieces)
    chunks = _compressor(level).compressobj(size=size)
    encoded = [chunks.compress(piece) for piece in pieces]
    encoded.append(chunks.flush())
    return [part for part in encoded if len(part)]


def decode(body: Buffer, codec: Codec, size: int) -> memoryview:
    """Exactly ``size`` bytes. ``NONE`` gives a view of ``body`` itself.

    Raises ``BadFile`` for what is not one whole unit of the codec, ``WrongSize`` for another number of bytes.
    Never takes more memory than ``size`` and a little, whatever the body claims.
    """
    if codec is Codec.NONE:
        decoded = memoryview(body)
    elif codec is Codec.GZIP:
        decoded = _gunzip(body, size)
    else:
        decoded = _unzstd(body, size)
        if codec is Codec.SPLIT16_ZSTD:
            decoded = _unsplit16(decoded)
    if len(decoded) != size:
        raise _wrong_size(size, len(decoded))
    return decoded


def choose(compression: Compression, pieces: Sequence[Buffer], accepted: Collection[Codec]) -> Codec:
    """The codec for a bucket: what the user asked for, or what a trial on samples of the data says."""
    if compression is Compression.NONE or not pieces:
        return Codec.NONE
    if compression is Compression.GZIP:
        return Codec.GZIP if Codec.GZIP in accepted else Codec.NONE
    best, ratio = _trial(pieces)
    if compression is Compression.AUTO and ratio > _WORTH:
        return Codec.NONE
    for codec in (best, Codec.ZSTD, Codec.GZIP):
        if codec in accepted:
            return codec
    return Codec.NONE


def content_type(codec: Codec) -> str:
    """Of a body in that codec, as version 1 has it."""
    return "application/gzip" if codec is Codec.GZIP else "application/octet-stream"


def _trial(pieces: Sequence[Buffer]) -> tuple[Codec, float]:
    """The better zstd codec for some small samples, and the share of their size that it leaves."""
    total = sum(len(piece) for piece in pieces)
    plain = split = taken = 0
    compressor = _compressor(1)
    for index in range(_SAMPLES):
        sample = _sample(pieces, total * (2 * index + 1) // (2 * _SAMPLES))
        taken += len(sample)
        plain += len(compressor.compress(sample))
        split += len(compressor.compress(_split16(sample)))
    if not taken:
        return Codec.ZSTD, 1.0
    if split < plain * _SPLIT_WORTH:
        return Codec.SPLIT16_ZSTD, split / taken
    return Codec.ZSTD, plain / taken


def _sample(pieces: Sequence[Buffer], offset: int) -> bytes:
    for piece in pieces:
        if offset < len(piece):
            # Words of 16 bits start at even offsets of a file.
            start = max(0, min(offset, len(piece) - _SAMPLE_SIZE)) & ~1
            return bytes(piece[start : start + _SAMPLE_SIZE])
        offset -= len(piece)
    return b""


def _joined(pieces: Sequence[Buffer]) -> bytes:
    # Strided slices of bytes are several times faster than those of a memoryview.
    return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)


def _split16(data: bytes) -> bytes:
    return data[0::2] + data[1::2]


def _unsplit16(data: memoryview) -> memoryview:
    whole = bytearray(len(data))
    middle = (len(data) + 1) // 2
    whole[0::2] = data[:middle]
    whole[1::2] = data[middle:]
    return memoryview(whole)


def _gunzip(body: Buffer, size: int) -> memoryview:
    decompressor = isal_zlib.decompressobj(_GZIP)
    try:
        # One byte more than wanted shows that there is more; a bomb unpacks no further.
        decoded = decompressor.decompress(body, size + 1)
        if len(decoded) <= size and not decompressor.eof:
            decoded += decompressor.flush()
    except (isal_zlib.IsalError, EOFError, ValueError) as error:
        raise BadFile(f"the bucket is not gzip: {error}") from None
    if len(decoded) > size:
        raise _wrong_size(size, None)
    if not decompressor.eof:
        raise BadFile("the gzip of the bucket is cut short")
    if decompressor.unused_data:
        raise BadFile("there is something after the gzip of the bucket")
    return memoryview(decoded)


def _unzstd(body: Buffer, size: int) -> memoryview:
    try:
        parameters = zstandard.get_frame_parameters(body)
        if parameters.content_size != size:
            claimed = parameters.content_size
            raise _wrong_size(size, None if claimed == zstandard.CONTENTSIZE_UNKNOWN else claimed)
        # In one go into a buffer of the size claimed, which is ours: a frame that holds more fails.
        decoded = _decompressor().decompress(body, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BadFile(f"the bucket is not zstd: {error}") from None
    return memoryview(decoded)


def _wrong_size(wanted: int, found: int | None) -> WrongSize:
    return WrongSize(f"the bucket holds {'more' if found is None else found} bytes instead of {wanted}")


class _Contexts(threading.local):
    """zstd's working memory, kept by each thread: making it anew costs more than a small bucket."""

    def __init__(self) -> None:
        self.compressors: dict[int, zstandard.ZstdCompressor] = {}
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)


_contexts = _Contexts()


def _compressor(level: int) -> zstandard.ZstdCompressor:
    found = _contexts.compressors.get(level)
    if found is None:
        found = _contexts.compressors[level] = zstandard.ZstdCompressor(level=level)
    return found


def _decompressor() -> zstandard.ZstdDecompressor:
    return _contexts.decompressor
