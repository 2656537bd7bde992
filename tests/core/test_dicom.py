"""The transfer syntax of a file."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core.dicom import instance_uid, transfer_syntax

EXPLICIT = "1.2.840.10008.1.2.1"


def element(number: int, kind: bytes, value: bytes, group: int = 2) -> bytes:
    if kind in (b"OB", b"UN", b"UT"):
        return struct.pack("<HH2sHI", group, number, kind, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, kind, len(value)) + value


def file(*elements: bytes) -> bytes:
    return bytes(128) + b"DICM" + b"".join(elements)


SYNTAX = element(0x10, b"UI", EXPLICIT.encode() + b"\0")


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "rtplan.dcm"])
def test_it_says_what_pydicom_says_from_the_first_kilobyte(name: str) -> None:
    path = Path(str(pydicom.data.get_testdata_file(name)))
    meta = pydicom.dcmread(path, stop_before_pixels=True).file_meta
    beginning = path.read_bytes()[:1024]
    assert transfer_syntax(beginning) == str(meta.TransferSyntaxUID)
    assert instance_uid(beginning) == str(meta.MediaStorageSOPInstanceUID)


@pytest.mark.parametrize("value", [b"", b"1.2*", b"1.2\\1.3", b"1" * 65, b"1.2 3", "\u0661.2".encode()])
def test_what_is_no_uid_names_no_instance(value: bytes) -> None:
    assert instance_uid(file(element(3, b"UI", value) + SYNTAX)) is None


def test_elements_of_either_form_before_it_are_passed_over() -> None:
    before = element(0x00, b"UL", bytes(4)) + element(0x01, b"OB", b"\0\1") + element(0x02, b"UI", b"1.2")
    assert transfer_syntax(file(before + SYNTAX)) == EXPLICIT


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_buffer_will_do(kind: type) -> None:
    assert transfer_syntax(kind(file(SYNTAX))) == EXPLICIT


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not DICOM",
        bytes(200),
        file(),
        file(element(0x02, b"UI", b"1.2")),
        file(element(0x20, b"UI", b"1.2", group=8) + SYNTAX),
        file(element(0x10, b"UI", b"")),
        file(SYNTAX)[:-5],
        file(SYNTAX)[:136],
        file(struct.pack("<HH2sHI", 2, 1, b"OB", 0, 2**32 - 1)) + SYNTAX,
    ],
)
def test_where_it_is_not_there_is_none(data: bytes) -> None:
    assert transfer_syntax(data) is None


@given(st.binary(max_size=300))
def test_garbage_has_none_and_raises_nothing(data: bytes) -> None:
    assert transfer_syntax(data) is None or data[128:132] == b"DICM"
    transfer_syntax(file(data))
    transfer_syntax(file(element(2, b"UI", b"1"), data))


def test_what_pydicom_writes_is_understood() -> None:
    dataset = pydicom.dcmread(str(pydicom.data.get_testdata_file("CT_small.dcm")))
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    assert transfer_syntax(out.getvalue()) == EXPLICIT
