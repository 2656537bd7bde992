"""The patient of a file, and what Orthanc calls it."""

from __future__ import annotations

import io
import struct

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from orthanc_transfers.core.patient_id import orthanc_patient, patient_id
from tests.support.dicom_data import real_files, small_instances


def sample() -> pydicom.FileDataset:
    dataset = pydicom.dcmread(io.BytesIO(next(small_instances(1, name="Some^Body"))))
    reference = pydicom.Dataset()
    reference.ReferencedSOPInstanceUID = "1.2.3"
    # Both come before the patient, and hold what looks like one.
    reference.PatientID = "another"
    dataset.ReferencedStudySequence = pydicom.Sequence([reference, reference])
    dataset.StudyDescription = "x" * 60
    return dataset


def written(dataset: pydicom.FileDataset, syntax: str) -> bytes:
    buffer = io.BytesIO()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    little, implicit = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    pydicom.dcmwrite(
        buffer,
        dataset,
        little_endian=little,
        implicit_vr=implicit,
        enforce_file_format=True,
    )
    return buffer.getvalue()


def test_it_says_what_pydicom_says_of_real_files() -> None:
    for path in real_files():
        expected = str(pydicom.dcmread(path, stop_before_pixels=True).get("PatientID") or "").strip()
        found = patient_id(path.read_bytes()[: 256 * 1024])
        assert found == expected.encode(), path.name


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize(
    "syntax",
    [
        "1.2.840.10008.1.2.1",
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
def test_sequences_before_it_are_passed_over_in_every_encoding(syntax: str, undefined: bool) -> None:
    dataset = sample()
    element = dataset["ReferencedStudySequence"]
    element.is_undefined_length = undefined
    for item in element.value:
        item.is_undefined_length_sequence_item = undefined
    assert patient_id(written(dataset, syntax)) == b"SOME-BODY"


def test_a_file_without_a_patient_has_an_empty_one() -> None:
    dataset = sample()
    del dataset.PatientID
    assert patient_id(written(dataset, ImplicitVRLittleEndian)) == b""


def test_what_is_cut_off_or_no_dicom_file_is_unknown() -> None:
    whole = written(sample(), ImplicitVRLittleEndian)
    end = whole.index(b"SOME-BODY") + 9
    assert patient_id(whole[: end - 1]) is None
    assert patient_id(whole[132:]) is None
    assert patient_id(b"") is None


@given(st.binary(max_size=200), st.integers(min_value=0, max_value=60))
def test_nothing_that_is_no_dicom_raises(noise: bytes, length: int) -> None:
    meta = struct.pack("<HH2sHI", 2, 0, b"UL", 4, length) + struct.pack("<HH2sH", 2, 16, b"UI", 18)
    patient_id(bytes(128) + b"DICM" + meta + b"1.2.840.10008.1.2\0" + noise)
    patient_id(noise)


def test_orthanc_identifies_a_patient_by_the_hash_of_its_identifier() -> None:
    assert orthanc_patient(b"SOME-BODY") == "51e08beb-9996859c-02ff8aaa-56c6250e-e5cddcbd"
    assert orthanc_patient("Grün".encode("latin-1")) is None
