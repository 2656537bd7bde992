"""The bodies of ``/anonymize`` and ``/modify`` that a rule may have."""

from __future__ import annotations

from typing import Any

import pytest

from orthanc_transfers.core.anonymize import MAX_SIZE, Anonymization
from orthanc_transfers.core.errors import BadRequest


def test_the_copy_has_the_uid_that_was_chosen() -> None:
    wanted = Anonymization.parse(
        {"Anonymize": {"Keep": ["StudyDescription"], "Replace": {"PatientName": "x"}}}
    )
    assert wanted is not None
    assert wanted.action == "anonymize"
    assert wanted.request("1.2.3") == {
        "Keep": ["StudyDescription"],
        "Replace": {"PatientName": "x", "StudyInstanceUID": "1.2.3"},
        "Force": True,
        "Synchronous": True,
    }
    modified = Anonymization.parse({"Modify": {}})
    assert modified is not None
    assert modified.action == "modify"
    assert Anonymization.parse({"Name": "x"}) is None


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ({"Anonymize": True}, '"Anonymize"'),
        ({"Modify": []}, '"Modify"'),
        ({"Anonymize": {}, "Modify": {}}, "not both"),
        ({"Modify": {"KeepSource": False}}, '"KeepSource"'),
        ({"Anonymize": {"Asynchronous": True}}, '"Asynchronous"'),
        ({"Anonymize": {"Replace": []}}, '"Replace"'),
        ({"Anonymize": {"Keep": "PatientID"}}, '"Keep"'),
        ({"Anonymize": {"Keep": ["StudyInstanceUID"]}}, "StudyInstanceUID"),
        ({"Anonymize": {"Keep": ["0020-000D"]}}, "0020-000D"),
        ({"Modify": {"Replace": {"0020,000d": "1.2"}}}, "0020,000d"),
        ({"Modify": {"Remove": ["StudyInstanceUID"]}}, "StudyInstanceUID"),
        ({"Anonymize": {"Replace": {"PatientName": "x" * MAX_SIZE}}}, "bytes"),
    ],
)
def test_a_bad_one_is_named(rule: dict[str, Any], named: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Anonymization.parse(rule)
    assert named in str(caught.value)
