"""Bytes of a bucket <-> bytes on the wire."""

from __future__ import annotations

import gzip
import random
import struct
import sys
import tracemalloc
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pydicom.data
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core import codec as codec_module
from orthanc_transfers.core.codec import (
    Codec,
    Compression,
    check_gzip,
    choose,
    content_type,
    decode,
    encode,
    gunzip_parts,
    rule_out,
    usable,
)
from orthanc_transfers.core.errors import BadFile, TransferError, WrongSize
from tests.support.dicom_data import ct_study

COMPRESSING = [codec for codec in Codec if codec is not Codec.NONE]
TRANSFORMING = (Codec.SPLIT16_ZSTD, Codec.DELTA16_ZSTD)

each_codec = pytest.mark.parametrize("codec", Codec)
each_compressing = pytest.mark.parametrize("codec", COMPRESSING)


def wire(data: bytes, codec: Codec) -> bytes:
    return b"".join(encode([data], codec))


def sample_file(name: str) -> bytes:
    return Path(str(pydicom.data.get_testdata_file(name))).read_bytes()


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


# --- there and back

PIECES = st.lists(
    st.binary(max_size=300) | st.integers(0, 70_000).map(lambda size: b"\1\0" * size), max_size=5
)


@each_codec
@given(pieces=PIECES)
def test_what_is_encoded_comes_back(codec: Codec, pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    decoded = decode(b"".join(encode(pieces, codec)), codec, len(data))
    assert decoded == data
    assert decoded.nbytes == len(data)


@each_codec
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_buffer_will_do(codec: Codec, kind: Callable[[bytes], bytes]) -> None:
    data = sample_file("CT_small.dcm")
    pieces = [kind(data[:1001]), kind(data[1001:])]
    assert decode(kind(b"".join(encode(pieces, codec))), codec, len(data)) == data


@each_compressing
def test_how_the_pieces_are_cut_does_not_matter(codec: Codec) -> None:
    data = sample_file("MR_small.dcm")
    cut = [data[:1], data[1:1], data[1:5002], data[5002:]]
    assert b"".join(encode(cut, codec)) == wire(data, codec)


def test_without_a_codec_nothing_is_copied() -> None:
    pieces = [b"one", bytearray(b"two"), memoryview(b"three")]
    assert all(one is other for one, other in zip(encode(pieces, Codec.NONE), pieces, strict=True))
    body = bytearray(b"body")
    assert decode(body, Codec.NONE, 4).obj is body


def test_zstd_takes_a_level() -> None:
    data = sample_file("MR_small.dcm")
    assert len(encode([data], Codec.ZSTD, 19)[0]) < len(encode([data], Codec.ZSTD, 1)[0])
    assert decode(encode([data], Codec.SPLIT16_ZSTD, 19)[0], Codec.SPLIT16_ZSTD, len(data)) == data


def test_many_threads_encode_and_decode_at_once() -> None:
    slices = list(ct_study(8, size=64))

    def there_and_back(number: int) -> bool:
        data, codec = slices[number % len(slices)], COMPRESSING[number % len(COMPRESSING)]
        return decode(wire(data, codec), codec, len(data)) == data

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, range(200)))


# --- the formats on the wire


def test_gzip_is_one_member_that_ends_with_its_size() -> None:
    data = sample_file("CT_small.dcm")
    body = wire(data, Codec.GZIP)
    stream = zlib.decompressobj(31)
    assert stream.decompress(body) == data
    assert stream.eof
    assert stream.unused_data == b""
    assert struct.unpack("<I", body[-4:]) == (len(data),)


def test_gzip_of_others_is_understood() -> None:
    data = sample_file("CT_small.dcm")
    assert decode(gzip.compress(data, 9), Codec.GZIP, len(data)) == data


def test_zstd_is_one_frame_that_says_the_size_of_its_content() -> None:
    data = sample_file("CT_small.dcm")
    body = wire(data, Codec.ZSTD)
    assert zstandard.frame_content_size(body) == len(data)
    stream = zstandard.ZstdDecompressor().decompressobj()
    assert stream.decompress(body) == data
    assert stream.eof
    assert stream.unused_data == b""


