"""Delta + zigzag + byte shuffle of 16-bit words: differences between neighbours, low bytes before high ones.

Neighbouring pixels are alike, so most differences are small; with 0, -1, 1, -2, 2… written as 0, 1, 2, 3, 4… their
high bytes are nearly all zero, and compress well.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from orthanc_transfers.core.buffers import Buffer

Words = NDArray[np.uint16]

_WORD = np.dtype("<u2")

# Words at once: they and what becomes of them fit into the second cache of a processor.
_BLOCK = 64 * 1024


def spread(data: Buffer) -> bytearray:
    """n bytes, as n bytes: floor(n/2) low bytes of the differences, as many high ones, and the last byte of an odd n.

    The word before the first one is 0; differences are modulo 2^16.
    """
    size = memoryview(data).nbytes
    count = size // 2
    words: Words = np.frombuffer(data, _WORD, count)
    out = bytearray(size)
    low, high = np.frombuffer(out, np.uint8, count), np.frombuffer(out, np.uint8, count, count)
    before = np.zeros(1, _WORD)
    for start in range(0, count, _BLOCK):
        block = words[start : start + _BLOCK]
        differences = np.empty_like(block)
        np.subtract(block[:1], before, out=differences[:1])
        np.subtract(block[1:], block[:-1], out=differences[1:])
        before = block[-1:]
        signs = (differences.view("<i2") >> 15).view(_WORD)
        differences <<= 1
        differences ^= signs
        pairs = differences.view(np.uint8)
        low[start : start + _BLOCK] = pairs[0::2]
        high[start : start + _BLOCK] = pairs[1::2]
    if size % 2:
        out[-1] = memoryview(data)[-1]
    return out


def gather(data: Buffer) -> bytearray:
    """The inverse of ``spread``."""
    size = memoryview(data).nbytes
    count = size // 2
    low, high = np.frombuffer(data, np.uint8, count), np.frombuffer(data, np.uint8, count, count)
    out = bytearray(size)
    words: Words = np.frombuffer(out, _WORD, count)
    flags = np.empty(min(count, _BLOCK), _WORD)
    # Sums of 32 bits, of which the lower half counts: numpy adds those up three times as fast as words of 16.
    sums = np.zeros(min(count, _BLOCK), np.uint32)
    for start in range(0, count, _BLOCK):
        block = words[start : start + _BLOCK]
        before = sums[-1]
        here, flips = sums[: len(block)], flags[: len(block)]
        np.left_shift(high[start : start + _BLOCK], 8, out=block, dtype=_WORD)
        block |= low[start : start + _BLOCK]
        # 0 or 65535, by the lowest bit.
        np.bitwise_and(block, 1, out=flips)
        np.negative(flips, out=flips)
        block >>= 1
        np.bitwise_xor(block, flips, out=here)
        # As an array: numpy warns when a single number overflows.
        here[:1] += before
        np.add.accumulate(here, out=here)
        block[:] = here
    if size % 2:
        out[-1] = memoryview(data)[-1]
    return out
