"""Bytes as they arrive: MD5s verified meanwhile, and writers that get in each other's way."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import Conflict, TransferError
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.writer import AreaWriter
from orthanc_transfers.runtime import files
from tests.receiver.memory_receiver import PATIENCE, dicom, halves, identify, manifest_of

FILES = [dicom("one", 5000), dicom("two", 3_000_000), b"", dicom("three", 70)]
BYTES = memoryview(b"".join(FILES))
MANIFEST = manifest_of(FILES)
EVERYTHING = range(len(FILES))
TWO = MANIFEST.range_of(identify(FILES[1]))


@pytest.fixture
def area(tmp_path: Path) -> Iterator[Area]:
    area = Area.create(tmp_path / ("a" * 32), MANIFEST, {})
    yield area
    area.close()


def no_gate() -> None:
    """An open gate."""


def write(writer: AreaWriter, *ranges: Range, data: memoryview = BYTES) -> None:
    pieces = b"".join(data[item.start : item.stop] for item in ranges)
    writer.write(ranges, memoryview(pieces), no_gate)


def slow_disk(
    monkeypatch: pytest.MonkeyPatch, is_slow: Callable[[memoryview], bool]
) -> tuple[threading.Event, threading.Event]:
    """Writes of such bytes wait for the second event once they have set the first."""
    begun, go_on = threading.Event(), threading.Event()
    really_write = files.write_at

    def slowly(fd: int, data: memoryview, offset: int) -> None:
        if is_slow(data):
            begun.set()
            go_on.wait(PATIENCE)
        really_write(fd, data, offset)

    monkeypatch.setattr(files, "write_at", slowly)
    return begun, go_on


def test_whole_instances_are_verified_from_the_buffer_that_brings_them(
    area: Area, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = AreaWriter(area)

    def never(*arguments: object) -> int:
        raise AssertionError("read back from the disk")

    monkeypatch.setattr(os, "preadv", never)
    write(writer, MANIFEST.area)
    assert writer.unchecked(EVERYTHING) == []
    assert writer.flaw() is None


@pytest.mark.parametrize("seed", range(5))
def test_when_the_last_byte_arrives_nothing_is_left_to_be_verified(area: Area, seed: int) -> None:
    writer = AreaWriter(area)
    pieces = [Range(start, min(start + 123_457, len(BYTES))) for start in range(0, len(BYTES), 123_457)]
    random.Random(seed).shuffle(pieces)
    for piece in pieces:
        assert writer.flaw() is not None
        write(writer, piece)
    assert writer.unchecked(EVERYTHING) == []
    assert writer.missing() == []


def test_an_instance_in_parts_is_hashed_while_others_arrive(area: Area) -> None:
    writer = AreaWriter(area)
    pieces = [Range(start, min(start + 50_000, len(BYTES))) for start in range(0, len(BYTES), 50_000)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda piece: write(writer, piece), pieces))
    for index in writer.unchecked(EVERYTHING):
        writer.check(index)
    assert writer.unchecked(EVERYTHING) == []
    assert writer.flaw() is None


def test_what_memory_believes_the_disk_says_too(area: Area) -> None:
    writer = AreaWriter(area)
    write(writer, Range(0, 100), Range(5000, 6000))
    assert AreaWriter(Area.reopen(area.directory)).missing() == writer.missing()


def test_a_wrong_instance_is_lost_on_the_disk_too(area: Area) -> None:
    writer = AreaWriter(area)
    bad = memoryview(bytes(len(BYTES)))
    first, second = halves(TWO)
    write(writer, first)
    write(writer, second, data=bad)
    assert TWO in writer.missing() or Range(0, len(BYTES)) in writer.missing()
    assert AreaWriter(Area.reopen(area.directory)).missing() == writer.missing()
    assert "MD5 of instance" in str(writer.flaw())
    write(writer, MANIFEST.area)
    assert writer.flaw() is None


@pytest.mark.parametrize("late_is_bad", [True, False])
def test_two_writers_of_the_same_bytes_never_make_a_wrong_instance_right(
    area: Area, monkeypatch: pytest.MonkeyPatch, late_is_bad: bool
) -> None:
    """What is on disk in the end is what counts, whichever write was verified first."""
    bad = memoryview(bytes(len(BYTES)))
    late, early = (bad, BYTES) if late_is_bad else (BYTES, bad)
    begun, go_on = slow_disk(monkeypatch, lambda data: bytes(data) == bytes(late))
    writer = AreaWriter(area)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(write, writer, MANIFEST.area, data=late)
        assert begun.wait(PATIENCE)
        write(writer, MANIFEST.area, data=early)
        # Nothing is settled while a write may still change it.
        assert writer.unchecked([0, 1, 3]) == [0, 1, 3]
        go_on.set()
        slow.result(PATIENCE)
    for index in writer.unchecked(EVERYTHING):
        writer.check(index)
    assert (writer.flaw() is not None) == late_is_bad
    write(writer, MANIFEST.area)
    assert writer.flaw() is None
    assert (area.directory / "area").read_bytes() == bytes(BYTES)


def test_quiescing_waits_for_writes_that_passed_the_gate(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = slow_disk(monkeypatch, lambda data: True)
    writer = AreaWriter(area)
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(write, writer, MANIFEST.area)
        assert begun.wait(PATIENCE)
        quiet = pool.submit(writer.quiesce)
        assert not quiet.done()
        go_on.set()
        quiet.result(PATIENCE)
        writing.result(PATIENCE)
    assert writer.missing() == []


def test_a_closed_gate_lets_no_byte_through(area: Area) -> None:
    writer = AreaWriter(area)

    def closed() -> None:
        raise Conflict("too late")

    with pytest.raises(Conflict):
        writer.write([MANIFEST.area], BYTES, closed)
    assert writer.missing() == [MANIFEST.area]
    writer.quiesce()


def test_a_disk_that_cannot_be_read_does_not_spoil_the_md5(
    area: Area, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = AreaWriter(area)
    first, second = halves(TWO)

    def broken(*arguments: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "preadv", broken)
        with pytest.raises(TransferError, match="Input/output error"):
            write(writer, first)
    write(writer, second)
    write(writer, Range(0, TWO.start), Range(TWO.stop, len(BYTES)))
    assert writer.unchecked(EVERYTHING) == []


def test_known_bytes_are_not_written_again(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = AreaWriter(area)
    write(writer, Range(100, 200))
    offsets: list[tuple[int, int]] = []
    monkeypatch.setattr(files, "write_at", lambda fd, data, offset: offsets.append((offset, len(data))))
    write(writer, Range(50, 150), Range(150, 300))
    assert offsets == [(50, 50), (200, 100)]


def test_what_is_stored_already_takes_no_bytes(area: Area) -> None:
    writer = AreaWriter(area)
    writer.skip(frozenset({1}))
    assert writer.stored_count == (1, TWO.size)
    write(writer, MANIFEST.area, data=memoryview(bytes(len(BYTES))))
    assert area.written == 0
    write(writer, MANIFEST.area)
    assert area.written == len(BYTES) - TWO.size
    assert writer.flaw() is None
    assert AreaWriter(Area.reopen(area.directory)).stored == {1}
    writer.lose([1])
    assert writer.stored_count == (0, 0)
    assert writer.missing() == [TWO]
    assert AreaWriter(Area.reopen(area.directory)).missing() == [TWO]
