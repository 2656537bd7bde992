"""Copies that are sent in place of their originals, on a real Orthanc: made once, never lost, deleted afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from orthanc_transfers.core.anonymize import Anonymization
from orthanc_transfers.core.errors import HostError, UnknownResource
from orthanc_transfers.core.model import Instance, Level, Manifest, Resource
from orthanc_transfers.interfaces import InstanceStore
from orthanc_transfers.rules import anonymized
from orthanc_transfers.rules.anonymized import REMEMBERED, AnonymizedCopies
from orthanc_transfers.rules.database import RuleDatabase
from tests.runtime.fake_time import FakeClock
from tests.support import dicom_data
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import StatusError
from tests.support.orthanc_server import OrthancServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc

WANTED = Anonymization("anonymize", {"Keep": ["StudyDescription"]})


class Store:
    """What Orthanc has, over HTTP."""

    def __init__(self, server: OrthancServer) -> None:
        self.server = server

    def manifest(self, resources: Sequence[Resource]) -> Manifest:
        if not self.exists(resources[0]):
            raise UnknownResource(resources[0].id)
        found = self.server.md5s(f"studies/{resources[0].id}")
        return Manifest(Instance(one, 1, md5) for one, md5 in found.items())

    def exists(self, resource: Resource) -> bool:
        return resource.id in self.server.get("studies")


class Copies:
    """The copies under test. ``dies``: the process ends before it hears what Orthanc made."""

    def __init__(self, server: OrthancServer, folder: Path) -> None:
        self.server = server
        self.clock = FakeClock()
        self.database = RuleDatabase(lambda: folder / "rules" / "rules.sqlite", self.clock)
        self.database.open()
        with self.database.writing() as writer:
            for statement in filter(str.strip, anonymized.SCHEMA.split(";")):
                writer.execute(statement)
        self.dies = False
        self.copies = self.start()

    def start(self) -> AnonymizedCopies:
        store = cast(InstanceStore, Store(self.server))
        return AnonymizedCopies(self.database, store, self.clock, self.get, self.post, self.delete)

    def get(self, path: str) -> bytes:
        return self.asked("GET", path)

    def post(self, path: str, body: Any) -> bytes:
        answer = self.asked("POST", path, data=bytes(body))
        if self.dies:
            raise KeyboardInterrupt
        return answer

    def delete(self, path: str) -> None:
        self.asked("DELETE", path)

    def asked(self, method: str, path: str, **options: Any) -> bytes:
        answer = self.server.request(method, path, **options)
        if answer.status_code != 200:
            raise HostError(f"{method} {path}: {answer.status_code}", 17 if answer.status_code == 404 else 1)
        return answer.content

    def make(
        self, entry: int, study: str, wanted: Anonymization, by: AnonymizedCopies | None = None
    ) -> Resource:
        """The study of the instances that are to be sent."""
        made = (by or self.copies).make(entry, study, wanted)
        (found,) = {self.server.get(f"instances/{one.id}/study")["ID"] for one in made}
        assert len({one.id for one in made}) == len(self.server.get(f"studies/{study}/instances"))
        return Resource(Level.STUDY, found)

    def entry(self, number: int, state: str) -> None:
        with self.database.writing() as writer:
            writer.execute(
                "INSERT OR REPLACE INTO entries (id, rule, destination, level, resource, epoch, origin, state, queued,"
                " queued_at) VALUES (?, 'r', '', 'Study', ?, 0, 'Manual', ?, 0, 0)",
                (number, str(number), state),
            )


@pytest.fixture(scope="module")
def server(make_shared_server: MakeServer) -> OrthancServer:
    return make_shared_server("a", script=None).start()


@pytest.fixture
def study(server: OrthancServer) -> str:
    """The only one that is stored, of four instances in two series."""
    server.clear()
    stored = server.upload_all(dicom_data.ct_study(4, size=16, series=2, name="Doe^Jane"))
    return str(stored[0]["ParentStudy"])


@pytest.fixture
def copies(server: OrthancServer, tmp_path: Path) -> Copies:
    return Copies(server, tmp_path)


def test_a_copy_is_made_once_and_deleted_once_its_entry_has_ended(copies: Copies, study: str) -> None:
    copies.entry(1, "Running")
    copy = copies.make(1, study, WANTED)
    tags = copies.server.get(f"studies/{copy.id}")
    assert tags["PatientMainDicomTags"]["PatientName"].startswith("Anonymized")
    assert tags["MainDicomTags"]["StudyDescription"] == "Made-up CT"
    assert len(copies.server.instances()) == 8
    copies.copies.sweep()
    copies.entry(1, "Waiting")
    # Another attempt, maybe of another process.
    assert copies.make(1, study, WANTED, copies.start()) == copy
    copies.entry(1, "Done")
    copies.copies.sweep()
    assert copies.server.get("studies") == [study]
    assert len(copies.server.instances()) == 4


def test_no_rule_takes_a_copy_for_something_new(copies: Copies, study: str) -> None:
    def levels(of: str) -> list[Resource]:
        series = copies.server.get(f"studies/{of}")["Series"][0]
        instance = copies.server.get(f"series/{series}")["Instances"][0]
        return [
            Resource(Level.STUDY, of),
            Resource(Level.SERIES, series),
            Resource(Level.INSTANCE, instance),
        ]

    originals = levels(study)
    assert not any(map(copies.copies.is_copy, originals))
    copies.entry(1, "Running")
    copy = copies.make(1, study, WANTED)
    made = levels(copy.id)
    for known in (copies.copies, copies.start()):
        assert all(map(known.is_copy, made))
        assert not any(map(known.is_copy, originals))
    copies.entry(1, "Done")
    copies.copies.sweep()
    # Orthanc may tell of it late.
    assert copies.copies.is_copy(copy)
    assert not copies.copies.is_copy(Resource(Level.STUDY, "0" * 8))
    copies.clock.advance(REMEMBERED + 1)
    copies.copies.sweep()
    assert not copies.copies.is_copy(copy)


def test_what_a_crash_left_is_found_by_its_uid(copies: Copies, study: str) -> None:
    copies.entry(1, "Running")
    copies.dies = True
    with pytest.raises(KeyboardInterrupt):
        copies.make(1, study, WANTED)
    copies.dies = False
    (left,) = set(copies.server.get("studies")) - {study}
    after = copies.start()
    assert after.is_copy(Resource(Level.STUDY, left))
    after.sweep()
    assert left in copies.server.get("studies")  # its entry is tried again
    copy = copies.make(1, study, WANTED, after)
    assert set(copies.server.get("studies")) == {study, copy.id}
    assert copy.id != left

    copies.dies = True
    copies.entry(2, "Running")
    with pytest.raises(KeyboardInterrupt):
        copies.make(2, study, WANTED)
    copies.dies = False
    copies.entry(1, "Dropped")
    copies.entry(2, "Dropped")
    copies.start().sweep()
    assert copies.server.get("studies") == [study]


def test_a_study_that_grew_is_copied_anew(copies: Copies, study: str) -> None:
    copies.entry(1, "Running")
    first = copies.make(1, study, Anonymization("modify", {"Replace": {"PatientName": "x"}}))
    uid = copies.server.get(f"studies/{study}")["MainDicomTags"]["StudyInstanceUID"]
    for data in dicom_data.ct_study(1, size=16, name="Doe^Jane"):
        other = copies.server.upload(data)
    # The same patient and study: one instance more.
    more = copies.server.request(
        "POST",
        f"instances/{other['ID']}/modify",
        json={"Replace": {"StudyInstanceUID": uid, "PatientID": "DOE-JANE"}, "Force": True},
    ).content
    copies.server.upload(more)
    copies.server.delete(f"studies/{other['ParentStudy']}")
    second = copies.make(1, study, Anonymization("modify", {"Replace": {"PatientName": "x"}}))
    assert second != first
    assert set(copies.server.get("studies")) == {study, second.id}
    assert len(copies.server.get(f"studies/{second.id}/instances")) == 5


def test_a_copy_that_was_made_as_its_rule_was_before_is_not_sent(copies: Copies, study: str) -> None:
    copies.entry(1, "Running")
    before = copies.make(1, study, WANTED)
    copy = copies.make(1, study, Anonymization("anonymize", {}))
    assert set(copies.server.get("studies")) == {study, copy.id}
    assert copy != before
    assert "StudyDescription" not in copies.server.get(f"studies/{copy.id}")["MainDicomTags"]


def test_what_orthanc_refuses_is_said(copies: Copies, study: str) -> None:
    copies.entry(1, "Running")
    with pytest.raises(HostError, match=f"Orthanc cannot anonymize study {study} as its rule says"):
        copies.make(1, study, Anonymization("anonymize", {"Keep": ["No tag"]}))
    copies.entry(1, "Failed")
    copies.copies.sweep()
    assert copies.server.get("studies") == [study]
    with pytest.raises(UnknownResource):
        copies.make(1, "0" * 8, WANTED)


def test_one_that_is_gone_already_is_no_error(copies: Copies, study: str) -> None:
    copies.entry(1, "Running")
    copy = copies.make(1, study, WANTED)
    copies.server.delete(f"studies/{copy.id}")
    with pytest.raises(StatusError):
        copies.server.get(f"studies/{copy.id}")
    copies.entry(1, "Done")
    copies.copies.sweep()
    copies.copies.sweep()
    assert copies.server.get("studies") == [study]


def test_what_orthanc_makes_once_more_is_not_sent_and_is_deleted(copies: Copies, study: str) -> None:
    copies.entry(1, "Running")
    copy = copies.make(1, study, WANTED)
    uid = copies.server.get(f"studies/{copy.id}")["MainDicomTags"]["StudyInstanceUID"]
    patient = copies.server.get(f"studies/{copy.id}")["PatientMainDicomTags"]["PatientID"]

    def again() -> None:
        """As an Orthanc does that was killed before it had saved that its job had ended."""
        request = {**WANTED.request(uid), "Replace": {"StudyInstanceUID": uid, "PatientID": patient}}
        copies.server.post(f"studies/{study}/anonymize", request)

    again()
    assert len(copies.server.get(f"studies/{copy.id}/instances")) == 8
    after = copies.start()
    assert len(after.make(1, study, WANTED)) == 4
    copies.entry(1, "Done")
    after.sweep()
    assert copies.server.get("studies") == [study]
    again()
    copies.start().sweep_later()
    wait_until(lambda: copies.server.get("studies") == [study], "what was made again to be deleted")