@pytest.mark.parametrize("data", [b"", b"a", b"ab", b"abc", bytes(range(256)) * 300 + b"!"])
def test_split16_puts_even_positions_before_odd_ones(data: bytes) -> None:
    content = zstandard.ZstdDecompressor().decompress(wire(data, Codec.SPLIT16_ZSTD))
    assert content == data[0::2] + data[1::2]


def test_delta16_writes_small_differences_as_small_numbers() -> None:
    words = [1000, 1000, 1001, 999, 0, 65535, 300]
    # +1000, 0, +1, -2, -999, -1 (modulo 2^16), +301
    coded = [2000, 0, 2, 3, 1997, 1, 602]
    data = struct.pack("<7H", *words) + b"!"
    content = zstandard.ZstdDecompressor().decompress(wire(data, Codec.DELTA16_ZSTD))
    assert content == bytes(one & 255 for one in coded) + bytes(one >> 8 for one in coded) + b"!"


def test_gzip_has_its_content_type() -> None:
    assert content_type(Codec.GZIP) == "application/gzip"
    assert {content_type(codec) for codec in Codec if codec is not Codec.GZIP} == {"application/octet-stream"}


# --- bodies that are not what they should be

DATA = bytes(range(256)) * 40


@each_codec
@pytest.mark.parametrize("size", [0, 1, len(DATA) - 1, len(DATA) + 1, 2 * len(DATA)])
def test_another_size_than_announced_is_refused(codec: Codec, size: int) -> None:
    with pytest.raises(WrongSize):
        decode(wire(DATA, codec), codec, size)


@each_compressing
@pytest.mark.parametrize("left", [0, 1, 10, -1, -8])
def test_a_body_that_is_cut_short_is_refused(codec: Codec, left: int) -> None:
    with pytest.raises(BadFile):
        decode(wire(DATA, codec)[:left], codec, len(DATA))


@each_compressing
@pytest.mark.parametrize("more", [b"\0", b"garbage", b"\x1f\x8b"])
def test_a_body_that_goes_on_behind_its_end_is_refused(codec: Codec, more: bytes) -> None:
    with pytest.raises(BadFile):
        decode(wire(DATA, codec) + more, codec, len(DATA))


@each_compressing
def test_two_units_in_one_body_are_refused(codec: Codec) -> None:
    # Each says half of the size, so the frame of zstd is refused for that.
    with pytest.raises((BadFile, WrongSize)):
        decode(wire(DATA, codec) + wire(DATA, codec), codec, 2 * len(DATA))


def test_a_gzip_whose_checksum_is_wrong_is_refused() -> None:
    body = bytearray(wire(DATA, Codec.GZIP))
    body[-6] ^= 1
    with pytest.raises(BadFile):
        decode(body, Codec.GZIP, len(DATA))


def test_a_zstd_that_does_not_say_its_size_is_refused() -> None:
    body = zstandard.ZstdCompressor(write_content_size=False).compress(DATA)
    with pytest.raises(BadFile, match="size"):
        decode(body, Codec.ZSTD, len(DATA))


@each_compressing
@given(st.binary(max_size=200))
def test_garbage_is_refused(codec: Codec, garbage: bytes) -> None:
    with pytest.raises((BadFile, WrongSize)):
        decode(garbage, codec, len(DATA))


@each_compressing
@given(st.data())
def test_a_damaged_body_gives_the_announced_number_of_bytes_or_an_error(
    codec: Codec, data: st.DataObject
) -> None:
    body = bytearray(wire(DATA, codec))
    for index in data.draw(st.lists(st.integers(0, len(body) - 1), min_size=1, max_size=4)):
        body[index] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode(body, codec, len(DATA))
    except TransferError:
        return
    assert decoded.nbytes == len(DATA)


# --- bombs

MB = 1024 * 1024


