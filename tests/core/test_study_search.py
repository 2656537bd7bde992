"""The search for studies: what may be asked for, and what an answer may hold."""

from __future__ import annotations

from typing import Any

import pytest

from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.study_search import MAX_RESULTS, MAX_TEXT, Found, Search, presence, series_of

ID = "0a01cc51-fbf343ea-908d2e4c-e75fdd89-08e592b3"
STUDY = {
    "ID": ID,
    "ParentPatient": ID,
    "MainDicomTags": {"StudyInstanceUID": "1.2.3", "StudyDescription": "Knee", "Unknown": "x"},
    "PatientMainDicomTags": {"PatientName": "Doe^Jane", "PatientID": 7},
}
SERIES = {"ID": ID, "ParentStudy": ID, "MainDicomTags": {"Modality": "CT"}, "Instances": ["a", "b"]}


def test_one_more_than_wanted_is_asked_for() -> None:
    search = Search.parse({"Peer": "b", "Query": {"PatientName": "doe*"}, "Limit": 7})
    assert (search.peer, search.level) == ("b", "Study")
    find = search.to_find()
    assert (find["Limit"], find["Query"], find["Expand"]) == (8, {"PatientName": "doe*"}, True)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (None, "the request"),
        ([], "the request"),
        ({"Peer": 1}, '"Peer"'),
        ({"Level": "Instance"}, '"Level"'),
        ({"Level": {}}, '"Level"'),
        ({"Limit": 0}, '"Limit"'),
        ({"Limit": MAX_RESULTS + 1}, '"Limit"'),
        ({"Limit": True}, '"Limit"'),
        ({"Query": []}, '"Query"'),
        ({"Query": {"PixelData": "*"}}, "PixelData"),
        ({"Query": {"PatientName": 1}}, '"PatientName"'),
        ({"Query": {"PatientName": "x" * (MAX_TEXT + 1)}}, '"PatientName"'),
        ({"Query": {"PatientName": "\ud800"}}, '"PatientName"'),
    ],
)
def test_a_bad_search_is_refused_by_a_sentence_that_names_what_is_wrong(body: Any, named: str) -> None:
    with pytest.raises(BadRequest, match=named):
        Search.parse(body)


def test_what_is_found_is_shown_without_what_is_unknown_or_no_text() -> None:
    (found,) = Found.parse_all([STUDY], "Study")
    assert found.tags == {"StudyInstanceUID": "1.2.3", "StudyDescription": "Knee", "PatientName": "Doe^Jane"}
    assert series_of([found])["Query"] == {"StudyInstanceUID": "1.2.3"}
    series = Found.parse_all([SERIES], "Series")
    shown = found.to_json("Study", series, frozenset("a"))
    assert (shown["Modalities"], shown["Series"], shown["Instances"], shown["Local"]) == (
        ["CT"],
        1,
        2,
        "part",
    )


@pytest.mark.parametrize(
    ("level", "answer"),
    [
        ("Study", "nonsense"),
        ("Study", {}),
        ("Study", [1]),
        ("Study", [{**STUDY, "ID": "../../x"}]),
        ("Study", [{**STUDY, "ID": None}]),
        ("Study", [{**STUDY, "ParentPatient": "<script>"}]),
        ("Study", [{**STUDY, "MainDicomTags": []}]),
        ("Study", [{**STUDY, "MainDicomTags": {"StudyInstanceUID": "*"}}]),
        ("Study", [{**STUDY, "MainDicomTags": {}}]),
        ("Study", [{**STUDY, "PatientMainDicomTags": 1}]),
        ("Series", [{**SERIES, "Instances": "ab"}]),
        ("Series", [{**SERIES, "Instances": [1]}]),
        ("Series", [{key: SERIES[key] for key in SERIES if key != "Instances"}]),
    ],
)
def test_nonsense_of_a_peer_is_refused(level: str, answer: Any) -> None:
    with pytest.raises(BadRequest):
        Found.parse_all(answer, level)


def test_long_texts_of_a_peer_are_cut() -> None:
    long = {**STUDY, "MainDicomTags": {"StudyInstanceUID": "1.2.3", "StudyDescription": "x" * 100_000}}
    assert len(Found.parse_all([long], "Study")[0].tags["StudyDescription"]) == MAX_TEXT


@pytest.mark.parametrize(
    ("there", "here", "local"),
    [
        ("ab", "", "none"),
        ("ab", "c", "none"),
        ("ab", "bc", "part"),
        ("ab", "abc", "whole"),
        ("", "a", "none"),
    ],
)
def test_how_much_of_it_is_here(there: str, here: str, local: str) -> None:
    assert presence(frozenset(there), frozenset(here)) == local
