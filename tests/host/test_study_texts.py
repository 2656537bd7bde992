"""Who and what a transfer carries, as Orthanc's index has it."""

from __future__ import annotations

import pytest

from tests.support import dicom_data
from tests.support.orthanc_server import OrthancServer

pytestmark = pytest.mark.orthanc

ABSENT = "00000000-11111111-22222222-33333333-44444444"


def test_the_text_of_whatever_is_in_a_study_takes_two_questions_that_do_not_grow_with_the_archive(
    host: OrthancServer,
) -> None:
    stored = host.upload_all(dicom_data.ct_study(3, size=16, name="Text^One"))[0]
    tags = host.get(f"studies/{stored['ParentStudy']}")
    extended = host.get("system").get("Capabilities", {}).get("HasExtendedFind", False)
    modality = "/tools/find Series by ParentStudy" if extended else "/series"
    for level, identifier, asked in (
        ("Study", stored["ParentStudy"], "/studies"),
        ("Series", stored["ParentSeries"], "/series/study"),
        ("Instance", stored["ID"], "/instances/study"),
    ):
        found = host.get(f"host/text/{level}/{identifier}")
        assert found["kinds"] == [asked, modality]
        text = found["text"]
        assert (text["patient_id"], text["patient_name"]) == (
            tags["PatientMainDicomTags"]["PatientID"],
            tags["PatientMainDicomTags"]["PatientName"],
        )
        assert (text["study"], text["modality"]) == (stored["ParentStudy"], "CT")
    assert host.get(f"host/text/Patient/{stored['ParentPatient']}")["text"] is not None
    for level in ("Patient", "Study", "Series", "Instance"):
        assert host.get(f"host/text/{level}/{ABSENT}")["text"] is None
