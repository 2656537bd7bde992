"""The type of bytes that may be sent, stored or hashed without being copied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Buffer = bytes | bytearray | memoryview


def size_of(pieces: Iterable[Buffer]) -> int:
    """Bytes in all of some pieces."""
    return sum(memoryview(piece).nbytes for piece in pieces)


def joined(pieces: Sequence[Buffer]) -> Buffer:
    """One buffer, for Orthanc's SDK responds from one only; a single piece is not copied."""
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
