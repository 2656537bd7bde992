"""Bucket codecs (bytes of a bucket <-> bytes on the wire), and the choice of the codec for given bytes.

A new codec is a member of ``Codec``, a branch in ``encode`` and in ``decode``, and a rule in ``choose``.

For 16-bit pixels, ``split16+zstd`` shuffles the bytes of words (see ``split16.py``). ``delta16+zstd`` does so with the
differences between neighbours (see ``delta16.py``), which on CT and MR makes 5 to 22 % fewer bytes still. DICOM
elements have even length (PS3.5, 7.1), so pixels keep their alignment when files are laid end to end.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Generic, TypeVar, cast

import zstandard
from isal import isal_zlib

from orthanc_transfers.core import split16
from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.errors import BadFile, WrongSize

T = TypeVar("T")


class Codec(enum.Enum):
    """How the bytes of a bucket are encoded, as the header ``transfers-codec`` names it."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    SPLIT16_ZSTD = "split16+zstd"
    DELTA16_ZSTD = "delta16+zstd"


_usable = tuple(Codec)


def usable() -> tuple[Codec, ...]:
    """The codecs to offer to peers and to accept from them: all but those ruled out."""
    return _usable


def rule_out(codec: Codec) -> None:
    """Neither offer nor accept a codec in this process. To be called before the first transfer.

    For ``delta16``, whose module is imported at its first use: it needs numpy, which cannot be imported everywhere.
    """
    global _usable
    _usable = tuple(one for one in _usable if one is not codec)


class Compression(enum.Enum):
    """Value of ``Compression`` in a user's request."""

    AUTO = "auto"
    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


LEVEL = 1
"""Level of zstd where processors are the limit."""

SLOW_LINK_LEVEL = 3
"""Level of zstd where the link is the limit: 4 to 20 % fewer bytes for twice the time (measured on CT, MR and RGB).
Split words gain 1 % by it, which is not worth the time."""

_SLOW_LINK = 30_000_000


def level_for(speed: float) -> int:
    """The level of zstd for a link that carries ``speed`` bytes a second; 0: not known yet.

    One processor compresses twice as fast as a slow link sends, even at the higher level.
    """
    return SLOW_LINK_LEVEL if 0 < speed < _SLOW_LINK else LEVEL


# As fast as level 1 both ways, for 2 to 10 % fewer bytes (measured on CT, MR and RGB).
_ISAL_LEVEL = 2
# wbits of zlib: a window of 32 KB, in a gzip member.
_GZIP = 31
MAX_PART_SIZE = 64 * 1024 * 1024
"""Maximum number of bytes decoded at once, where a whole bucket may be larger."""

_INPUT = 1024 * 1024
# isal's type hints take the class for an instance.
_GZIP_ERROR = cast("type[Exception]", isal_zlib.error)


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
            return [_compress(split16.split(pieces), LEVEL)]
        case Codec.DELTA16_ZSTD:
            from orthanc_transfers.core.delta16 import spread

            return [_compress(spread(_joined(pieces)), LEVEL)]


def decode(body: Buffer, codec: Codec, size: int) -> memoryview:
    """The ``size`` bytes that were encoded.

    Raises ``BadFile`` if the body is not of that codec, is cut short or followed by other bytes, or if the codec was
    ruled out; ``WrongSize`` if it holds another number of bytes. Never allocates much more than ``size`` bytes,
    whatever the body claims.
    """
    if codec not in _usable:
        raise BadFile(f"the codec {codec.value} was not offered")
    decoded = memoryview(_decode(body, codec, size))
    if decoded.nbytes != size:
        raise _wrong_size(decoded.nbytes, size)
    return decoded


def _decode(body: Buffer, codec: Codec, size: int) -> Buffer:
    match codec:
        case Codec.NONE:
            return body
        case Codec.GZIP:
            return _gunzip(body, size)
        case Codec.ZSTD:
            return _decompress(body, size)
        case Codec.SPLIT16_ZSTD:
            return split16.join(_decompress(body, size))
        case Codec.DELTA16_ZSTD:
            from orthanc_transfers.core.delta16 import gather

            return gather(_decompress(body, size))


def check_gzip(body: Buffer, size: int) -> None:
    """Check that a gzip body is complete and valid, and holds ``size`` bytes. Raises as ``decode``."""
    found = sum(part.nbytes for part in gunzip_parts(body, MAX_PART_SIZE))
    if found != size:
        raise _wrong_size(found, size)


def gunzip_parts(body: Buffer, part: int) -> Iterator[memoryview]:
    """Decode a gzip body in parts of at most ``part`` bytes, none of which is kept. Raises ``BadFile``."""
    decompressor = isal_zlib.decompressobj(_GZIP)
    view = memoryview(body)
    for start in range(0, view.nbytes, _INPUT):
        if decompressor.eof:
            raise BadFile("a gzip body is followed by other bytes")
        waiting: Buffer = view[start : start + _INPUT]
        full = True
        while full and not decompressor.eof:
            try:
                decoded = decompressor.decompress(waiting, part)
            except _GZIP_ERROR as error:
                raise BadFile(f"a body is not gzip: {error}") from None
            yield memoryview(decoded)
            waiting = decompressor.unconsumed_tail
            # The decompressor may hold back what found no room.
            full = len(waiting) > 0 or len(decoded) == part
    if not decompressor.eof:
        raise BadFile("a gzip body is cut short")
    if decompressor.unused_data:
        raise BadFile("a gzip body is followed by other bytes")


