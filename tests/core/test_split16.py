"""Byte shuffle of 16-bit words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core.split16 import join, split

PIECES = st.lists(
    st.binary(max_size=300) | st.integers(65_530, 65_540).map(lambda size: bytes(range(251)) * (size // 251)),
    max_size=4,
)


@pytest.mark.parametrize("data", [b"", b"a", b"ab", b"abc", bytes(range(256)) * 300 + b"!"])
def test_even_positions_come_before_odd_ones(data: bytes) -> None:
    assert split([data]) == data[0::2] + data[1::2]


@given(PIECES)
def test_pieces_of_any_size_are_one_run_of_bytes(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    assert split(pieces) == data[0::2] + data[1::2]
    assert join(split(pieces)) == data
