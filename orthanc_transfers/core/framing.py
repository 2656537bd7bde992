"""A body that carries JSON and bytes: 4 bytes with the size of the head (big endian), the head, then the bytes.

The head is JSON, or one zstd frame of it where that is shorter.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.content_encoding import ZSTD, restore, shrink
from orthanc_transfers.core.errors import BadFile
from orthanc_transfers.core.safe_json import parse_json

_SIZE = struct.Struct(">I")
# Four bytes that no JSON begins with (RFC 8878, 3.1.1).
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def frame_head(value: Any, *, compress: bool) -> bytes:
    """What comes before the bytes. ``compress``: whether the other side understands zstd."""
    text = json.dumps(value, separators=(",", ":")).encode()
    head = shrink(text)[0] if compress else text
    return _SIZE.pack(len(head)) + bytes(head)


def split_head(body: Buffer, max_values: int) -> tuple[Any, memoryview]:
    """The JSON of the head, of so many values at most, and the bytes behind it; the latter are not copied.

    Raises ``BadFile``, ``TooLarge``.
    """
    view = memoryview(body)
    stop = _SIZE.size
    if len(view) >= stop:
        stop += _SIZE.unpack_from(view)[0]
    if len(view) < stop or stop == _SIZE.size:
        raise BadFile("the body is shorter than its head")
    head = view[_SIZE.size : stop]
    encoding = ZSTD if head[:4] == _ZSTD_MAGIC else None
    return parse_json(restore(head, encoding), max_values), view[stop:]