def peak_of(action: Callable[[], object]) -> int:
    """Bytes of memory that Python gave out at most during something."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def zstd_claiming(size: int, content: bytes) -> bytes:
    """A frame whose header says another size than it has (RFC 8878, 3.1.1.1)."""
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(content)
    assert frame[4] >> 6 == 0
    assert not frame[4] & 0x20
    return frame[:4] + bytes([frame[4] | 0xC0]) + frame[5:6] + struct.pack("<Q", size) + frame[6:]


def test_the_forged_frames_of_these_tests_are_frames() -> None:
    assert decode(zstd_claiming(len(DATA), DATA), Codec.ZSTD, len(DATA)) == DATA


@pytest.mark.parametrize(
    ("codec", "body"),
    [
        (Codec.GZIP, gzip.compress(bytes(64 * MB))),
        (Codec.ZSTD, zstandard.ZstdCompressor().compress(bytes(64 * MB))),
        (Codec.ZSTD, zstd_claiming(2**62, bytes(64 * MB))),
        (Codec.ZSTD, zstd_claiming(1000, bytes(64 * MB))),
        (Codec.SPLIT16_ZSTD, zstandard.ZstdCompressor().compress(bytes(64 * MB))),
        (Codec.SPLIT16_ZSTD, zstd_claiming(2**62, b"")),
        (Codec.DELTA16_ZSTD, zstandard.ZstdCompressor().compress(bytes(64 * MB))),
        (Codec.DELTA16_ZSTD, zstd_claiming(2**62, b"")),
    ],
    ids=[
        "gzip",
        "zstd",
        "zstd-lies-high",
        "zstd-lies-low",
        "split16",
        "split16-lies-high",
        "delta16",
        "delta16-lies-high",
    ],
)
def test_a_bomb_does_not_go_off(codec: Codec, body: bytes) -> None:
    def explode() -> None:
        with pytest.raises((BadFile, WrongSize)):
            decode(body, codec, 1000)

    assert peak_of(explode) < 256 * 1024 + len(body)


@pytest.mark.parametrize("codec", COMPRESSING)
def test_decoding_needs_little_more_memory_than_the_data(codec: Codec) -> None:
    body = wire(bytes(4 * MB), codec)
    copies = 2 if codec in TRANSFORMING else 1
    assert peak_of(lambda: decode(body, codec, 4 * MB)) < copies * 4 * MB + 512 * 1024


@pytest.mark.parametrize("part", [1000, MB, 5 * MB])
def test_gzip_can_be_taken_in_parts_that_need_no_memory_for_the_whole(part: int) -> None:
    data = bytes(range(256)) * (3 * MB // 256)
    assert b"".join(gunzip_parts(gzip.compress(data), part)) == data
    bomb = gzip.compress(bytes(64 * MB))
    assert peak_of(lambda: deque(gunzip_parts(bomb, part), 0)) < 3 * part + MB


@pytest.mark.parametrize(
    "spoil", [lambda body: body[:-1], lambda body: body + b"x", lambda body: b"x" + body]
)
def test_in_parts_as_at_once_gzip_has_to_be_right(spoil: Callable[[bytes], bytes]) -> None:
    body = spoil(gzip.compress(DATA))
    with pytest.raises(BadFile):
        check_gzip(body, len(DATA))


@pytest.mark.parametrize("size", [0, len(DATA) - 1, len(DATA) + 1])
def test_in_parts_as_at_once_the_size_has_to_be_right(size: int) -> None:
    with pytest.raises(WrongSize):
        check_gzip(gzip.compress(DATA), size)


# --- which codec suits which bytes

ALL = frozenset(Codec)
VERSION_1 = frozenset({Codec.NONE, Codec.GZIP})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CT_small.dcm", Codec.DELTA16_ZSTD),
        ("MR_small.dcm", Codec.DELTA16_ZSTD),
        ("examples_overlay.dcm", Codec.DELTA16_ZSTD),
        ("examples_rgb_color.dcm", Codec.ZSTD),
        ("examples_palette.dcm", Codec.ZSTD),
        ("examples_jpeg2k.dcm", Codec.NONE),
        ("J2K_pixelrep_mismatch.dcm", Codec.NONE),
    ],
)
def test_the_data_decide(name: str, expected: Codec) -> None:
    # A bucket of several such files, each a piece.
    data = sample_file(name)
    assert choose(Compression.AUTO, [data] * 5, ALL) is expected


@pytest.mark.parametrize("size", [1, 100, 5_000, 50_000])
def test_what_cannot_shrink_is_sent_as_it_is(size: int) -> None:
    assert choose(Compression.AUTO, [noise(size)], ALL) is Codec.NONE


def test_nothing_is_sent_as_it_is() -> None:
    assert choose(Compression.AUTO, [], ALL) is Codec.NONE
    assert choose(Compression.AUTO, [b""], ALL) is Codec.NONE


def test_a_small_file_among_noise_does_not_decide() -> None:
    assert (
        choose(Compression.AUTO, [noise(200_000), b"text " * 100, noise(200_000, seed=2)], ALL) is Codec.NONE
    )


def test_pixels_behind_a_file_of_odd_length_are_not_taken_for_others() -> None:
    ct = next(ct_study(1, size=256))
    # Which byte of a word is the first does not matter to the split, but to the differences.
    assert choose(Compression.AUTO, [noise(1001), ct, ct], ALL) is Codec.SPLIT16_ZSTD
    assert choose(Compression.AUTO, [noise(1002), ct, ct], ALL) is Codec.DELTA16_ZSTD


def test_zstd_on_request_compresses_whatever_it_is() -> None:
    assert choose(Compression.ZSTD, [noise(100_000)], ALL) in (Codec.ZSTD, *TRANSFORMING)
    assert choose(Compression.ZSTD, [sample_file("CT_small.dcm")], ALL) is Codec.DELTA16_ZSTD


def test_the_second_best_is_taken_where_the_best_is_not_accepted() -> None:
    data = [sample_file("CT_small.dcm")]
    assert choose(Compression.AUTO, data, ALL - {Codec.DELTA16_ZSTD}) is Codec.SPLIT16_ZSTD
    assert choose(Compression.AUTO, data, ALL - set(TRANSFORMING)) is Codec.ZSTD


@pytest.mark.parametrize("data", [b"", noise(100_000), bytes(100_000)], ids=["empty", "noise", "zeros"])
def test_gzip_and_none_on_request_need_no_trial(data: bytes) -> None:
    assert choose(Compression.GZIP, [data], ALL) is Codec.GZIP
    assert choose(Compression.NONE, [data], ALL) is Codec.NONE


@pytest.mark.parametrize(
    ("compression", "accepted", "expected"),
    [
        (Compression.AUTO, VERSION_1, Codec.GZIP),
        (Compression.ZSTD, VERSION_1, Codec.GZIP),
        (Compression.AUTO, {Codec.NONE, Codec.ZSTD}, Codec.ZSTD),
        (Compression.ZSTD, {Codec.NONE, Codec.GZIP, Codec.ZSTD}, Codec.ZSTD),
        (Compression.AUTO, {Codec.NONE}, Codec.NONE),
        (Compression.ZSTD, {Codec.NONE}, Codec.NONE),
        (Compression.GZIP, {Codec.NONE, Codec.ZSTD}, Codec.NONE),
        (Compression.GZIP, set(), Codec.NONE),
    ],
)
def test_only_what_the_other_side_accepts_is_chosen(
    compression: Compression, accepted: Sequence[Codec], expected: Codec
) -> None:
    assert choose(compression, [sample_file("CT_small.dcm")], accepted) is expected


@given(st.sampled_from(Compression), PIECES, st.sets(st.sampled_from(Codec)))
def test_whatever_the_data_the_choice_is_accepted_or_none(
    compression: Compression, pieces: list[bytes], accepted: set[Codec]
) -> None:
    codec = choose(compression, pieces, accepted)
    assert codec in accepted | {Codec.NONE}
    data = bytes(chain.from_iterable(pieces))
    assert decode(b"".join(encode(pieces, codec)), codec, len(data)) == data


def test_a_codec_that_is_ruled_out_is_neither_offered_nor_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_module, "_usable", tuple(Codec))
    # As if numpy could not be imported.
    monkeypatch.setitem(sys.modules, "orthanc_transfers.core.delta16", None)
    pixels = next(ct_study(1))
    with pytest.raises(ImportError):
        choose(Compression.ZSTD, [pixels], COMPRESSING)
    rule_out(Codec.DELTA16_ZSTD)
    assert usable() == (Codec.NONE, Codec.GZIP, Codec.ZSTD, Codec.SPLIT16_ZSTD)
    assert choose(Compression.ZSTD, [pixels], COMPRESSING) is Codec.SPLIT16_ZSTD
    assert choose(Compression.AUTO, [pixels], COMPRESSING) is Codec.SPLIT16_ZSTD
    with pytest.raises(BadFile, match="not offered"):
        decode(b"", Codec.DELTA16_ZSTD, 0)
