"""Staging folders of the version before the packages are reopened."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.model import Instance, Manifest, PushState
from orthanc_transfers.core.ranges import Range, RangeSet
from tests.compatibility.recorded import COMMITTING, ENDED, PULLS, PUSHES, Recorded
from tests.receiver.memory_receiver import running_receiver


def missing(manifest: Manifest, staged: dict[str, Any]) -> list[Range]:
    """What the earlier version would have asked for."""
    there = RangeSet(Range(start, stop) for start, stop in staged["Have"])
    for index in staged["Stored"]:
        there.add(manifest.range_of(manifest.instances[index].id))
    return list(there.missing(Range(0, manifest.size)))


@pytest.mark.parametrize("recorded", [*PUSHES, *PULLS], ids=str)
def test_what_was_being_received_is_found_by_its_token_and_misses_what_it_missed(
    recorded: Recorded, tmp_path: Path
) -> None:
    staged = recorded.staged
    manifest = Manifest(Instance(*row) for row in staged["Instances"])
    assert {instance.id: instance.md5 for instance in manifest} == recorded.md5s
    root = recorded.unpack(recorded.receiver, tmp_path / "storage") / "Transfers"
    with running_receiver(root) as receiver:
        found = receiver.registry.find(staged["Kind"], staged["Token"])
        assert found is not None
        assert (found.id, found.state) == (staged["ID"], PushState.RECEIVING)
        assert list(found.manifest) == list(manifest)
        assert found.missing() == missing(manifest, staged)
        assert not list(root.glob("set-aside"))


def test_an_import_that_was_interrupted_is_known_as_such(tmp_path: Path) -> None:
    staged = COMMITTING.staged
    root = COMMITTING.unpack("b", tmp_path / "storage") / "Transfers"
    with running_receiver(root) as receiver:
        found = receiver.registry.find("push", staged["Token"])
        assert found is not None
        assert found.state is PushState.COMMITTING
        (area,) = root.glob("*/area")
        data = area.read_bytes()
        for instance in found.manifest:
            item = found.manifest.range_of(instance.id)
            if found.manifest.instances.index(instance) not in staged["Stored"]:
                assert hashlib.md5(data[item.start : item.stop]).hexdigest() == instance.md5


def test_an_outcome_is_remembered(tmp_path: Path) -> None:
    staged = ENDED.staged
    root = ENDED.unpack("b", tmp_path / "storage") / "Transfers"
    with running_receiver(root) as receiver:
        found = receiver.registry.find("push", staged["Token"])
        assert found is not None
        assert found.state is PushState.COMMITTED
        # Asked to commit again, it has nothing to do and tells the same.
        assert found.commit().to_json() == staged["Outcome"]["Report"]
        assert not receiver.store.added


@pytest.mark.parametrize("server", ["a", "b"])
def test_commit_reports_are_found_by_all_their_names(server: str, tmp_path: Path) -> None:
    root = ENDED.unpack(server, tmp_path / "storage") / "Transfers"
    with running_receiver(root) as receiver:
        names = {"a": ENDED.job, "b": ENDED.saved["Token"]}
        reports = [
            receiver.reports.read(name)
            for name in (ENDED.staged["ID"], ENDED.saved["SenderTransferID"], names[server])
        ]
        assert reports[0] is not None
        assert {one["ID"]: one["MD5"] for one in reports[0]["Instances"]} == ENDED.md5s
        assert reports[1:] == reports[:1] * 2
