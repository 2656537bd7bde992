"""The filter of a rule: what it takes, what it refuses, and what it says of a bad one."""

from __future__ import annotations

import time
from typing import Any

import pytest

from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.rule_filter import MAX_PATTERNS, Facts, RuleFilter, Wanted, came_from

STUDY = Facts(
    modalities=frozenset({"CT", "SR"}),
    tags={
        "PatientName": frozenset({"Doe^Jane "}),
        "0010,0020": frozenset({"A[1]"}),
        "StudyDescription": frozenset({"Hip", "Knee\nleft"}),
    },
    labels=frozenset({"research", "checked"}),
    aets=frozenset({"SCANNER-1"}),
    sources=frozenset({frozenset({"b"}), frozenset()}),
    size=10 * 1024 * 1024,
    instances=20,
)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"Modality": "CT"},
        {"Modality": ["MR", "sr"]},
        {"Modality": "C?"},
        {"RemoteAET": "scanner*"},
        {"Tags": {"PatientName": "DOE*"}},
        {"Tags": {"PatientName": ["ROE*", "?oe^jane"]}},
        {"Tags": {"00100020": "a[1]"}},
        {"Tags": {"0010-0020": "A*"}},
        {"Tags": {"StudyDescription": "knee*left"}},
        {"Tags": {"AccessionNumber": "*"}},
        {"Labels": "research"},
        {"Labels": ["research", "checked"]},
        {"Labels": {"Any": ["research", "other"], "None": ["other"]}},
        {"MinSizeMB": 10, "MaxSizeMB": 10.0},
        {"MinInstances": 20, "MaxInstances": 20},
        {"NotFrom": "b"},
        {"NotFrom": ["a", "c"]},
    ],
)
def test_what_fits(value: dict[str, Any]) -> None:
    assert RuleFilter.parse(value).mismatch(STUDY) is None


@pytest.mark.parametrize(
    "value",
    [
        {"Modality": "MR"},
        {"Modality": "C"},
        {"RemoteAET": "scanner"},
        {"Tags": {"PatientName": "Doe", "PatientID": "*"}},
        {"Tags": {"AccessionNumber": "?*"}},
        {"Labels": ["research", "other"]},
        {"Labels": {"Any": "other"}},
        {"Labels": {"None": ["checked"]}},
        {"MinSizeMB": 10.1},
        {"MaxSizeMB": 9.9},
        {"MinInstances": 21},
        {"MaxInstances": 19},
        {"MaxInstances": 0},
    ],
)
def test_what_does_not_fit_and_why(value: dict[str, Any]) -> None:
    assert RuleFilter.parse(value).mismatch(STUDY) in value


def test_what_came_from_a_peer_alone_is_not_sent_back() -> None:
    back = RuleFilter.parse({"NotFrom": ["b", "c"]})
    b, c, d, unknown = (frozenset(names) for names in (["b", "its process"], ["c"], ["d"], []))
    assert back.mismatch(Facts(sources=frozenset({b}))) == "NotFrom"
    assert back.mismatch(Facts(sources=frozenset({b, c}))) == "NotFrom"
    assert back.matches(Facts(sources=frozenset({unknown})))
    assert back.matches(Facts(sources=frozenset({b, unknown})))
    assert back.matches(Facts(sources=frozenset({b, d})))
    assert back.matches(Facts())
    assert came_from(Facts(sources=frozenset({b})), ["its process"])
    assert not came_from(Facts(), ["b"])


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (None, '"Filter"'),
        ([], '"Filter"'),
        ({"Modalities": "CT"}, 'did you mean "Modality"'),
        ({"x": 1}, "it may have Modality"),
        ({"Modality": 1}, '"Modality"'),
        ({"Modality": [1]}, '"Modality"'),
        ({"Modality": ""}, '"Modality"'),
        ({"Modality": ["CT"] * (MAX_PATTERNS + 1)}, '"Modality"'),
        ({"RemoteAET": {}}, '"RemoteAET"'),
        ({"RemoteAET": "\ud800"}, '"RemoteAET"'),
        ({"Tags": []}, '"Tags"'),
        ({"Tags": {"patient name": "x"}}, '"Tags"'),
        ({"Tags": {"0010,002": "x"}}, '"Tags"'),
        ({"Tags": {"Modality": "CT"}}, 'use "Modality"'),
        ({"Tags": {"00080061": "CT"}}, 'use "Modality"'),
        ({"Tags": {"PatientID": []}}, '"PatientID"'),
        ({"Tags": {"PatientID": "x" * 257}}, '"PatientID"'),
        ({"Labels": {"all": ["x"]}}, '"Labels"'),
        ({"Labels": 7}, '"Labels"'),
        ({"Labels": ["with space"]}, "letters, digits"),
        ({"MinSizeMB": -1}, '"MinSizeMB"'),
        ({"MinSizeMB": True}, '"MinSizeMB"'),
        ({"MinSizeMB": float("nan")}, '"MinSizeMB"'),
        ({"MinInstances": 1.5}, '"MinInstances"'),
        ({"MinInstances": 2, "MaxInstances": 1}, '"MinInstances"'),
        ({"MinSizeMB": 2, "MaxSizeMB": 1}, '"MinSizeMB"'),
        ({"NotFrom": [""]}, '"NotFrom"'),
    ],
)
def test_a_bad_filter_is_named(value: Any, named: str) -> None:
    with pytest.raises(BadRequest) as caught:
        RuleFilter.parse(value)
    assert named in str(caught.value)


def test_only_what_decides_is_wanted() -> None:
    assert RuleFilter.parse({}).wanted == Wanted()
    assert RuleFilter.parse({"Modality": "CT", "MaxInstances": 0}).wanted == Wanted(
        modalities=True, totals=True
    )
    tags = RuleFilter.parse({"Tags": {"00100020": "x"}, "Labels": {"None": "x"}}).wanted
    assert tags == Wanted(tags=frozenset({"0010,0020"}), labels=True)
    assert (tags | Wanted(aets=True, sources=True)) == Wanted(
        tags=frozenset({"0010,0020"}), labels=True, aets=True, sources=True
    )


def test_no_pattern_takes_long() -> None:
    patient = RuleFilter.parse({"Tags": {"PatientName": "*a" * 120 + "b"}})
    began = time.process_time()
    assert not patient.matches(Facts(tags={"PatientName": frozenset({"a" * 5000})}))
    assert time.process_time() - began < 5
