"""Records that check themselves, and what a crash can do to them."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core.errors import NoSpace
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.runtime.journal import (
    MAGIC,
    Journal,
    Kind,
    encode_range,
    encode_record,
    read_records,
)

RECORDS = [
    encode_record(Kind.STORED, b"\x05"),
    encode_range(Kind.RECEIVED, Range(0, 100)),
    encode_range(Kind.RECEIVED, Range(200, 5_000_000_000)),
    encode_range(Kind.LOST, Range(50, 60)),
    encode_record(Kind.COMMITTING, b"\x0f"),
    encode_record(Kind.OUTCOME, b"{}"),
]
WHOLE = list(read_records(b"".join(RECORDS)))


def test_what_is_written_is_read_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append(b"".join(RECORDS[:3]))
    for record in RECORDS[3:]:
        journal.append(record)
    journal.sync()
    journal.close()
    assert list(read_records((tmp_path / "journal").read_bytes())) == WHOLE
    assert [record.kind for record in WHOLE] == [
        Kind.STORED,
        Kind.RECEIVED,
        Kind.RECEIVED,
        Kind.LOST,
        Kind.COMMITTING,
        Kind.OUTCOME,
    ]
    assert WHOLE[2].range == Range(200, 5_000_000_000)


def test_a_journal_is_private(tmp_path: Path) -> None:
    Journal(tmp_path / "journal").close()
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600


def test_cut_at_any_byte_everything_before_the_cut_is_kept_and_nothing_else() -> None:
    data = b"".join(RECORDS)
    for cut in range(len(data) + 1):
        whole = 0
        while len(b"".join(RECORDS[: whole + 1])) <= cut and whole < len(RECORDS):
            whole += 1
        assert list(read_records(data[:cut])) == WHOLE[:whole]


def test_a_record_after_a_torn_one_is_still_found() -> None:
    for cut in range(len(RECORDS[1])):
        assert list(read_records(RECORDS[0] + RECORDS[1][:cut] + RECORDS[2])) == [WHOLE[0], WHOLE[2]]


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_costs_the_record_it_is_in(bit: int) -> None:
    data = b"".join(RECORDS)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << bit
        found = list(read_records(bytes(damaged)))
        assert len(found) == len(WHOLE) - 1
        assert set(found) < set(WHOLE)


@given(st.binary(max_size=300))
def test_noise_is_no_record(noise: bytes) -> None:
    assert list(read_records(noise)) == []
    assert list(read_records(noise + RECORDS[1]))[-1] == WHOLE[1]


def test_a_record_of_a_kind_that_a_later_version_may_have_is_passed_over() -> None:
    unknown = struct.pack("<4sBII", MAGIC, 99, 0, zlib.crc32(b"", zlib.crc32(bytes([99]))))
    good = encode_record(Kind.RECEIVING, b"")
    assert [record.kind for record in read_records(unknown + good)] == [Kind.RECEIVING]


def test_a_range_that_makes_no_sense_is_an_error_of_its_record() -> None:
    for payload in (b"", b"short", b"\xff" * 16 + b"x", b"\x02" + bytes(7) + b"\x01" + bytes(7)):
        (record,) = read_records(encode_record(Kind.RECEIVED, payload))
        with pytest.raises(ValueError, match="range"):
            _ = record.range


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal")
    write = os.write
    monkeypatch.setattr("os.write", lambda fd, data: write(fd, data[:3]))
    with pytest.raises(NoSpace):
        journal.append(RECORDS[0])
    monkeypatch.undo()
    journal.append(RECORDS[1])
    journal.close()
    assert list(read_records((tmp_path / "journal").read_bytes())) == [WHOLE[1]]
