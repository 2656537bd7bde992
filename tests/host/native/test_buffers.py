"""Bytes shared with C without a copy."""

from __future__ import annotations

import ctypes
import gc

import pytest

from orthanc_transfers.host.native.buffers import borrowed, owned, pinned


def test_native_memory_is_freed_once_and_only_when_its_last_view_is_gone() -> None:
    native = ctypes.create_string_buffer(b"0123456789")
    freed: list[int] = []
    view = owned(ctypes.addressof(native), 10, freed.append)
    part = view[2:5]
    del view
    gc.collect()
    assert not freed
    assert bytes(part) == b"234"
    del part
    gc.collect()
    assert freed == [ctypes.addressof(native)]


def test_a_view_is_of_the_very_memory_and_cannot_be_written_to() -> None:
    native = ctypes.create_string_buffer(b"abc")
    view = borrowed(ctypes.addressof(native), 3)
    native[0] = b"x"
    assert bytes(view) == b"xbc"
    assert (view.nbytes, view.format, view.readonly) == (3, "B", True)
    with pytest.raises(TypeError):
        view[0] = 1


@pytest.mark.parametrize(("address", "size"), [(None, 0), (None, 5), (0, 0)])
def test_no_memory_is_an_empty_view(address: int | None, size: int) -> None:
    assert len(borrowed(address, size)) == 0
    assert len(owned(address, size, lambda address: None)) == 0


@pytest.mark.parametrize(
    "data", [b"abcdef", bytearray(b"abcdef"), memoryview(b"abcdef"), memoryview(bytearray(b"abcdef"))]
)
def test_bytes_of_any_kind_have_an_address(data: bytes | bytearray | memoryview) -> None:
    with pinned(data) as (address, size):
        assert address is not None
        assert ctypes.string_at(address, size) == b"abcdef"


def test_the_address_of_a_part_is_within_the_whole() -> None:
    whole = memoryview(b"abcdef")
    with pinned(whole) as (start, _), pinned(whole[2:4]) as (address, size):
        assert start is not None
        assert (address, size) == (start + 2, 2)


def test_bytes_stay_in_place_while_their_address_is_used() -> None:
    data = bytearray(b"abc")
    with pinned(data), pytest.raises(BufferError):
        data.append(1)
    data.append(1)
    assert len(data) == 4


def test_scattered_bytes_have_no_address() -> None:
    with pytest.raises(BufferError), pinned(memoryview(b"abcdef")[::2]):
        pass
