"""Words of 16 bits and the differences of neighbours."""

from __future__ import annotations

import random
import struct
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core.delta16 import gather, spread


@given(st.binary(max_size=300))
def test_everything_comes_back(data: bytes) -> None:
    assert gather(spread(data)) == data


@given(st.binary(max_size=300))
def test_whatever_arrives_means_something(data: bytes) -> None:
    assert spread(gather(data)) == data


# Around the ends of blocks, and of several of them.
@pytest.mark.parametrize("size", [131_070, 131_071, 131_072, 131_073, 131_074, 400_001])
def test_so_do_many_bytes(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert gather(spread(memoryview(data))) == data


@pytest.mark.parametrize("step", [1, -1, 127, 32767, -32768])
def test_equal_steps_become_equal_numbers(step: int) -> None:
    words = [(step * number) % 65536 for number in range(200_000)]
    coded = 2 * step if step >= 0 else -2 * step - 1
    found = spread(struct.pack("<200000H", *words))
    assert found[1:200_000] == bytes([coded & 255]) * 199_999
    assert found[200_001:] == bytes([coded >> 8]) * 199_999


def test_sums_may_overflow_without_a_word() -> None:
    block = 64 * 1024
    steps = np.zeros(2 * block + 1, np.int64)
    # What adds up to 2^32 - 1 at the end of the second block, as words of 16 bits without a sign; and one more.
    steps[: block + 1] = steps[-1] = -1
    data = np.cumsum(steps).astype(np.uint16).tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gather(spread(data)) == data
