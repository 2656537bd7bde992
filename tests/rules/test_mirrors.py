"""What a mirror knows of its destinations: only what no power failure takes from the index here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from orthanc_transfers.core.errors import HostError
from orthanc_transfers.core.mirror import Difference, Record
from orthanc_transfers.rules import comparison_runs, mirror_records
from orthanc_transfers.rules.book import RuleBook
from orthanc_transfers.rules.database import RuleDatabase
from orthanc_transfers.rules.intake import Intake
from orthanc_transfers.rules.mirrors import Mirrors
from orthanc_transfers.rules.queue import Queue
from tests.rules.test_finishing import ENTRY
from tests.runtime.fake_time import FakeClock

SENT = replace(ENTRY, job="job")


class World:
    def __init__(self, folder: Path, *, shared: bool) -> None:
        clock = FakeClock()
        self.database = RuleDatabase(
            lambda: folder / "rules" / "rules.sqlite",
            clock,
            (mirror_records.SCHEMA, comparison_runs.SCHEMA),
            shared=shared,
        )
        self.database.open()
        self.book = RuleBook([], self.database, clock.now)
        self.queue = Queue(self.database, clock)
        self.services = Mock(clock=clock)
        self.services.reports.read.return_value = {
            "Instances": [{"ID": "i", "Size": 10, "MD5": "md5", "Outcome": "stored"}]
        }
        args: Any = (self.services, self.book, self.queue, self.database, Mock(), Mock(), Mock(), Mock())
        self.mirrors = Mirrors(*args)
        self.records = mirror_records.MirrorRecords(self.database)

    @property
    def record(self) -> Record | None:
        return self.records.record("b", SENT.resource.id)


@pytest.fixture(params=[False, True], ids=["own", "shared"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(tmp_path, shared=request.param)


def test_what_was_sent_is_on_this_disk_before_its_absence_counts_as_a_deletion(world: World) -> None:
    seen: list[Record | None] = []
    world.services.store.sync.side_effect = lambda: seen.append(world.record)
    world.mirrors.sent(SENT)
    assert seen == [None]
    assert world.record is not None
    assert world.record.ours


def test_what_is_not_on_this_disk_is_not_known_to_be_there(world: World) -> None:
    world.services.store.sync.side_effect = HostError("full", 1)
    with pytest.raises(HostError):
        world.mirrors.sent(SENT)
    assert world.record is None


def look(world: World, monkeypatch: pytest.MonkeyPatch, found: Difference) -> None:
    """What is there is looked at, and all of it is there."""

    @contextmanager
    def comparison(_: Mirrors, __: str) -> Iterator[Mock]:
        yield Mock(**{"studies.return_value": [found]})

    monkeypatch.setattr(Mirrors, "_comparison", comparison)
    assert world.mirrors.is_there("b", SENT.resource)


def test_what_an_index_of_before_lacks_was_not_deleted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.mirrors.sent(SENT)

    def start(last_change: int) -> bool:
        orthanc = Mock(**{"last_change.return_value": last_change})
        intake = Intake(world.book, world.queue, world.database, orthanc, Mock(), world.records.disown)
        intake.begin()
        intake.skip()
        assert world.record is not None
        return world.record.ours

    assert [start(7), start(9), start(8), start(10)] == [True, True, False, False]
    assert world.records.page("b", "", 10) == []
    # But what it has as it was sent may be deleted here, and there, from then on.
    assert world.record is not None
    look(world, monkeypatch, Difference(SENT.resource.id, world.record.fingerprint, 1, 0, 0, 0))
    assert world.records.page("b", "", 10) == [SENT.resource.id]


def test_what_an_index_of_before_has_in_part_was_not_deleted_either(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.mirrors.sent(SENT)
    world.records.disown()
    look(world, monkeypatch, Difference(SENT.resource.id, "a part of it", 1, 0, 0, 0))
    assert world.records.page("b", "", 10) == []


def test_what_was_deleted_here_is_known_until_it_was_deleted_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.mirrors.sent(SENT)
    before = world.record
    look(world, monkeypatch, Difference(SENT.resource.id, "less", 1, 0, 0, 0, deleted=("x",)))
    assert world.record == before
