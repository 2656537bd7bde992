"""What the filters of rules look at, as Orthanc's index has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.support import dicom_data
from tests.support.orthanc_server import OrthancServer

pytestmark = pytest.mark.orthanc

ABSENT = "00000000-11111111-22222222-33333333-44444444"
PARENTS = {"Patient": "ParentPatient", "Study": "ParentStudy", "Series": "ParentSeries", "Instance": "ID"}


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """One study of two series."""
    return list(dicom_data.ct_study(6, size=16, series=2, name="Doe^Jane"))


@pytest.fixture(scope="module")
def stored(host: OrthancServer, files: list[bytes]) -> dict[str, str]:
    """The identifier of each level."""
    first = host.upload_all(files)[0]
    return {level: first[key] for level, key in PARENTS.items()}


def facts(
    host: OrthancServer, level: str, identifier: str, *, known: Sequence[str] = ("known",), **wanted: Any
) -> Any:
    """Why they can never be told, how often Orthanc was asked, and the facts."""
    return host.post(f"host/rule-facts/{level}/{identifier}", {**wanted, "known": known})


def test_nothing_is_asked_for_where_nothing_is_wanted(host: OrthancServer) -> None:
    unusable, asked, found = facts(host, "Study", ABSENT)
    assert (unusable, asked) == (None, 0)
    assert found["tags"] == {}


@pytest.mark.parametrize("level", PARENTS)
def test_each_kind_of_fact_costs_one_question(
    host: OrthancServer, stored: dict[str, str], files: list[bytes], level: str
) -> None:
    wanted = {"modalities": True, "sources": True, "aets": True, "totals": True, "tags": ["PatientName"]}
    unusable, asked, found = facts(host, level, stored[level], **wanted)
    assert (unusable, asked) == (None, 4)
    assert found["modalities"] == ["CT"]
    assert found["tags"] == {"PatientName": ["Doe^Jane"]}
    assert found["sources"] == [["known"]]
    assert found["aets"] == []
    count = {"Series": 3, "Instance": 1}.get(level, 6)
    assert found["instances"] == count
    # All are of the same size but for the length of a number.
    assert abs(found["size"] - count * len(files[0])) < 100


@pytest.mark.parametrize("level", PARENTS)
def test_totals_alone_cost_one_question(
    host: OrthancServer, stored: dict[str, str], files: list[bytes], level: str
) -> None:
    _, asked, found = facts(host, level, stored[level], totals=True)
    assert (asked, found["instances"]) == (1, {"Series": 3, "Instance": 1}.get(level, 6))
    assert abs(found["size"] - found["instances"] * len(files[0])) < 100


@pytest.mark.parametrize("level", PARENTS)
def test_tags_that_the_index_does_not_have_are_read_from_a_file(
    host: OrthancServer, stored: dict[str, str], level: str
) -> None:
    wanted = ["0010,0020", "StudyDescription", "Rows", "StationName"]
    unusable, _, found = facts(host, level, stored[level], tags=wanted)
    assert unusable is None
    assert found["tags"] == {
        "0010,0020": ["DOE-JANE"],
        "StudyDescription": ["Made-up CT"],
        "Rows": ["16"],
    }


@pytest.mark.parametrize("level", PARENTS)
def test_what_is_not_stored_has_no_facts(host: OrthancServer, level: str) -> None:
    for wanted in ({"modalities": True}, {"tags": ["PatientID"]}, {"aets": True}, {"totals": True}):
        assert facts(host, level, ABSENT, **wanted)[2] is None
    assert facts(host, level, "system", totals=True)[2] is None


def test_where_a_series_came_from_may_be_kept_with_it(host: OrthancServer, stored: dict[str, str]) -> None:
    host.put(f"series/{stored['Series']}/metadata/1030", b'{"Peer": "archive", "Origin": "Plugins"}')
    assert facts(host, "Series", stored["Series"], known=(), sources=True)[2]["sources"] == [["archive"]]
    of_study = facts(host, "Study", stored["Study"], known=(), sources=True)[2]["sources"]
    assert sorted(of_study) == [[], ["archive"]]
    host.put(f"series/{stored['Series']}/metadata/1030", b"something else")
    assert facts(host, "Series", stored["Series"], known=(), sources=True)[2]["sources"] == [[]]


def test_an_unknown_tag_is_named(host: OrthancServer) -> None:
    unusable, _, _ = facts(host, "Study", ABSENT, tags=["PatientName", "PatinetName", "0010,0020"])
    assert unusable == '"Tags" has what is no DICOM tag to this Orthanc: PatinetName'


def test_labels(host: OrthancServer, stored: dict[str, str]) -> None:
    version = tuple(map(int, host.get("system")["Version"].split("+")[0].split(".")))
    if version < (1, 12, 0):
        assert "Labels" in facts(host, "Study", ABSENT, labels=True)[0]
        return
    host.put(f"studies/{stored['Study']}/labels/research")
    host.put(f"series/{stored['Series']}/labels/best")
    assert facts(host, "Study", stored["Study"], labels=True)[2]["labels"] == ["research"]
    assert facts(host, "Series", stored["Series"], labels=True)[2]["labels"] == ["best", "research"]
    assert facts(host, "Instance", stored["Instance"], labels=True)[2]["labels"] == ["research"]
    assert facts(host, "Patient", stored["Patient"], labels=True)[2]["labels"] == ["research"]
