"""MD5 and XXH3."""

from __future__ import annotations

import hashlib

import xxhash
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core.checksum import md5, xxh3


def test_md5_is_32_lower_case_digits() -> None:
    # RFC 1321, A.5
    assert md5(b"message digest") == "f96b697d7cb7938d525a2f31aaf161d0"


def test_xxh3_is_16_lower_case_digits() -> None:
    # XXH3_64bits with seed 0 of no bytes, from the test vectors of xxHash.
    assert xxh3([]) == "2d06800538d394c2"


@given(st.lists(st.binary()))
def test_xxh3_of_pieces_is_that_of_all_of_them_together(pieces: list[bytes]) -> None:
    assert xxh3(pieces) == xxhash.xxh3_64_hexdigest(b"".join(pieces))


@given(st.binary())
def test_any_kind_of_buffer_gives_the_same(data: bytes) -> None:
    assert md5(data) == md5(bytearray(data)) == md5(memoryview(data)) == hashlib.md5(data).hexdigest()
    assert xxh3([data]) == xxh3([bytearray(data)]) == xxh3([memoryview(data)])
