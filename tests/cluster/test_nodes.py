"""Leases: whoever is called dead had stopped writing before."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from orthanc_transfers.cluster.connection import connection_string
from orthanc_transfers.cluster.database import Database
from orthanc_transfers.cluster.nodes import Membership, Timing
from orthanc_transfers.cluster.schema import prepare
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.receiver.ownership import Fenced, Node
from tests.cluster.conftest import MakeNode
from tests.support.postgresql import PostgreSQL
from tests.support.waiting import wait_until

# Nothing happens by itself.
BY_HAND = Timing(lease=8.0, heartbeat=3600.0, margin=1.0)


class Clock:
    """Of one node, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Listener:
    """What a node hears of the others."""

    def __init__(self) -> None:
        self.others: frozenset[int] = frozenset()
        self.deaths: list[Node] = []
        self.losses = 0

    def alive(self, numbers: frozenset[int]) -> None:
        self.others = numbers

    def dead(self, node: Node) -> None:
        self.deaths.append(node)

    def lost(self) -> None:
        self.losses += 1

    def rejoin(self) -> None: ...

    def tidy(self) -> None: ...


class Member:
    """A node whose heart beats when the test says so."""

    def __init__(self, uri: str, clock: Clock, name: str = "name") -> None:
        database = Database(connection_string(uri, None), connections=1)
        prepare(database)
        self.listener = Listener()
        self.members = Membership(
            database, name, "http://h:1", shared_staging=True, timing=BY_HAND, now=clock
        )
        self.members.join()
        self.members.start(self.listener)

    @property
    def dead(self) -> list[int]:
        return [node.number for node in self.members._dead]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pair(settings: Settings, clock: Clock) -> tuple[Member, Member]:
    uri = settings.cluster.connection_uri
    return Member(uri, clock, "a"), Member(uri, clock, "b")


def expire(settings: Settings, member: Member) -> None:
    """End its lease by the database's clock, as a jump of that clock would."""
    with psycopg.connect(settings.cluster.connection_uri, autocommit=True) as connection:
        connection.execute(
            "UPDATE orthanc_transfers.nodes SET expires = now() - interval '1 hour' WHERE number = %s",
            (member.members.node.number,),
        )


def test_a_node_writes_until_a_second_before_the_end_of_its_lease(
    pair: tuple[Member, Member], clock: Clock
) -> None:
    a, _ = pair
    clock.now += 6.9
    a.members.check()
    clock.now += 0.2
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(a.members.check)
        assert not waiting.done()
        a.members.renew()
        waiting.result(10)


def test_others_take_over_within_10_seconds_of_a_death_at_the_worst_moment(
    pair: tuple[Member, Member], clock: Clock, settings: Settings
) -> None:
    a, b = pair
    product = Timing()
    a.members.renew()
    # It dies right after a renewal, of which the other only hears at its own next one.
    b.members.renew()
    died = clock.now
    expire(settings, b)
    while a.dead == []:
        clock.now += min(product.heartbeat, a.members._pause())
        a.members.renew()
    assert a.dead == [b.members.node.number]
    assert clock.now - died + product.look <= 10


def test_a_lease_that_is_over_for_the_database_is_not_enough(
    pair: tuple[Member, Member], clock: Clock, settings: Settings
) -> None:
    a, b = pair
    a.members.renew()
    expire(settings, b)
    for _ in range(3):
        clock.now += 2.0
        a.members.renew()
        assert a.dead == []
    clock.now += 4.5
    a.members.renew()
    assert a.dead == [b.members.node.number]
    # By then it had stopped writing by itself.
    assert clock.now >= b.members._valid_until + 1.0


def test_a_clock_of_the_database_that_jumps_makes_nobody_dead(
    pair: tuple[Member, Member], clock: Clock, settings: Settings
) -> None:
    a, b = pair
    for _ in range(10):
        a.members.renew()
        b.members.renew()
        expire(settings, b)
        clock.now += 1.5
        a.members.renew()
        assert a.dead == []


