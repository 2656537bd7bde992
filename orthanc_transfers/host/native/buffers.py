"""Bytes shared with C without a copy, both ways."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.host.native.structures import PyBuffer

_LARGEST = 0xFFFFFFFF
_PyBUF_SIMPLE = 0

_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(PyBuffer), ctypes.c_int)
_get_buffer.restype = ctypes.c_int
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(PyBuffer),)
_release_buffer.restype = None


class _Native(ctypes.Array[ctypes.c_ubyte]):
    """All that a 32-bit size can say. One type for all sizes: making a type for each would cost more than
    reading a small file, and only the slice that exists is ever handed out."""

    _type_ = ctypes.c_ubyte
    _length_ = _LARGEST


def borrowed(address: int | None, size: int) -> memoryview:
    """A read-only view on memory that someone else frees."""
    if not address or not size:
        return memoryview(b"")
    return memoryview(_Native.from_address(address)).cast("B")[:size].toreadonly()


def owned(address: int | None, size: int, free: Callable[[int], None]) -> memoryview:
    """A read-only view on memory that is given back with ``free`` when its last view is gone."""
    if not address:
        return memoryview(b"")
    native = _Native.from_address(address)
    finalizer = weakref.finalize(native, free, address)
    # At the end of the process the system takes everything back, and Orthanc may be gone by then.
    finalizer.atexit = False
    return memoryview(native).cast("B")[:size].toreadonly()


class pinned:  # noqa: N801  (used as a function; a generator would take three times as long, for each instance)
    """Address and size of contiguous bytes, which stay in place meanwhile.

    ctypes alone finds no address for read-only views, so this asks CPython's buffer protocol.
    Raises ``BufferError`` if the bytes are not contiguous.
    """

    __slots__ = ("_data", "_view")

    def __init__(self, data: Buffer) -> None:
        self._data = data
        self._view = PyBuffer()

    def __enter__(self) -> tuple[int | None, int]:
        _get_buffer(self._data, ctypes.byref(self._view), _PyBUF_SIMPLE)
        return self._view.buf, self._view.len

    def __exit__(self, *_: object) -> None:
        _release_buffer(ctypes.byref(self._view))


def strings(values: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    """An array of C strings."""
    return (ctypes.c_char_p * len(values))(*(value.encode() for value in values))
