"""Mirrors on real Orthancs: a rule each way settles, and comparisons find what the triggers missed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import StatusError, resource
from tests.support.orthanc_server import OrthancServer, pair, start_together
from tests.support.rules import STABLE, history, queue, remove_rules, set_rule, states, study, wait_ended
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc

Pair = tuple[OrthancServer, OrthancServer]

NEVER = {"At": "00:00", "Days": "Mon"}
"""A time that is not now, but for a minute of the week: a rule that was just set does nothing then either."""


@pytest.fixture(scope="module")
def both(make_shared_server: MakeServer) -> Pair:
    a, b = make_shared_server("a", configuration=STABLE), make_shared_server("b", configuration=STABLE)
    pair(a, b)
    start_together(a, b)
    return a, b


@pytest.fixture
def servers(both: Pair) -> Iterator[Pair]:
    yield both
    for server in both:
        remove_rules(server)
        server.clear()


def mirror(server: OrthancServer, peer: str, **keys: Any) -> None:
    set_rule(server, "mirror", **{"Destinations": [peer], "Compare": NEVER, **keys})


def compare(server: OrthancServer, **keys: Any) -> Any:
    return server.post("transfers/rules/mirror/compare", keys)


def compared(server: OrthancServer) -> Mapping[str, Any]:
    """Compare, and wait for the end of that and of all that it queued."""
    compare(server)

    def ended() -> Any:
        (one,) = server.get("transfers/rules/mirror")["Comparisons"]
        return not one["Running"] and one

    found: Mapping[str, Any] = wait_until(ended, "the comparison")
    wait_until(lambda: not queue(server), "the queue to be empty")
    return found


def settled(*servers: OrthancServer) -> bool:
    """Whether nothing is under way, and all have the same."""
    stored = [server.md5s() for server in servers]
    return all(one == stored[0] for one in stored) and not any(map(queue, servers))


def sent(server: OrthancServer) -> list[Any]:
    """The transfers that this server has begun."""
    found: list[Any] = server.get("transfers/status?direction=send&limit=100")["Transfers"]
    return found


def test_a_mirror_each_way_settles(servers: Pair) -> None:
    a, b = servers
    mirror(a, "b")
    mirror(b, "a")
    one, other = study(a), study(b)

    def all_seen() -> bool:
        # Each study was stable on each server: all has been triggered that will be.
        seen = [{entry["Resource"]["ID"] for entry in history(server)} for server in servers]
        return all(some == {one, other} for some in seen) and settled(a, b)

    wait_until(all_seen, "both to have the same")
    # Each study went to the other side once, and nothing came back.
    assert [len(sent(server)) for server in servers] == [1, 1]
    for server, came in ((a, other), (b, one)):
        (entry,) = [entry for entry in history(server) if entry["Resource"]["ID"] == came]
        assert (entry["State"], entry["Job"], entry["Said"]) == ("Done", None, "all of it was there already")


def test_a_comparison_finds_what_the_triggers_missed(servers: Pair) -> None:
    a, b = servers
    studies = [study(a) for _ in range(3)]
    first = a.send([resource("Study", studies[0])], "b")["ID"]
    assert a.wait_for_job(first)["State"] == "Success"
    mirror(a, "b", Trigger="Manual")

    dry = compare(a, DryRun=True)
    assert {row["Study"] for row in dry["Studies"]} == set(studies[1:])
    assert all(row["Send"] for row in dry["Studies"])
    assert (dry["Compared"], dry["Next"]) == (3, None)
    assert queue(a) == []

    found = compared(a)
    assert (found["Compared"], found["Queued"], found["Deleted"]) == (3, 2, 0)
    assert a.md5s() == b.md5s()
    assert compared(a)["Queued"] == 0

    # Half of a study is missing there: a difference is sent.
    instances = a.get(f"studies/{studies[1]}/instances")
    b.delete(f"instances/{instances[0]['ID']}")
    assert compared(a)["Queued"] == 1
    assert a.md5s() == b.md5s()


def test_deletions_are_mirrored_only_where_that_is_asked_for(servers: Pair) -> None:
    a, b = servers
    mirror(a, "b", Trigger="Manual")
    kept, there_before, later = study(a), study(a), study(a)
    for instance in a.get(f"studies/{there_before}/instances"):
        b.upload(a.download(f"instances/{instance['ID']}/file"))
    assert compared(a)["Queued"] == 2
    assert len(b.get("studies")) == 3
    for one in (there_before, later):
        a.delete(f"studies/{one}")
    assert compared(a)["Deleted"] == 0
    assert len(b.get("studies")) == 3

    mirror(a, "b", Trigger="Manual", MirrorDeletes=True)
    dry = compare(a, DryRun=True)
    assert dry["Deletions"] == [{"Peer": "b", "Studies": [later], "Kept": [], "Said": None}]
    assert len(b.get("studies")) == 3
    assert compared(a)["Deleted"] == 2
    # What it had before is its own.
    assert set(b.get("studies")) == {kept, there_before}

    # What was deleted there is not sent again by the other side, nor by this one.
    b.delete(f"studies/{kept}")
    assert compared(a)["Queued"] == 0
    assert b.get("studies") == [there_before]


def test_what_cannot_be_compared_is_said(servers: Pair) -> None:
    a, _ = servers
    for rule in ({"Level": "Series"}, {"MirrorDeletes": True, "Compare": None}, {"After": {"Delete": True}}):
        body = {"Name": "bad", "Trigger": "StableStudy", "Destinations": ["b"], "Compare": NEVER, **rule}
        with pytest.raises(StatusError) as refused:
            a.post("transfers/rules", {key: value for key, value in body.items() if value is not None})
        assert refused.value.status == 400
    set_rule(a, "plain")
    with pytest.raises(StatusError) as refused:
        a.post("transfers/rules/plain/compare", {})
    assert refused.value.status == 409


def test_what_came_from_there_is_not_sent_back(servers: Pair) -> None:
    a, b = servers
    set_rule(a, "there")
    set_rule(b, "back", to="a", Filter={"NotFrom": "a"})
    from_a, from_b = study(a), study(b)
    wait_until(lambda: len(a.get("studies")) == len(b.get("studies")) == 2, "both to be on both")
    wait_until(
        lambda: {from_a, from_b} <= {one["Resource"]["ID"] for one in history(a)}, "a to have sent all"
    )
    wait_ended(b, from_b)
    # Of this test alone: the servers remember those before.
    assert {one["Resource"]["ID"] for one in history(b)} & {from_a, from_b} == {from_b}
    dry = b.post(
        "transfers/rules/back/run", {"DryRun": True, "Resources": [{"Level": "Study", "ID": from_a}]}
    )
    assert dry["Resources"][0]["Why"] == 'the "NotFrom" of the filter does not fit'


def test_an_orthanc_that_has_another_name_here_or_two_is_known_all_the_same(servers: Pair) -> None:
    a, b = servers
    b.put("peers/elsewhere", {"Url": a.url})
    set_rule(b, "back", to="a", Trigger="Manual", Filter={"NotFrom": "elsewhere"})
    pushed, fetched, own = study(a), study(a), study(b)
    a.wait_for_job(a.send([resource("Study", pushed)], "b")["ID"])
    b.wait_for_job(b.pull([resource("Study", fetched)], "a")["ID"])
    asked = {"DryRun": True, "Resources": [resource("Study", one) for one in (pushed, fetched, own)]}
    rows = b.post("transfers/rules/back/run", asked)["Resources"]
    assert [one["Why"] and "NotFrom" in one["Why"] for one in rows] == [True, True, None]


def test_rules_each_way_that_know_nothing_of_each_other_end_too(servers: Pair) -> None:
    a, b = servers
    set_rule(a, "there")
    set_rule(b, "back", to="a")
    first = study(a)
    wait_ended(b, first)
    # Had it gone on, that would have been before this one has come back.
    second = study(a)
    wait_ended(b, second)
    wait_until(lambda: not queue(a) and not queue(b), "nothing is under way")
    assert [states(server, first) for server in servers] == [["Done"], ["Done"]]
