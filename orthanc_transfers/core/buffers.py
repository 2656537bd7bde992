"""The type of bytes that may be sent, stored or hashed without being copied."""

from __future__ import annotations

from collections.abc import Iterable

Buffer = bytes | bytearray | memoryview


def size_of(pieces: Iterable[Buffer]) -> int:
    """Bytes in all of some pieces."""
    return sum(memoryview(piece).nbytes for piece in pieces)
