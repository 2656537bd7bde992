"""Who receives which transfer: two nodes on a real PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from orthanc_transfers.core.errors import Busy, TransferError
from orthanc_transfers.core.model import Instance, Manifest
from orthanc_transfers.receiver.ownership import Adoption, Fenced, OwnedElsewhere, TakenOver
from tests.cluster.conftest import FAST, MakeNode, NodeInTest
from tests.support.waiting import wait_until

META = {"kind": "push", "token": "t"}
COMMITTED = {"State": "committed", "Finished": 1.0, "Report": {}}
FAILED = {"State": "failed", "Finished": 1.0, "Error": "no"}


def manifest(*names: str) -> Manifest:
    return Manifest(Instance(name, 10, "md5") for name in names)


def claim(node: NodeInTest, identifier: str, kind: str = "push", limit: int = 0, **more: Any) -> None:
    node.owner.claim(identifier, kind, f"token-{identifier}", META, limit=limit, **more)


def end(node: NodeInTest, identifier: str, outcome: dict[str, Any] = COMMITTED) -> None:
    node.owner.end(identifier, outcome, {"ID": identifier}, [f"token-{identifier}"])


def owner_elsewhere(node: NodeInTest, **key: str) -> int:
    with pytest.raises(OwnedElsewhere) as caught:
        node.owner.locate(**key)
    return caught.value.node.number


@pytest.fixture
def two(make_node: MakeNode) -> tuple[NodeInTest, NodeInTest]:
    return make_node(), make_node()


def test_both_have_the_same_originator_and_secret(two: tuple[NodeInTest, NodeInTest]) -> None:
    a, b = two
    assert a.owner.originator == b.owner.originator
    assert a.cluster.secret == b.cluster.secret
    assert len(a.cluster.secret) == 64


def test_a_transfer_is_found_by_all_nodes(two: tuple[NodeInTest, NodeInTest]) -> None:
    a, b = two
    claim(a, "one")
    a.owner.locate(identifier="one")
    a.owner.locate(kind="push", token="token-one")
    assert owner_elsewhere(b, identifier="one") == a.owner.node.number
    assert owner_elsewhere(b, kind="push", token="token-one") == a.owner.node.number
    b.owner.locate(identifier="two")
    b.owner.locate(kind="pull", token="token-one")


@pytest.mark.parametrize("name", ["\0", "a\udc80", "x" * 100_000, "", "'; DROP SCHEMA orthanc_transfers; --"])
def test_any_name_from_the_network_is_just_not_known(two: tuple[NodeInTest, NodeInTest], name: str) -> None:
    a, _ = two
    a.owner.locate(identifier=name)
    a.owner.locate(kind="push", token=name)
    assert a.owner.report(name) is None


def test_a_token_has_one_owner(two: tuple[NodeInTest, NodeInTest]) -> None:
    a, b = two
    a.owner.claim("one", "push", "same", META, limit=0)
    with pytest.raises(OwnedElsewhere):
        b.owner.claim("two", "push", "same", META, limit=0)
    b.owner.claim("three", "pull", "same", META, limit=0)


def test_a_repeated_claim_is_the_same(two: tuple[NodeInTest, NodeInTest]) -> None:
    a, _ = two
    claim(a, "one", limit=1)
    claim(a, "one", limit=1)


def test_one_owner_of_eight_that_claim_at_once(make_node: MakeNode) -> None:
    nodes = [make_node() for _ in range(4)]
    barrier = threading.Barrier(8)

    def race(index: int) -> str:
        barrier.wait(10)
        try:
            nodes[index % 4].owner.claim(f"transfer-{index}", "push", "same", META, limit=0)
        except (OwnedElsewhere, TakenOver):
            return ""
        return f"transfer-{index}"

    with ThreadPoolExecutor(8) as pool:
        (winner,) = [one for one in pool.map(race, range(8)) if one]
    assert sum(mine(node, winner) for node in nodes) == 1


def mine(node: NodeInTest, identifier: str) -> bool:
    rows = node.cluster.database.query(
        "SELECT 1 FROM orthanc_transfers.transfers WHERE identifier = %s AND owner = %s",
        (identifier, node.owner.node.number),
    )
    return bool(rows)


def test_no_more_pushes_than_the_limit_whoever_receives_them(make_node: MakeNode) -> None:
    nodes = [make_node() for _ in range(2)]
    barrier = threading.Barrier(8)

    def race(index: int) -> bool:
        barrier.wait(10)
        try:
            claim(nodes[index % 2], str(index), limit=3)
        except Busy:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(race, range(8)))
    assert sum(taken) == 3
    with pytest.raises(Busy, match="MaxPushTransactions"):
        claim(nodes[0], "one more", limit=3)
    claim(nodes[0], "a pull", kind="pull")
    end(nodes[taken.index(True) % 2], str(taken.index(True)))
    claim(nodes[1], "the next", limit=3)


def test_a_push_waits_for_a_slot(two: tuple[NodeInTest, NodeInTest]) -> None:
    a, b = two
    claim(a, "one", limit=1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(claim, b, "two", limit=1, patience=30.0)
        wait_until(lambda: b.cluster.database.requests > 3, "it has asked more than once", 10)
        a.owner.forget("one")
        waiting.result(20)


def test_what_is_forgotten_is_nowhere(two: tuple[NodeInTest, NodeInTest]) -> None:
    a, b = two
    claim(a, "one")
    a.owner.forget("one")
    b.owner.locate(identifier="one")
    claim(b, "one")


def test_a_bucket_costs_the_database_nothing(two: tuple[NodeInTest, NodeInTest]) -> None:
    a, b = two
    claim(a, "one")
    owner_elsewhere(b, identifier="one")
    before = a.cluster.database.requests, b.cluster.database.requests
    for _ in range(100):
        a.owner.check()
        a.owner.locate(identifier="one")
        owner_elsewhere(b, identifier="one")
    assert before == (a.cluster.database.requests, b.cluster.database.requests)


@pytest.mark.parametrize(("shared", "most"), [(True, 4), (False, 5)])
def test_a_transfer_costs_few_requests(make_node: MakeNode, shared: bool, most: int) -> None:
    a = make_node(shared=shared)
    costs = []
    for name in ("one", "two", "three"):
        before = a.cluster.database.requests
        claim(a, name, limit=10)
        a.owner.begin_commit(name, manifest("x", "y"))
        a.owner.begin_import(name, [0])
        end(a, name)
        a.owner.forget(name)
        costs.append(a.cluster.database.requests - before)
    # One asks again where a busy machine made it wait for its lease, or deletes the old reports of an hour.
    assert min(costs) <= most


def test_a_pull_that_has_ended_elsewhere_starts_anew(two: tuple[NodeInTest, NodeInTest]) -> None:
    a, b = two
    a.owner.claim("one", "pull", "same", META, limit=0)
    with pytest.raises(OwnedElsewhere):
        b.owner.claim("two", "pull", "same", META, limit=0)
    a.owner.begin_commit("one", manifest("x"))
    with pytest.raises(Busy):
        b.owner.claim("two", "pull", "same", META, limit=0)
    end(a, "one")
    b.owner.claim("two", "pull", "same", META, limit=0)


def test_a_report_is_found_on_all_nodes_by_all_names(two: tuple[NodeInTest, NodeInTest]) -> None:
    a, b = two
    claim(a, "one")
    report = {"ID": "one", "Text": "a\0b \N{GREEK SMALL LETTER ALPHA}"}
    a.owner.end("one", FAILED, report, ["token-one", "job", "weird \0 \udc80"])
    for name in ("one", "token-one", "job", "weird \0 \udc80"):
        assert b.owner.report(name) == report
    assert b.owner.report("two") is None


def test_the_others_are_those_that_live(make_node: MakeNode) -> None:
    a, b, c = (make_node() for _ in range(3))
    assert {one.number for one in a.owner.others()} == {b.owner.node.number, c.owner.node.number}
    b.cluster.close()
    assert a.owner.others() == [c.owner.node]


# --- adoption


def test_a_node_that_leaves_is_adopted_at_once(make_node: MakeNode) -> None:
    a, b = make_node(), make_node()
    claim(a, "one")
    b.owner.locate(kind="push", token="other")
    a.cluster.close()
    wait_until(lambda: bool(b.adoptions), "the other one takes over", 10)
    (adoption,) = b.adoptions
    assert adoption == Adoption(a.owner.node, (), frozenset({"one"}))
    b.owner.locate(identifier="one")


def test_a_silent_node_loses_its_transfers_to_one_other(make_node: MakeNode) -> None:
    a, b, c = make_node(), make_node(), make_node()
    claim(a, "one")
    old = a.owner.node
    go_on = a.silence()
    wait_until(lambda: bool(b.adoptions or c.adoptions), "another one takes over", 20)
    heir, third = (b, c) if b.adoptions else (c, b)
    assert [one.identifiers for one in heir.adoptions] == [{"one"}]
    assert owner_elsewhere(third, identifier="one") == heir.owner.node.number
    assert third.adoptions == []
    for write in writes(a, "one"):
        with pytest.raises(Fenced):
            write()
    go_on()
    wait_until(lambda: a.fenced == 1, "it learns that it was fenced", 10)
    wait_until(lambda: a.owner.node != old, "it takes part again", 10)
    wait_until(lambda: not a.owner._members.is_fenced, "it takes part again", 10)
    a.owner.check()
    assert a.owner.node.number > old.number
    assert owner_elsewhere(a, identifier="one") == heir.owner.node.number
    claim(a, "two")
    # Nothing that it does for the old one has an effect.
    for write in writes(a, "one"):
        with pytest.raises(Fenced):
            write()
    a.owner.forget("one")
    heir.owner.begin_commit("one", manifest("x"))
    end(heir, "one")


def writes(node: NodeInTest, identifier: str) -> list[Callable[[], object]]:
    return [
        lambda: node.owner.begin_commit(identifier, manifest("x")),
        lambda: node.owner.overlap(identifier, ["x"]),
        lambda: node.owner.back_to_receiving(identifier),
        lambda: end(node, identifier),
    ]


def test_one_that_was_late_goes_on_if_no_other_took_over(make_node: MakeNode) -> None:
    a = make_node()
    claim(a, "one")
    go_on = a.silence()
    members = a.owner._members
    wait_until(lambda: members._now() > members._valid_until, "its lease is over", 10)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(a.owner.check)
        assert not waiting.done()
        go_on()
        waiting.result(10)
    assert a.fenced == 0


def hold_adoption(node: NodeInTest) -> tuple[threading.Event, threading.Event]:
    """Start a node that waits in its first takeover; the events are "it is there" and "go on"."""
    arriving, arrived = threading.Event(), threading.Event()

    def adopt(adoptions: Sequence[Adoption]) -> None:
        arriving.set()
        assert arrived.wait(20)

    node.owner.on_adoption(adopt, lambda: None)
    node.owner.start()
    return arriving, arrived


def taking_over(make_node: MakeNode) -> tuple[NodeInTest, threading.Event]:
    """A node that is taking over transfer ``one`` from another one, until the event."""
    a, b = make_node(), make_node(started=False)
    arriving, arrived = hold_adoption(b)
    claim(a, "one")
    a.cluster.close()
    assert arriving.wait(10)
    return b, arrived


def test_what_is_being_taken_over_is_waited_for(make_node: MakeNode) -> None:
    c = make_node(started=False)
    b, arrived = taking_over(make_node)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(b.owner.locate, identifier="one")
        assert not waiting.done()
        assert owner_elsewhere(c, identifier="one") == b.owner.node.number
        arrived.set()
        waiting.result(20)


def test_an_adoption_that_fails_is_tried_again(make_node: MakeNode) -> None:
    a, b = make_node(), make_node(started=False)
    calls: list[Adoption] = []

    def adopt(adoptions: Sequence[Adoption]) -> None:
        calls.extend(adoptions)
        if len(calls) < 3:
            raise OSError("the shared storage is away")

    b.owner.on_adoption(adopt, lambda: None)
    b.owner.start()
    claim(a, "one")
    a.cluster.close()
    wait_until(lambda: len(calls) == 3, "it is tried again", 10)
    assert {one.identifiers for one in calls} == {frozenset({"one"})}
    b.owner.locate(identifier="one")


def test_who_leaves_is_not_taken_over_from_while_it_takes_over_itself(make_node: MakeNode) -> None:
    b, arrived = taking_over(make_node)
    c = make_node()
    with ThreadPoolExecutor(1) as pool:
        leaving = pool.submit(b.cluster.close)
        time.sleep(3 * FAST.heartbeat)
        assert c.adoptions == []
        arrived.set()
        leaving.result(20)
    wait_until(lambda: bool(c.adoptions), "the third one takes over", 10)


def test_what_an_heir_had_not_taken_in_goes_to_the_next(make_node: MakeNode) -> None:
    a, b = make_node(), make_node(started=False)
    dying = threading.Event()

    def adopt(adoptions: Sequence[Adoption]) -> None:
        dying.set()
        raise OSError("it dies here")

    b.owner.on_adoption(adopt, lambda: None)
    b.owner.start()
    claim(a, "one")
    claim(b, "two")
    a.cluster.close()
    assert dying.wait(10)
    c = make_node()
    b.cluster.close()
    wait_until(lambda: len(c.adoptions) == 2, "the third one takes over from both", 10)
    assert [(one.node, one.identifiers) for one in c.adoptions] == [
        (a.owner.node, {"one"}),
        (b.owner.node, {"two"}),
    ]


def test_without_shared_staging_the_database_tells(make_node: MakeNode) -> None:
    a, b = make_node(shared=False), make_node(shared=False)
    for name in ("received", "looked up", "importing", "ended"):
        claim(a, name)
    for name in ("looked up", "importing"):
        a.owner.begin_commit(name, manifest("x", "y"))
    a.owner.begin_import("importing", [1])
    end(a, "ended", FAILED)
    a.cluster.close()
    wait_until(lambda: bool(b.adoptions), "the other one takes over", 10)
    (adoption,) = b.adoptions
    found = {one.identifier: (one.manifest, one.absent, one.outcome) for one in adoption.inherited}
    assert found == {
        "received": (None, None, None),
        "looked up": (manifest("x", "y"), None, None),
        "importing": (manifest("x", "y"), {1}, None),
        "ended": (None, None, FAILED),
    }
    assert all(one.meta == META for one in adoption.inherited)


def test_a_server_that_was_restarted_has_its_own_again_at_once(make_node: MakeNode) -> None:
    a, other = make_node(shared=False), make_node()
    claim(a, "one")
    claim(a, "two")
    a.silence()
    again = make_node(shared=False, started=False)
    assert again.owner.reclaim(a.owner.node.number) == {"one", "two"}
    again.owner.start()
    again.owner.locate(identifier="one")
    assert owner_elsewhere(other, identifier="two") == again.owner.node.number
    with pytest.raises(Fenced):
        end(a, "one")
    assert again.owner.reclaim(other.owner.node.number + 100) == frozenset()
    assert other.adoptions == []


def test_a_restarted_server_with_shared_staging_does_not_wait_for_its_lease(make_node: MakeNode) -> None:
    a = make_node()
    claim(a, "one")
    a.silence()
    again = make_node(started=False)
    assert again.owner.reclaim(a.owner.node.number) == frozenset()
    again.owner.start()
    wait_until(lambda: bool(again.adoptions), "it adopts what it had", 10)
    again.owner.locate(identifier="one")


@pytest.mark.parametrize("whose", ["another's", "its own"])
def test_a_number_of_tables_that_were_dropped_is_that_of_no_earlier_start(
    make_node: MakeNode, whose: str
) -> None:
    a = make_node()
    claim(a, "one")
    a.cluster.database.query("UPDATE orthanc_transfers.nodes SET name = 'another'")
    b = make_node(started=False)
    assert b.owner.reclaim((a if whose == "another's" else b).owner.node.number) == frozenset()
    for node in (a, b):
        node.owner._members.renew()
        assert not node.owner._members.is_fenced
    end(a, "one")


# --- commits that share instances


def test_what_another_commit_counts_on_is_left_to_it(two: tuple[NodeInTest, NodeInTest]) -> None:
    a, b = two
    for node, name in ((a, "one"), (b, "two")):
        claim(node, name)
        node.owner.begin_commit(name, manifest("x", "y", "z")) if name == "one" else None
    b.owner.begin_commit("two", manifest("y", "z", "w"))
    for _ in range(2):  # asked again, it is the same
        overlap = a.owner.overlap("one", ["x", "y"])
        assert (overlap.kept, overlap.left) == ({"y"}, set())
    end(a, "one", FAILED)
    overlap = b.owner.overlap("two", ["w"])
    assert (overlap.kept, overlap.left) == (set(), {"y"})


def test_what_is_left_may_be_left_further(make_node: MakeNode) -> None:
    nodes = [make_node() for _ in range(3)]
    for index, node in enumerate(nodes):
        claim(node, str(index))
        node.owner.begin_commit(str(index), manifest("x", f"own-{index}"))
    holders = []
    assert nodes[0].owner.overlap("0", ["x", "own-0"]).kept == {"x"}
    end(nodes[0], "0", FAILED)
    for index in (1, 2):
        overlap = nodes[index].owner.overlap(str(index), [f"own-{index}"])
        assert overlap.kept == frozenset()
        holders.append(overlap.left)
        end(nodes[index], str(index), FAILED)
    # Whoever is the last deletes it, once.
    assert holders == [set(), {"x"}]


def test_what_another_commit_succeeded_with_stays(two: tuple[NodeInTest, NodeInTest]) -> None:
    a, b = two
    claim(a, "one")
    claim(b, "two")
    a.owner.begin_commit("one", manifest("x", "y"))
    b.owner.begin_commit("two", manifest("y"))
    end(b, "two")
    assert a.owner.overlap("one", ["x", "y"]).kept == {"y"}


def test_what_is_still_to_be_taken_in_does_not_delete_what_its_heir_succeeded_with(
    make_node: MakeNode,
) -> None:
    a, b = make_node(), make_node(started=False)
    arriving, arrived = hold_adoption(b)
    claim(a, "one")
    claim(b, "two")
    a.owner.begin_commit("one", manifest("x", "y"))
    b.owner.begin_commit("two", manifest("y"))
    a.cluster.close()
    assert arriving.wait(10)
    # The receiver there knows nothing of the other one yet.
    end(b, "two")
    arrived.set()
    wait_until(lambda: not b.owner._takeover.has_rest, "it is taken in", 10)
    b.owner.begin_commit("one", manifest("x", "y"))
    assert b.owner.overlap("one", ["x", "y"]).kept == {"y"}


def test_a_commit_begins_after_an_undo_of_what_it_counts_on(two: tuple[NodeInTest, NodeInTest]) -> None:
    a, b = two
    for node, name in ((a, "one"), (b, "two"), (b, "three")):
        claim(node, name)
    a.owner.begin_commit("one", manifest("x"))
    assert a.owner.overlap("one", ["x"]).kept == frozenset()
    b.owner.begin_commit("three", manifest("y"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(b.owner.begin_commit, "two", manifest("x", "y"))
        before = b.cluster.database.requests
        wait_until(lambda: b.cluster.database.requests > before + 2, "it asks again and again", 10)
        assert not waiting.done()
        a.owner.back_to_receiving("one")
        waiting.result(10)
    assert a.owner.overlap("one", ["x"]).kept == {"x"}


def test_a_statement_that_is_refused_is_an_error_of_ours(make_node: MakeNode) -> None:
    a = make_node()
    with pytest.raises(TransferError, match="refused"):
        a.cluster.database.query("SELECT nothing FROM nowhere")
    claim(a, "one")
