"""JSON that goes compressed."""

from __future__ import annotations

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core import content_encoding
from orthanc_transfers.core.content_encoding import CONTENT_ENCODING, MAX_SIZE, accepts, restore, shrink
from orthanc_transfers.core.errors import BadFile, TooLarge

TEXT = b'{"ID": "46c5e02e-1cd4b53f-1ac9ba1c-6a1c7a33-73fb4bdb"}' * 1000


def test_a_long_text_comes_back() -> None:
    body, headers = shrink(TEXT)
    assert len(body) < len(TEXT) / 10
    assert restore(body, headers[CONTENT_ENCODING]) == TEXT
    # What anybody else's zstd understands.
    assert zstandard.decompress(bytes(body)) == TEXT


def test_a_text_of_one_round_trip_is_sent_as_it_is() -> None:
    assert shrink(TEXT[:8192]) == (TEXT[:8192], {})


def test_a_text_that_no_peer_would_decode_is_sent_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_encoding, "MAX_SIZE", len(TEXT) - 1)
    assert shrink(TEXT) == (TEXT, {})


@pytest.mark.parametrize("encoding", [None, "", "identity", "Identity"])
def test_a_text_that_is_not_encoded_is_itself(encoding: str | None) -> None:
    assert restore(TEXT, encoding) == TEXT


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd, zstd", "x" * 5000])
def test_other_encodings_are_refused(encoding: str) -> None:
    with pytest.raises(BadFile, match="Content-Encoding") as caught:
        restore(TEXT, encoding)
    assert len(str(caught.value)) < 200


def test_a_bomb_is_refused_by_what_it_announces() -> None:
    frame = zstandard.ZstdCompressor(level=3).compress(bytes(MAX_SIZE + 1))
    assert len(frame) < 10_000
    with pytest.raises(TooLarge, match=str(MAX_SIZE + 1)):
        restore(frame, "zstd")


def test_a_frame_that_hides_its_size_is_refused() -> None:
    hiding = zstandard.ZstdCompressor(write_content_size=False).compress(TEXT)
    with pytest.raises(BadFile, match="does not declare"):
        restore(hiding, "zstd")


@given(st.binary(max_size=60), st.integers(0, 60))
def test_garbage_is_refused(garbage: bytes, cut: int) -> None:
    body, _ = shrink(TEXT)
    for broken in (garbage, bytes(body)[:cut], bytes(body) + garbage + b"\0"):
        with pytest.raises(BadFile):
            restore(broken, "zstd")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, False),
        ("", False),
        ("gzip, deflate", False),
        ("zstd", True),
        (" ZSTD", True),
        # Orthanc's server would compress it again.
        ("gzip, deflate, zstd", False),
    ],
)
def test_who_accepts_it(header: str | None, expected: bool) -> None:
    assert accepts(header) is expected