def content_type(codec: Codec) -> str:
    """The header ``Content-Type`` of a body."""
    return "application/gzip" if codec is Codec.GZIP else "application/octet-stream"


def choose(compression: Compression, pieces: Sequence[Buffer], accepted: Collection[Codec]) -> Codec:
    """The codec for these bytes, out of the ``accepted`` ones; ``NONE`` if none of them helps.

    ``AUTO`` takes the best one by a trial on samples. ``ZSTD`` does so too, but always compresses.
    """
    return next((codec for codec in _preferences(compression, pieces) if codec in accepted), Codec.NONE)


def _preferences(compression: Compression, pieces: Sequence[Buffer]) -> tuple[Codec, ...]:
    if compression is Compression.NONE:
        return ()
    if compression is Compression.GZIP:
        return (Codec.GZIP,)
    samples = _samples(pieces)
    tried = [codec for codec in _CANDIDATES if codec in _usable]
    sizes = {codec: len(encode([samples], codec)[0]) for codec in tried}
    if compression is Compression.AUTO and min(sizes.values()) > _WORTHWHILE * len(samples):
        return ()
    best = sorted(tried, key=lambda codec: sizes[codec] * (_LONG_RANGE_GAIN if codec is Codec.ZSTD else 1))
    return (*best, Codec.GZIP)


# Plain zstd gains more on a bucket than on samples, since its matches reach further back there (measured on RGB).
_LONG_RANGE_GAIN = 0.93

_CANDIDATES = (Codec.ZSTD, Codec.SPLIT16_ZSTD, Codec.DELTA16_ZSTD)


# Compressed pixels shrink by up to 5 %, which is not worth the time on either side.
_WORTHWHILE = 0.95

_SAMPLES = 8
_SAMPLE_SIZE = 4096


def _samples(pieces: Sequence[Buffer]) -> bytes:
    """A few KB from all over the pieces; from even positions, so that words of 16 bits stay whole."""
    views = [memoryview(piece) for piece in pieces]
    size = sum(view.nbytes for view in views)
    if size <= _SAMPLES * _SAMPLE_SIZE:
        return b"".join(views)
    wanted = deque((2 * number + 1) * size // (4 * _SAMPLES) * 2 for number in range(_SAMPLES))
    taken = []
    start = 0
    for view in views:
        stop = start + view.nbytes
        while wanted and wanted[0] < stop:
            offset = wanted.popleft() - start
            sample = view[offset : offset + _SAMPLE_SIZE]
            taken.append(sample[: sample.nbytes & ~1])
        start = stop
    return b"".join(taken)


class _Contexts(Generic[T]):
    """Pool of zstd contexts, each for one thread at a time: creating one costs as much as a tenth of a bucket.

    The methods of ``deque`` that are used are atomic.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._idle: deque[T] = deque(maxlen=64)

    @contextmanager
    def borrow(self) -> Iterator[T]:
        try:
            context = self._idle.pop()
        except IndexError:
            context = self._make()
        yield context
        # Not after an error, which may leave it in any state.
        self._idle.append(context)


@cache
def _compressors(level: int) -> _Contexts[zstandard.ZstdCompressor]:
    return _Contexts(lambda: zstandard.ZstdCompressor(level=level))


_decompressors = _Contexts(zstandard.ZstdDecompressor)


def _compress(data: Buffer, level: int) -> bytes:
    with _compressors(level).borrow() as compressor:
        return compressor.compress(data)


def content_size(body: Buffer) -> int:
    """Bytes that a zstd frame declares to hold. Raises ``BadFile`` if it declares none, or is no zstd frame."""
    try:
        announced: int = zstandard.frame_content_size(body)
    except zstandard.ZstdError as error:
        raise _not_zstd(error) from None
    if announced == -1:
        raise BadFile("a zstd frame does not declare the size of its content")
    return announced


def _decompress(body: Buffer, size: int) -> bytes:
    # Checked first, because python-zstandard allocates what the frame declares.
    announced = content_size(body)
    if announced != size:
        raise _wrong_size(announced, size)
    try:
        with _decompressors.borrow() as decompressor:
            return decompressor.decompress(body, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _not_zstd(error) from None


def _gunzip(body: Buffer, size: int) -> bytes:
    decompressor = isal_zlib.decompressobj(_GZIP)
    try:
        # One byte more than expected, since zlib takes 0 for no limit, and to see whether there is more.
        decoded = decompressor.decompress(body, size + 1)
    except _GZIP_ERROR as error:
        raise BadFile(f"a body is not gzip: {error}") from None
    if len(decoded) > size:
        raise WrongSize(f"a gzip body holds more than the {size} bytes that were announced")
    if not decompressor.eof:
        raise BadFile("a gzip body is cut short")
    if decompressor.unused_data:
        raise BadFile("a gzip body is followed by other bytes")
    return decoded


def _joined(pieces: Sequence[Buffer]) -> Buffer:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _not_zstd(error: Exception) -> BadFile:
    return BadFile(f"a body is not one zstd frame: {error}")


def _wrong_size(found: int, size: int) -> WrongSize:
    return WrongSize(f"a body holds {found} bytes where {size} were announced")
