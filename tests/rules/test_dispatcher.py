"""The thread that works the queue off, turn by turn, with an Orthanc that only says what was submitted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from orthanc_transfers.core.messages_v1 import TransferRequest
from orthanc_transfers.core.model import Level, Resource
from orthanc_transfers.core.rule_entry import ACTIVE, ENDED, EntryState
from orthanc_transfers.core.rule_filter import Facts
from orthanc_transfers.core.transfer_record import PUSH, SEND, TransferRecord, TransferState
from orthanc_transfers.interfaces import QueuedJob
from orthanc_transfers.rules.book import RuleBook
from orthanc_transfers.rules.database import RuleDatabase
from orthanc_transfers.rules.dispatcher import LOOK, PATIENCE, Dispatcher
from orthanc_transfers.rules.events import Events
from orthanc_transfers.rules.matching import Matching
from orthanc_transfers.rules.orthanc import LocalOrthanc
from orthanc_transfers.rules.queue import Changes, Queue
from orthanc_transfers.rules.running import RunningJobs
from tests.runtime.fake_time import FakeClock

CLOSED = [{"From": "00:00", "To": "00:01", "Days": "Mon"}]
OPEN: list[dict[str, str]] = []


class Engine:
    """What rules submitted to Orthanc, by the names of transfers; and what they asked of it."""

    def __init__(self) -> None:
        self.sent: dict[str, TransferRequest] = {}
        self.paused: set[str] = set()
        self.waiting_since: dict[str, float] = {}
        self.asked: list[tuple[str, str]] = []

    def send(self, wanted: TransferRequest, *, follow: bool, durable: bool) -> dict[str, str]:
        assert follow
        assert not durable
        assert wanted.sender_transfer_id is not None
        self.sent[wanted.sender_transfer_id] = wanted
        return {"ID": f"job {wanted.sender_transfer_id}"}

    def record(self, transfer: str, state: TransferState, **more: Any) -> TransferRecord:
        wanted = self.sent[transfer]
        return TransferRecord(
            id=f"job {transfer}",
            direction=SEND,
            mode=PUSH,
            peer=wanted.peer,
            state=state,
            waiting_since=self.waiting_since.get(transfer),
            order=wanted.to_json(),
            **more,
        )

    def jobs(self) -> list[QueuedJob]:
        found = []
        for transfer in self.sent:
            waits = transfer in self.waiting_since
            job = Mock()
            job.record.return_value = self.record(
                transfer, TransferState.WAITING if waits else TransferState.RUNNING
            )
            name = f"job {transfer}"
            found.append(QueuedJob(name, job, paused=name in self.paused, parked=waits))
        return found

    def command(self, identifier: str, name: str) -> bytes:
        self.asked.append((identifier, name))
        if name == "pause":
            self.paused.add(identifier)
        elif name == "resume":
            self.paused.discard(identifier)
        return b"{}"


class World:
    """All that a dispatcher works with."""

    def __init__(
        self,
        folder: Path,
        *,
        start: Callable[[str, Callable[[], None]], object] = lambda _, target: target(),
        shared: bool = False,
        **keys: Any,
    ) -> None:
        self.clock = FakeClock()
        self.database = RuleDatabase(lambda: folder / "rules" / "rules.sqlite", self.clock, shared=shared)
        self.database.open()
        self.rule = {"Name": "all", "Trigger": "StableStudy", "Destinations": ["b"], **keys}
        self.book = RuleBook([self.rule], self.database, self.clock.now)
        self.book.load(0)
        self.queue = Queue(self.database, self.clock)
        self.engine = Engine()
        orthanc = LocalOrthanc(lambda _: json.dumps({"LastUpdate": "then"}).encode(), Mock(), Mock(), Mock())
        facts = Mock()
        facts.facts.return_value = Facts()
        self.reports = reports = Mock()
        reports.read.return_value = None
        store = Mock()
        store.exists.return_value = True
        self.dispatcher = Dispatcher(
            self.book,
            self.queue,
            self.database,
            lambda now, wake: RunningJobs(
                self.engine,  # type: ignore[arg-type]
                self.engine,  # type: ignore[arg-type]
                reports,
                now,
                wake,
                Mock(),
                Mock(),
                start=start,
            ),
            Matching(facts),
            orthanc,
            Mock(),
            Events(self.queue, self.book),
            store,
            self.clock,
            max_jobs=2,
            retention_days=30,
            look=lambda: False,
        )
        self.dispatcher._started = True

    def put(self, **keys: Any) -> None:
        """Add another rule, or change it."""
        body = {"Name": "moved", "Trigger": "StableStudy", **keys}
        rule = self.book.put(body, 0, new=self.book.rule("moved") is None)
        with self.queue.changing() as changes:
            self.queue.follow(changes, rule)
        self.dispatcher.rules_changed()

    def add(self, *names: str, to: str = "all") -> None:
        rule = self.book.rule(to)
        assert rule is not None
        with self.queue.changing() as changes:
            for name in names:
                resource = Resource(Level.STUDY, "-".join([name.encode().hex().rjust(8, "0")] * 5))
                self.queue.add(changes.writer, rule, resource, "StableStudy")

    def turn(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        for _ in range(20):
            if self.dispatcher._turn() != 0.0:
                return
        raise AssertionError("it never comes to rest")

    def end(self, transfer: str, state: TransferState = TransferState.SUCCESS, **more: Any) -> None:
        self.dispatcher.ended(self.engine.record(transfer, state, **more))
        del self.engine.sent[transfer]

    def states(self) -> list[str]:
        entries = self.queue.page([*ACTIVE, *ENDED], None, 100, 0)[1]
        return [one.state.value for one in sorted(entries, key=lambda one: one.id)]


@pytest.fixture(params=[False, True], ids=["own", "shared"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """Its database is on a disk of its own, or on one that several machines share."""
    return World(tmp_path, shared=request.param)


def test_no_more_at_once_than_allowed_and_the_next_as_one_ends(world: World) -> None:
    world.add("1", "2", "3")
    world.turn()
    assert world.states() == ["Running", "Running", "Waiting"]
    first, _ = world.engine.sent
    world.end(first)
    world.turn()
    assert world.states() == ["Done", "Running", "Running"]
    for transfer in list(world.engine.sent):
        world.end(transfer)
    world.turn()
    assert world.states() == ["Done"] * 3


def test_a_peer_that_is_away_gets_one_at_a_time_until_it_is_back(world: World) -> None:
    world.add("1", "2", "3")
    world.turn()
    for transfer in list(world.engine.sent):
        world.end(transfer, TransferState.FAILURE, peer_failed=True, error="refused")
    world.turn()
    assert (world.states(), len(world.engine.sent)) == (["Waiting"] * 3, 0)
    world.turn(6)
    assert len(world.engine.sent) == 1
    (only,) = world.engine.sent
    world.end(only)
    world.turn()
    assert len(world.engine.sent) == 2


def test_outside_its_window_a_job_is_paused_and_goes_on_within(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.add("1", "2", "3")
    world.turn()
    world.book.put({**world.rule, "Window": CLOSED}, 0)
    world.turn(LOOK)
    assert [name for _, name in world.engine.asked] == ["pause", "pause"]
    assert [one.held for one in world.queue.in_state(EntryState.RUNNING)] == [True, True]
    world.book.put({**world.rule, "Window": OPEN}, 0)
    world.turn(LOOK)
    assert [name for _, name in world.engine.asked] == ["pause", "pause", "resume", "resume"]
    assert not any(one.held for one in world.queue.in_state(EntryState.RUNNING))


def test_what_a_user_paused_is_not_resumed_and_what_a_user_resumed_is_not_paused(world: World) -> None:
    world.add("1", "2")
    world.turn()
    first, second = (f"job {name}" for name in world.engine.sent)
    world.engine.paused.add(first)
    world.book.put({**world.rule, "Window": CLOSED}, 0)
    world.turn(LOOK)
    assert world.engine.asked == [(second, "pause")]
    world.engine.paused.discard(second)
    world.turn(LOOK + 1)
    world.turn(LOOK)
    world.book.put(world.rule, 0)
    world.turn(LOOK)
    assert world.engine.asked == [(second, "pause")]


def test_a_job_that_a_user_paused_takes_no_place(world: World) -> None:
    world.add("1", "2", "3")
    world.turn()
    world.engine.paused.add(f"job {next(iter(world.engine.sent))}")
    world.turn(LOOK)
    assert world.states() == ["Running"] * 3


def test_a_destination_that_is_not_there_is_left_for_the_next_one(tmp_path: Path) -> None:
    world = World(tmp_path, Destinations=["b", "c"])
    world.add("1")
    world.turn()
    ((transfer, wanted),) = world.engine.sent.items()
    assert wanted.peer == "b"
    world.engine.waiting_since[transfer] = world.clock.now()
    world.turn(PATIENCE + 1)
    assert world.engine.asked == [(f"job {transfer}", "cancel")]
    world.end(transfer, TransferState.CANCELED)
    world.turn()
    ((_, wanted),) = world.engine.sent.items()
    assert wanted.peer == "c"


def test_an_end_that_cannot_be_written_down_is_written_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add("1", "2", "3")
    world.turn()
    first, second = world.engine.sent

    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Changes, "set", full)
        world.end(first)
        with pytest.raises(sqlite3.OperationalError):
            world.turn()
    assert world.states() == ["Running", "Running", "Waiting"]
    world.turn()
    assert world.states() == ["Done", "Running", "Running"]
    assert second in world.engine.sent


def test_a_job_that_a_user_canceled_is_not_sent_again(world: World) -> None:
    world.add("1")
    world.turn()
    world.end(*world.engine.sent, TransferState.CANCELED)
    world.turn(10_000)
    assert world.states() == ["Dropped"]


def test_a_job_that_is_gone_is_submitted_again(world: World) -> None:
    world.add("1")
    world.turn()
    before = list(world.engine.sent)
    world.engine.sent.clear()
    world.turn(LOOK)
    world.turn()
    assert world.states() == ["Running"]
    assert list(world.engine.sent) != before


def test_the_job_of_what_runs_is_known_before_its_end(world: World) -> None:
    world.add("1")
    world.turn()
    (entry,) = world.queue.in_state(EntryState.RUNNING)
    (transfer,) = world.engine.sent
    assert entry.job is None
    assert world.dispatcher.job(entry) == f"job {transfer}"
    world.end(transfer)
    world.turn()
    (ended,) = world.queue.page([*ENDED, *ACTIVE], None, 10, 0)[1]
    assert world.dispatcher.job(ended) == ended.job == f"job {transfer}"


def test_the_end_of_a_job_is_told_once_its_identifier_is_known(tmp_path: Path) -> None:
    started: list[Callable[[], None]] = []
    world = World(tmp_path, start=lambda _, target: started.append(target))
    world.add("1")
    world.turn()
    (submit,) = started
    send = world.engine.send

    def send_and_end(wanted: TransferRequest, **keys: Any) -> dict[str, str]:
        answer = send(wanted, **keys)
        # So quick that it ends before its submission has returned.
        world.end(str(wanted.sender_transfer_id))
        world.turn()
        assert world.states() == ["Running"]
        return answer

    world.engine.send = send_and_end  # type: ignore[method-assign]
    submit()
    world.turn()
    (ended,) = world.queue.page([*ENDED, *ACTIVE], None, 10, 0)[1]
    assert (ended.state, ended.job) == (EntryState.DONE, f"job {ended.transfer}")


def test_what_cannot_be_submitted_is_tried_again(world: World) -> None:
    def refuse(*_: Any, **__: Any) -> dict[str, str]:
        raise RuntimeError("a mistake")

    world.engine.send = refuse  # type: ignore[method-assign]
    world.add("1")
    world.turn()
    world.turn()
    (entry,) = world.queue.in_state(EntryState.WAITING)
    assert entry.said == "an internal error, see Orthanc's log"
    assert entry.refusals == 1


@pytest.mark.parametrize("deliver", ["All", "First"])
def test_what_ran_while_its_rule_was_changed_goes_where_the_rule_sends_now(
    world: World, deliver: str
) -> None:
    world.put(Destinations=["away"], Deliver=deliver)
    world.add("1", to="moved")
    world.turn()
    (transfer,) = world.engine.sent
    world.put(Destinations=["c", "d"], Deliver="All")
    world.turn()
    world.end(transfer, TransferState.FAILURE, peer_failed=True)
    world.turn()
    assert sorted(one.peer for one in world.engine.sent.values()) == ["c", "d"]
    assert world.states() == ["Dropped", "Running", "Running"]


def test_what_waits_for_a_peer_that_its_rule_has_no_longer_is_sent_elsewhere_at_once(world: World) -> None:
    world.put(Destinations=["away"], Deliver="All")
    world.add("1", to="moved")
    world.turn()
    (transfer,) = world.engine.sent
    world.engine.waiting_since[transfer] = world.clock.now()
    world.turn(LOOK)
    assert world.engine.asked == []
    world.put(Destinations=["c"], Deliver="All")
    world.turn()
    assert world.engine.asked == [(f"job {transfer}", "cancel")]
    world.end(transfer, TransferState.CANCELED)
    world.turn()
    assert [one.peer for one in world.engine.sent.values()] == ["c"]


def test_a_report_is_on_the_disk_before_anything_is_done_that_relies_on_it(tmp_path: Path) -> None:
    world = World(tmp_path, After={"Delete": True})
    world.add("1")
    world.turn()
    (transfer,) = world.engine.sent
    synced: list[str] = []
    world.reports.read.return_value = {"ID": "its own"}

    def sync(identifier: str) -> None:
        assert world.states() == ["Running"]
        synced.append(identifier)

    world.reports.sync = sync
    world.end(transfer)
    world.turn()
    assert synced == [transfer, "its own"]
    assert world.states() == ["Finishing"]
