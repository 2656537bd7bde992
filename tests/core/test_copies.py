"""Lossy copies of instances have an identifier made of what they are."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

from orthanc_transfers.core.copies import lossy_copy, sop_instance_uid

STUDY, SERIES, INSTANCE = "1.2.3.4", "1.2.3.4.5", "1.2.3.4.5.6"


def dicom(uid: str, syntax: str, body: bytes = b"pixels", **elements: Any) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = pydicom.uid.UID(uid)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.PatientID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "P 1", STUDY, SERIES
    # As DCMTK's codecs do, before the identifiers.
    source = Dataset()
    source.ReferencedSOPInstanceUID = INSTANCE
    dataset.SourceImageSequence = Sequence([source])
    dataset.PatientComments = body.decode()
    for key, value in elements.items():
        setattr(dataset, key, value)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def identifier(uid: str, patient: str = "P 1") -> str:
    digest = hashlib.sha1("|".join((patient, STUDY, SERIES, uid)).encode()).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))


ORIGINAL = dicom(INSTANCE, ImplicitVRLittleEndian)


def test_the_same_file_with_any_random_uid_is_the_same_copy() -> None:
    copies = [
        lossy_copy(ORIGINAL, identifier(INSTANCE), dicom(uid, JPEGBaseline8Bit))
        for uid in ("2.25.1", "2.25.123456", generate_uid())
    ]
    (only,) = {(one.id, bytes(one.data)) for one in copies if one is not None}
    read = pydicom.dcmread(io.BytesIO(only[1]))
    assert read.file_meta.MediaStorageSOPInstanceUID == read.SOPInstanceUID
    assert read.SOPInstanceUID.startswith("2.25.")
    assert only[0] == identifier(read.SOPInstanceUID)
    assert read.PatientComments == "pixels"
    assert read.SourceImageSequence[0].ReferencedSOPInstanceUID == INSTANCE
    assert only[1] == dicom(read.SOPInstanceUID, JPEGBaseline8Bit)


def test_another_file_is_another_copy() -> None:
    one, other = (
        lossy_copy(ORIGINAL, identifier(INSTANCE), dicom("2.25.1", JPEGBaseline8Bit, body))
        for body in (b"pixels", b"others")
    )
    assert one is not None
    assert other is not None
    assert one.id != other.id


def test_an_original_that_orthanc_knows_by_another_identifier_has_none() -> None:
    latin = dicom(INSTANCE, ExplicitVRLittleEndian, PatientID="Gr\u00fcn", SpecificCharacterSet="ISO_IR 100")
    assert lossy_copy(latin, identifier(INSTANCE, "Gr\u00fcn"), dicom("2.25.1", JPEGBaseline8Bit)) is None


@pytest.mark.parametrize("data", [b"", b"no file", ORIGINAL[:300], bytes(2000)])
def test_what_is_no_such_file_has_none(data: bytes) -> None:
    made = dicom("2.25.1", JPEGBaseline8Bit)
    assert lossy_copy(data, identifier(INSTANCE), made) is None
    assert lossy_copy(ORIGINAL, identifier(INSTANCE), data) is None
    assert sop_instance_uid(data) is None or data == ORIGINAL[:300]
