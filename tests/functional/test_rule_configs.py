"""The three rules of ``configs/`` work as the README explains them."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from tests.support.dicom_data import ct_study
from tests.support.fixtures import MakeServer
from tests.support.orthanc_server import CHECKOUT, CONFIGS, OrthancServer, load_configuration, start_together
from tests.support.rules import STABLE, has, history, queue, states, study, wait_ended
from tests.support.waiting import wait_until

NAMES = ("night-archive", "research", "mirror")


def rules(name: str) -> dict[str, Any]:
    """The section ``Transfers`` of a file."""
    section: dict[str, Any] = load_configuration(CONFIGS / f"rules-{name}.json")["Transfers"]
    return section


def at_hour(hour: int) -> dict[str, str]:
    """The environment of a process whose local time is about that hour."""
    # POSIX counts to the west. Half past, so that the hour does not end during a test.
    now = time.gmtime()
    minutes = now.tm_hour * 60 + now.tm_min - (hour * 60 + 30)
    minutes = (minutes + 720) % 1440 - 720
    sign = "-" if minutes < 0 else ""
    return {"TZ": f"XXX{sign}{abs(minutes) // 60}:{abs(minutes) % 60:02}"}


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_explains_each_line(name: str) -> None:
    readme = (CHECKOUT / "README.md").read_text()
    (text,) = re.findall(rf"configs/rules-{name}\.json\)\).*?\n\n(\|.*?)\n\n", readme, re.DOTALL)
    (rule,) = rules(name)["Rules"]
    assert {key for key in rule if f'"{key}"' not in text} == set()


@pytest.mark.orthanc
@pytest.mark.parametrize(("hour", "sent"), [(22, True), (12, False)])
def test_at_night_to_an_archive(make_server: MakeServer, hour: int, *, sent: bool) -> None:
    options = {**STABLE, "Transfers": rules("night-archive")}
    a = make_server("a", configuration=options, environment=at_hour(hour))
    archive, second = make_server("archive"), make_server("archive-2")
    a.add_peer("archive", archive)
    a.add_peer("archive-2", second)
    start_together(a, archive, second)
    arrived = study(a)
    if sent:
        assert wait_ended(a, arrived)["Peer"] == "archive"
        assert has(archive, [arrived])
        assert a.download(f"studies/{arrived}/metadata/1030") == b"archived"
    else:
        wait_until(lambda: states(a, arrived) == ["Waiting"], "it waits for the evening")
        assert not archive.get("studies")


@pytest.mark.orthanc
def test_de_identified_for_research(make_server: MakeServer) -> None:
    section = rules("research")
    # The description of the studies of these tests.
    section["Rules"][0]["Filter"]["Tags"]["StudyDescription"] = "*MADE-UP*"
    a = make_server("a", configuration={**STABLE, "Transfers": section})
    research = make_server("research")
    a.add_peer("research", research)
    start_together(a, research)
    (original,) = {one["ParentStudy"] for one in a.upload_all(ct_study(2, size=64, name="Real^Name"))}
    wait_ended(a, original)
    (copy,) = research.get("studies?expand")
    assert copy["PatientMainDicomTags"]["PatientName"] == "TRIAL-42"
    assert copy["MainDicomTags"]["StudyDescription"] == "Made-up CT"
    wait_until(lambda: a.get("studies") == [original], "the copy is deleted here")


@pytest.mark.orthanc
def test_a_mirror(make_server: MakeServer) -> None:
    options = {**STABLE, "Transfers": rules("mirror")}
    a, b = make_server("a", configuration=options), make_server("b", configuration=options)
    a.add_peer("other", b)
    b.add_peer("other", a)
    start_together(a, b)
    here, there = study(a), study(b)

    def ended(server: OrthancServer, one: str) -> bool:
        return "Done" in states(server, one)

    wait_until(lambda: has(b, [here]) and has(a, [there]), "both have both")
    wait_until(lambda: ended(a, here) and ended(b, there), "both rules are done")
    wait_until(lambda: not queue(a) and not queue(b), "nothing goes back and forth")
    assert a.md5s() == b.md5s()
    assert len(history(a)) <= 2
