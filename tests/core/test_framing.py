"""JSON and bytes in one body."""

from __future__ import annotations

import pytest

from orthanc_transfers.core.errors import BadFile, TooLarge
from orthanc_transfers.core.framing import frame_head, split_head


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2000])
def test_what_was_framed_is_found_again(count: int, *, compress: bool) -> None:
    value = {"Instances": [{"ID": f"id-{number}"} for number in range(count)]}
    body = frame_head(value, compress=compress) + b"bytes"
    head, rest = split_head(body, 10_000)
    assert head == value
    assert rest == b"bytes"


def test_a_long_head_is_compressed() -> None:
    value = ["the same text"] * 2000
    assert len(frame_head(value, compress=True)) < len(frame_head(value, compress=False)) / 10


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0",
        b"\0\0\0\0{}",
        b"\0\0\0\3{}",
        b"\xff\xff\xff\xff{}",
        b"\0\0\0\2{]",
        b"\0\0\0\4\x28\xb5\x2f\xfd",
    ],
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(BadFile):
        split_head(body, 100)


def test_more_values_than_allowed_are_refused() -> None:
    with pytest.raises(TooLarge):
        split_head(frame_head([1] * 200, compress=False), 100)
