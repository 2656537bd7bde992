"""Jobs of servers that are gone go on at others: the table, on a real PostgreSQL, with jobs that do nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import psycopg
import pytest

from orthanc_transfers.cluster.connection import connection_string
from orthanc_transfers.cluster.database import Database
from orthanc_transfers.cluster.job_keeper import JobKeeper
from orthanc_transfers.cluster.schema import prepare
from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.core.transfer_record import TransferState
from orthanc_transfers.interfaces import Job, JobQueue, QueuedJob
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import wait_until


@dataclass
class Record:
    state: TransferState


@dataclass
class FakeJob:
    saved: dict[str, Any]
    state: TransferState = TransferState.RUNNING
    type: str = "PushTransfer"
    handed_over: bool = False

    def record(self) -> Record | None:
        return None if self.handed_over else Record(self.state)

    def serialized(self) -> dict[str, Any]:
        return {**self.saved, "Progress": 0.5}

    def hand_over(self) -> dict[str, Any]:
        self.handed_over = True
        return self.saved


@dataclass
class Queue:
    """Of one server."""

    name: str
    found: dict[str, FakeJob] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    parked: set[str] = field(default_factory=set)
    """Orthanc has paused these, too."""
    commands: list[tuple[str, str]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def jobs(self) -> list[QueuedJob]:
        return [
            QueuedJob(name, cast(Job, job), name in self.paused | self.parked, name in self.parked)
            for name, job in self.found.items()
        ]

    def submit(self, job: FakeJob, priority: int) -> str:
        identifier = f"{self.name}-{next(self._numbers)}"
        self.found[identifier] = job
        return identifier

    def command(self, identifier: str, name: str) -> bytes:
        self.commands.append((identifier, name))
        return b""

    def add(self, token: str, **more: Any) -> str:
        return self.submit(FakeJob({"Token": token, "Priority": 3, **more}), 3)

    @property
    def tokens(self) -> set[str]:
        return {job.saved["Token"] for job in self.found.values() if not job.handed_over}


def reload(kind: str, saved: dict[str, Any]) -> Job:
    if saved.get("Peer") == "bad":
        raise BadRequest("no such peer")
    return cast(Job, FakeJob(saved, type=kind))


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(connection_string(settings.cluster.connection_uri, None))
    prepare(database)
    yield database
    database.close()


Keep = Callable[[Queue], JobKeeper]


@pytest.fixture
def keep(database: Database) -> Keep:
    return lambda queue: JobKeeper(
        database, queue.name, cast(JobQueue, queue), reload, adopt_after=600.0, steady=0.0
    )


@pytest.fixture
def away(settings: Settings) -> Callable[[str], None]:
    """Makes a server one that was last seen an hour ago, or longer."""

    def away(server: str, since: str = "1 hour") -> None:
        with psycopg.connect(settings.cluster.connection_uri, autocommit=True) as connection:
            connection.execute(
                "UPDATE orthanc_transfers.servers SET seen = now() - %s::interval WHERE name = %s",
                (since, server),
            )

    return away


def test_the_jobs_of_a_server_that_is_gone_go_on_at_another(keep: Keep, away: Callable[[str], None]) -> None:
    a, b = Queue("a"), Queue("b")
    one, two, three = a.add("one", Resources=["x"]), a.add("two"), a.add("three")
    a.paused.add(two)
    a.found[three].state = TransferState.SUCCESS
    keep(a).look()
    keep(b).look()
    assert b.tokens == set()
    away("a")
    keeper = keep(b)
    keeper.look()
    assert b.tokens == {"one", "two"}
    (paused,) = b.commands
    assert (b.found[paused[0]].saved["Token"], paused[1]) == ("two", "pause")
    assert a.found[one].saved in [job.saved for job in b.found.values()]
    keeper.look()
    assert len(b.found) == 2
    assert keeper_of_nobody_else_takes_them(keep)


def test_what_waits_for_its_peer_is_not_paused_where_it_goes_on(
    keep: Keep, away: Callable[[str], None]
) -> None:
    a, b = Queue("a"), Queue("b")
    a.parked.add(a.add("one"))
    keep(a).look()
    away("a")
    keep(b).look()
    assert b.tokens == {"one"}
    assert b.commands == []


def keeper_of_nobody_else_takes_them(keep: Keep) -> bool:
    c = Queue("c")
    keep(c).look()
    return c.tokens == set()


def test_a_server_that_comes_back_hands_its_jobs_over(keep: Keep, away: Callable[[str], None]) -> None:
    a, b = Queue("a"), Queue("b")
    one = a.add("one")
    keeper = keep(a)
    keeper.look()
    away("a")
    keep(b).look()
    again = Queue("a", found=dict(a.found))
    again.found["a-new"] = FakeJob({"Token": "new", "Priority": 0})
    keeper = keep(again)
    keeper.look()
    assert again.found[one].handed_over
    assert again.commands == [(one, "cancel")]
    assert not again.found["a-new"].handed_over
    keeper.look()
    assert len(again.commands) == 1


def test_what_a_server_left_that_never_comes_back_is_deleted_some_day(
    keep: Keep, away: Callable[..., None], database: Database
) -> None:
    gone, here, idle = Queue("pod-1"), Queue("pod-2"), Queue("pod-3")
    gone.add("one")
    keeper, other = keep(here), keep(gone)
    for one in (other, keeper, keep(idle)):
        one.look()
    away("pod-1")
    keeper.look()
    assert here.tokens == {"one"}
    rows = "SELECT server, saved FROM orthanc_transfers.jobs WHERE submitted"
    # What it takes to go on with it is with its new server.
    assert database.query(rows) == [("pod-1", "")]
    for server in ("pod-1", "pod-3"):
        away(server, "91 days")
    keeper.look()
    assert database.query(rows) == []
    assert database.query("SELECT name FROM orthanc_transfers.servers") == [("pod-2",)]
    other.look()  # it comes back after all
    assert database.query("SELECT count(*) FROM orthanc_transfers.servers") == [(2,)]


def test_what_has_ended_or_was_lost_is_not_adopted(keep: Keep, away: Callable[[str], None]) -> None:
    a, b = Queue("a"), Queue("b")
    one = a.add("one")
    keeper = keep(a)
    keeper.look()
    a.found[one].state = TransferState.FAILURE
    keeper.look()
    lost = a.add("lost")
    keeper.look()
    del a.found[lost]
    keep(a).look()
    away("a")
    keep(b).look()
    assert b.found == {}


def test_many_jobs_are_shared_out(keep: Keep, away: Callable[[str], None]) -> None:
    a, b, c = Queue("a"), Queue("b"), Queue("c")
    for number in range(20):
        a.add(str(number))
    keep(a).look()
    keepers = [keep(b), keep(c)]
    away("a")
    for _ in range(2):
        for keeper in keepers:
            keeper.look()
    assert b.tokens
    assert c.tokens
    assert b.tokens | c.tokens == a.tokens
    assert b.tokens & c.tokens == set()


def test_an_adopter_that_dies_before_it_has_submitted_leaves_them_to_the_next(
    keep: Keep, away: Callable[[str], None], database: Database
) -> None:
    a, b, c = Queue("a"), Queue("b"), Queue("c")
    a.add("one")
    for queue in (a, b):
        keep(queue).look()
    away("a")
    database.query("SELECT 1 FROM orthanc_transfers.adopt_jobs('b', 600, 8)")
    keep(c).look()
    assert c.tokens == set()
    away("b")
    keep(c).look()
    assert c.tokens == {"one"}


def test_one_that_was_submitted_but_not_told_is_not_submitted_again(
    keep: Keep, away: Callable[[str], None], database: Database
) -> None:
    a, b = Queue("a"), Queue("b")
    a.add("one")
    keep(a).look()
    away("a")
    keeper = keep(b)
    ((saved,),) = database.query("SELECT saved FROM orthanc_transfers.jobs")
    keeper.look()
    database.query("UPDATE orthanc_transfers.jobs SET submitted = false, saved = %s", (saved,))
    keeper.look()
    assert len(b.found) == 1


def test_a_server_with_a_lease_is_not_gone(
    keep: Keep, away: Callable[[str], None], database: Database
) -> None:
    a, b = Queue("a"), Queue("b")
    a.add("one")
    keep(a).look()
    away("a")
    database.query(
        "INSERT INTO orthanc_transfers.nodes (start, name, address, folder, expires)"
        " VALUES (gen_random_uuid(), 'a', '', true, now() + interval '8 seconds')"
    )
    keep(b).look()
    assert b.found == {}


def test_nobody_is_gone_for_a_server_that_was_away_itself(
    database: Database, away: Callable[[str], None], keep: Keep, postgresql: PostgreSQL
) -> None:
    a, b = Queue("a"), Queue("b")
    a.add("one")
    keep(a).look()
    keeper = JobKeeper(database, "b", cast(JobQueue, b), reload, adopt_after=600.0, steady=3600.0)
    away("a")
    keeper.look()
    postgresql.stop()
    try:
        keeper.look()
    finally:
        postgresql.start()
    keeper.look()
    assert b.found == {}


def test_a_push_of_version_1_starts_over_and_one_that_cannot_is_logged(
    keep: Keep, away: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    a, b = Queue("a"), Queue("b")
    a.add("one", Plan="p", Completed=[[0, 1]], Transaction="/t")
    a.add("two", Transaction="/transfers/v2/push/x")
    a.add("three", Peer="bad")
    keep(a).look()
    away("a")
    keep(b).look()
    saved = {job.saved["Token"]: job.saved for job in b.found.values()}
    assert set(saved["one"]) == {"Token", "Priority"}
    assert saved["two"]["Transaction"] == "/transfers/v2/push/x"
    assert "three" not in saved
    assert "no such peer" in caplog.text


def test_a_new_job_is_written_at_once(keep: Keep, database: Database) -> None:
    a = Queue("a")
    keeper = keep(a)
    keeper.start()
    try:
        a.add("one")
        keeper.submitted()
        wait_until(
            lambda: bool(database.query("SELECT 1 FROM orthanc_transfers.jobs")), "the job is written", 4
        )
    finally:
        keeper.close()