def test_all_nodes_have_one_clock_whatever_their_own_say(pair: tuple[Member, Member], clock: Clock) -> None:
    a, b = pair
    b.members._now = lambda: clock() + 1e6
    for _ in range(2):
        for one in (a, b):
            one.members.renew()
            assert abs(one.members.time() - time.time()) < 60  # this machine is the database's, too
        clock.now += 1000.0


def test_after_a_pause_of_its_own_nobody_is_dead_at_once(
    pair: tuple[Member, Member], clock: Clock, settings: Settings
) -> None:
    a, b = pair
    a.members.renew()
    clock.now += 60.0
    expire(settings, b)
    a.members.renew()
    assert a.dead == []
    b.members.renew()
    clock.now += 8.0
    a.members.renew()
    assert a.dead == []


def test_after_an_absence_of_the_database_nobody_is_dead_at_once(
    pair: tuple[Member, Member], clock: Clock, settings: Settings, postgresql: PostgreSQL
) -> None:
    a, b = pair
    a.members.renew()
    postgresql.stop()
    try:
        clock.now += 4.0
        a.members.renew()
    finally:
        postgresql.start()
    expire(settings, b)
    clock.now += 4.5
    a.members.renew()
    assert a.dead == []
    clock.now += 8.0
    a.members.renew()
    assert a.dead == [b.members.node.number]


def test_a_kept_connection_that_died_costs_no_renewal(
    pair: tuple[Member, Member], clock: Clock, postgresql: PostgreSQL
) -> None:
    a, _ = pair
    a.members.renew()
    postgresql.stop()
    postgresql.start()
    clock.now += 1.5
    a.members.renew()
    assert a.members._valid_until == clock.now + 7.0


def test_a_fenced_node_says_so_until_it_has_a_new_number(make_node: MakeNode) -> None:
    a, b = make_node(), make_node()
    members = a.owner._members
    number = a.owner.node.number
    a.cluster.database.query("SELECT orthanc_transfers.adopt(%s, %s, true)", (b.owner.node.number, number))
    wait_until(lambda: a.fenced == 1, "it learns of it", 10)
    wait_until(lambda: not members.is_fenced, "it takes part again", 10)
    a.owner.check()
    assert a.owner.node.number > number


def test_what_waits_when_a_node_is_fenced_learns_of_it(
    pair: tuple[Member, Member], clock: Clock, settings: Settings
) -> None:
    a, b = pair
    clock.now += 7.5
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(b.members.check)
        assert not waiting.done()
        with psycopg.connect(settings.cluster.connection_uri, autocommit=True) as connection:
            connection.execute(
                "UPDATE orthanc_transfers.nodes SET adopted_by = %s WHERE number = %s",
                (a.members.node.number, b.members.node.number),
            )
        b.members.renew()
        with pytest.raises(Fenced):
            waiting.result(10)
    assert b.listener.losses == 1
    b.members.renew()
    assert b.listener.losses == 1


def test_two_servers_of_one_name_say_so_once(
    settings: Settings, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    uri = settings.cluster.connection_uri
    first, second, other = (Member(uri, clock, name) for name in ("one", "one", "another"))
    for _ in range(6):
        for member in (first, second, other):
            member.members.renew()
    told = [record.message for record in caplog.records if record.name.endswith("namesakes")]
    numbers = [member.members.node.number for member in (second, first)]
    assert [
        f"called one too, and runs: node {number}, at http://h:1" in text
        for number, text in zip(numbers, told, strict=True)
    ] == [True, True]


def test_a_node_that_starts_again_after_a_crash_is_no_other_server_of_its_name(
    settings: Settings, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    uri = settings.cluster.connection_uri
    before = Member(uri, clock)
    before.members.renew()
    again = Member(uri, clock)
    again.members.renew()
    before.members.renew()  # sent before it died
    for _ in range(6):
        clock.now += 1.5
        again.members.renew()
    assert "too, and runs" not in caplog.text
