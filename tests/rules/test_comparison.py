"""Studies here and on a peer are compared by the MD5s of their instances."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from orthanc_transfers.core.errors import PeerError, PeerStatus, UnknownResource
from orthanc_transfers.core.mirror import Record
from orthanc_transfers.core.model import Instance, Manifest, Resource
from orthanc_transfers.interfaces import InstanceStore, PeerRequest, PeerResponse, PeerTransport
from orthanc_transfers.rules import mirror_records
from orthanc_transfers.rules.comparison import FEW, Comparison, DeletedStudy, Gone
from orthanc_transfers.rules.database import RuleDatabase
from orthanc_transfers.rules.mirror_records import MirrorRecords
from orthanc_transfers.runtime.cancellation import Cancellation
from tests.runtime.fake_time import FakeClock

Studies = dict[str, dict[str, str]]
"""MD5 by instance, by study."""


class Here:
    def __init__(self, studies: Studies) -> None:
        self.studies = studies

    def manifest(self, resources: Sequence[Resource], cancellation: Cancellation) -> Manifest:
        (study,) = resources
        if study.id not in self.studies:
            raise UnknownResource(study.id)
        return Manifest(instances(self.studies[study.id]))

    def exists(self, resource: Resource) -> bool:
        return resource.id in self.studies


class There:
    """``kind``: ``v2``, ``v1`` (all or nothing), ``none`` (without a plugin)."""

    name = "b"

    def __init__(self, studies: Studies, kind: str = "v2") -> None:
        self.studies, self.kind = studies, kind
        self.lookups = 0

    def send(self, request: PeerRequest) -> PeerResponse:
        if request.method == "DELETE":
            identifier = request.path.removeprefix("/instances/")
            for study in self.studies.values():
                if study.pop(identifier, None):
                    return PeerResponse(b"{}")
            raise PeerStatus("there is no such instance", self.name, 404)
        wanted = [one["ID"] for one in json.loads(b"".join(request.body))]
        self.lookups += 1
        known = [one for one in wanted if one in self.studies]
        whole = known == wanted or (self.kind == "v2" and "transfers-stored" in request.headers)
        if self.kind == "none" or not whole:
            raise PeerStatus("unknown", self.name, 404)
        # In an order of its own.
        rows = [one for study in reversed(known) for one in reversed(instances(self.studies[study]))]
        found = [{"ID": one.id, "Size": str(one.size), "MD5": one.md5} for one in rows]
        return PeerResponse(json.dumps({"Instances": found, "Originator": "x"}).encode())


def instances(study: dict[str, str]) -> list[Instance]:
    return [Instance(name, 10, md5) for name, md5 in sorted(study.items())]


@pytest.fixture
def records(tmp_path: Path) -> MirrorRecords:
    database = RuleDatabase(lambda: tmp_path / "rules" / "rules.sqlite", FakeClock())
    database.open()
    with database.writing() as writer:
        for statement in mirror_records.SCHEMA.split(";"):
            writer.execute(statement)
    return MirrorRecords(database)


def compared(here: Studies, there: There, records: MirrorRecords) -> Comparison:
    return Comparison(cast(InstanceStore, Here(here)), cast(PeerTransport, there), records, Cancellation())


def sent(records: MirrorRecords, study: str, was: dict[str, str], *, ours: bool = True) -> None:
    with records._database.writing() as writer:
        records.keep(writer, "b", study, Record(Manifest(instances(was)).fingerprint(), ours))


HERE: Studies = {"s1": {"a": "1", "b": "1"}, "s2": {"c": "1"}, "s3": {"d": "1"}}


@pytest.mark.parametrize(("kind", "lookups"), [("v2", 1), ("v1", 4)])
def test_a_page_is_one_lookup_where_the_peer_can_do_that(
    records: MirrorRecords, kind: str, lookups: int
) -> None:
    there = There({"s1": {"a": "1"}, "s2": {"c": "2"}, "elsewhere": {"z": "1"}}, kind)
    found = compared(HERE, there, records).studies([*HERE, "deleted meanwhile"])
    assert [(one.study, one.missing, one.different) for one in found] == [
        ("s1", 1, 0),
        ("s2", 0, 1),
        ("s3", 1, 0),
    ]
    assert there.lookups == lookups


def test_what_the_peer_has_besides_is_seen(records: MirrorRecords) -> None:
    sent(records, "s1", {"a": "1", "b": "1", "x": "1"})
    there = There({"s1": {"a": "1", "b": "1", "x": "1"}, "s2": {"c": "1", "y": "1"}})
    one, two, _ = compared(HERE, there, records).studies(list(HERE))
    assert one.equal
    assert one.deleted == ("x",)
    assert two.equal
    assert two.deleted == ()


def test_a_peer_without_a_plugin_is_named(records: MirrorRecords) -> None:
    compared({}, There({}, "v1"), records).prepare()
    with pytest.raises(PeerError, match=r"peer b cannot be compared with.*load one there"):
        compared({}, There({}, "none"), records).prepare()


def test_studies_that_were_sent_and_are_gone(records: MirrorRecords) -> None:
    sent(records, "s0", {"x": "1", "y": "1"})
    sent(records, "s1", HERE["s1"])
    sent(records, "s5", {"z": "1"}, ours=False)
    sent(records, "s6", {"v": "1"})
    sent(records, "s7", {"w": "1"})
    there = There({"s0": {"x": "1", "y": "1"}, "s6": {"v": "1", "new": "1"}})
    comparison = compared(HERE, there, records)
    gone, after = Gone(), ""
    while (following := comparison.sent_studies(after, 2, gone)) is not None:
        after = following
    assert (gone.sent, gone.gone) == (4, ["s0", "s6", "s7"])
    assert comparison.deleted("s0") == DeletedStudy("s0", ("x", "y"), False)
    assert comparison.deleted("s6") == DeletedStudy("s6", (), True)
    assert comparison.deleted("s7") == DeletedStudy("s7", (), False)
    # It is there no longer: nothing is known of it any more.
    assert records.record("b", "s7") is None
    comparison.deleted("s0")
    comparison.delete("s0", ["x", "y", "deleted before"])
    assert there.studies["s0"] == {}


class Cut(There):
    """Whose connection is cut after some requests to delete."""

    left = 1

    def send(self, request: PeerRequest) -> PeerResponse:
        if request.method == "DELETE":
            self.left -= 1
            if self.left < 0:
                raise PeerError("cut", self.name)
        return super().send(request)


@pytest.mark.parametrize("kept", [{}, {"w": "1"}], ids=["a study", "a part"])
def test_a_deletion_that_was_cut_short_goes_on(records: MirrorRecords, kept: dict[str, str]) -> None:
    was = {**kept, "x": "1", "y": "1", "z": "1"}
    sent(records, "s0", was)
    there = Cut({"s0": dict(was)})
    here: Studies = {"s0": kept} if kept else {}

    def deleted() -> tuple[str, ...]:
        comparison = compared(here, there, records)
        found = comparison.studies(["s0"])[0].deleted if kept else comparison.deleted("s0").instances
        comparison.delete("s0", found)
        return found

    with pytest.raises(PeerError):
        deleted()
    there.left = 10
    assert deleted() == ("y", "z")
    assert there.studies["s0"] == kept


def test_what_came_there_while_a_deletion_was_cut_short_stays(records: MirrorRecords) -> None:
    sent(records, "s0", {"x": "1", "y": "1"})
    there = Cut({"s0": {"x": "1", "y": "1"}})
    comparison = compared({}, there, records)
    with pytest.raises(PeerError):
        comparison.delete("s0", comparison.deleted("s0").instances)
    there.studies["s0"]["new"] = "1"
    assert compared({}, there, records).deleted("s0") == DeletedStudy("s0", (), True)


def test_a_lost_index_does_not_look_like_deletions() -> None:
    assert not Gone(1, ["s"]).suspicious
    assert not Gone(FEW, ["s"] * FEW).suspicious
    assert Gone(FEW + 1, ["s"] * (FEW + 1)).suspicious
    assert not Gone(1000, ["s"] * 500).suspicious
    assert Gone(1000, ["s"] * 501).suspicious


def test_what_was_tried_is_known(records: MirrorRecords) -> None:
    assert records.tried("b", "s1") is None
    with records._database.writing() as writer:
        records.keep_tried(writer, "b", "s1", "f1")
    assert records.tried("b", "s1") == "f1"
    assert records.record("b", "s1") is None
    assert records.page("b", "", 10) == []
    sent(records, "s1", HERE["s1"])
    assert records.tried("b", "s1") == "f1"
    assert records.page("b", "", 10) == ["s1"]


def test_errors_of_the_peer_are_not_taken_for_absence(records: MirrorRecords) -> None:
    class Broken(There):
        def send(self, request: PeerRequest) -> Any:
            raise PeerStatus("broken", self.name, 500)

    comparison = compared(HERE, Broken({}), records)
    for attempt in (comparison.prepare, lambda: comparison.studies(["s1"]), lambda: comparison.deleted("s1")):
        with pytest.raises(PeerStatus):
            attempt()
