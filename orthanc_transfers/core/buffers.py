"""The type of bytes that may be sent, stored or hashed without being copied."""

from __future__ import annotations

Buffer = bytes | bytearray | memoryview
