"""Rules through outages: the peer is away, the clock is wrong, the disk of the queue is full, or the queue damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import MakeDisk
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import FINISHED
from tests.support.orthanc_server import OrthancServer, pair, start_together
from tests.support.rules import STABLE, has, history, queue, remove_rules, set_rule, states, study, wait_ended
from tests.support.small_disk import SmallDisk
from tests.support.waiting import wait_until
from tests.support.wrong_clock import WrongClock

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

Pair = tuple[OrthancServer, OrthancServer]

DISK = 24 * 1024 * 1024


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> WrongClock:
    try:
        return WrongClock(tmp_path_factory.mktemp("clock"))
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def both(make_shared_server: MakeServer, clock: WrongClock) -> Pair:
    options = {**STABLE, "Transfers": {"MaxOutage": 1}}
    a = make_shared_server("a", configuration=options, environment=clock.environment)
    b = make_shared_server("b")
    pair(a, b)
    start_together(a, b)
    return a, b


@pytest.fixture
def servers(both: Pair, clock: WrongClock) -> Iterator[Pair]:
    clock.days(0)
    yield both
    a, b = both
    if not b.running:
        b.start()
    remove_rules(a)
    a.clear()
    b.clear()


def test_all_that_waited_goes_once_the_peer_is_back(servers: Pair) -> None:
    a, b = servers
    b.stop()
    set_rule(a, Trigger="StableSeries")
    waiting = [study(a, 1) for _ in range(12)]
    wait_until(lambda: len(queue(a)) == len(waiting) and queue(a)[0]["Attempts"], "all wait")
    b.start()
    wait_until(lambda: has(b, waiting), "all are there", timeout=120)
    wait_until(lambda: not queue(a), "all are done")
    # One after the other found out, and not all of them at once.
    assert sum(one["Attempts"] > 1 for one in history(a)[: len(waiting)]) < len(waiting)


def test_after_the_time_of_its_rule_it_is_given_up(servers: Pair) -> None:
    a, b = servers
    b.stop()
    set_rule(a, Retry="0m")
    arrived = study(a)
    assert "given up" in wait_ended(a, arrived, "GivenUp")["Said"]


def test_a_daily_time(servers: Pair, clock: WrongClock) -> None:
    a, b = servers
    before = study(a)
    set_rule(a, "daily", Trigger={"At": "00:00"})
    assert states(a, before) == []
    clock.days(1)
    ended = wait_ended(a, before)
    assert (ended["Rule"], ended["Origin"]) == ("daily", "Time")
    assert has(b, [before])
    clock.days(2)
    second = study(a)
    clock.days(3)
    wait_ended(a, second)
    # What was sent, and has not changed since, is not sent again.
    assert states(a, before) == ["Done"]


def no_job_runs(server: OrthancServer) -> bool:
    return all(job["State"] in FINISHED for job in server.get("jobs", params={"expand": ""}))


def test_a_wrong_clock_neither_gives_up_nor_hammers(servers: Pair, clock: WrongClock) -> None:
    a, b = servers
    b.stop()
    set_rule(a, Retry="7d")
    arrived = study(a)
    wait_until(lambda: [one["Attempts"] for one in queue(a)] == [1], "it was tried")
    # Orthanc 1.10.1 does not start any more with a job that, by this clock, ran for more than 2^31 ms.
    wait_until(lambda: no_job_runs(a), "that has ended")
    clock.days(400)
    wait_until(lambda: queue(a)[0]["Attempts"] >= 2 and no_job_runs(a), "it is tried again")
    clock.days(0)
    a.restart()
    (waiting,) = wait_until(lambda: queue(a), "the queue is there again")
    # In seconds in which the clock said that years went by.
    assert waiting["Attempts"] <= 5
    b.start()
    wait_ended(a, arrived)
    assert has(b, [arrived])


@pytest.fixture
def small(
    make_server: MakeServer, make_disk: MakeDisk, tmp_path: Path
) -> tuple[OrthancServer, OrthancServer, SmallDisk]:
    disk = make_disk(tmp_path / "staging", DISK)
    a = make_server(
        "a", configuration={**STABLE, "Transfers": {"StagingDirectory": str(disk.path / "transfers")}}
    )
    b = make_server("b")
    pair(a, b)
    start_together(a, b)
    return a, b, disk


def test_what_comes_while_the_disk_of_the_queue_is_full_is_sent_once_there_is_room(
    small: tuple[OrthancServer, OrthancServer, SmallDisk],
) -> None:
    a, b, disk = small
    set_rule(a)
    wait_ended(a, study(a))
    disk.fill()
    arrived = [study(a) for _ in range(3)]
    wait_until(
        lambda: "cannot be queued" in a.log or "cannot be worked off" in a.log, "it is said in the log"
    )
    disk.make_room()
    for one in arrived:
        wait_ended(a, one)
    assert has(b, arrived)


def test_a_damaged_queue_is_set_aside_and_rules_go_on(make_server: MakeServer) -> None:
    options = {
        **STABLE,
        "Transfers": {"Rules": [{"Name": "all", "Trigger": "StableStudy", "Destinations": "b"}]},
    }
    a, b = make_server("a", configuration=options), make_server("b")
    pair(a, b)
    start_together(a, b)
    wait_ended(a, study(a))
    a.stop()
    (file,) = a.folder.rglob("rules.sqlite")
    file.write_bytes(b"no database" * 1000)
    for more in ("-wal", "-shm"):
        file.with_name(file.name + more).unlink(missing_ok=True)
    a.start()
    arrived = study(a)
    wait_ended(a, arrived)
    assert has(b, [arrived])
    assert "damaged" in a.log
