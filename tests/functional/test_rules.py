"""Rules on real Orthancs: what arrives is sent by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.support.cpp_peer import CppPeer
from tests.support.dicom_data import ct_study, small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, pair, start_together
from tests.support.ports import free_port
from tests.support.rules import (
    STABLE,
    has,
    history,
    queue,
    remove_rules,
    rule,
    set_rule,
    states,
    study,
    wait_ended,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc

Servers = tuple[OrthancServer, OrthancServer, OrthancServer]


def closed_now() -> list[dict[str, str]]:
    """A window that is closed for hours."""
    hour = time.localtime().tm_hour
    return [{"From": f"{(hour + 12) % 24:02}:00", "To": f"{(hour + 13) % 24:02}:00"}]


@pytest.fixture(scope="module")
def all_three(make_shared_server: MakeServer) -> Servers:
    """``a`` has the rules; ``offline`` is a peer that is not there, ``slow`` is ``b`` with little bandwidth."""
    a = make_shared_server("a", configuration={**STABLE, "Transfers": {"MaxOutage": 1}})
    b, c = make_shared_server("b"), make_shared_server("c")
    pair(a, b)
    pair(a, c)
    a.add_peer("offline", b, Url=f"http://127.0.0.1:{free_port()}/")
    start_together(a, b, c)
    return a, b, c


@pytest.fixture
def servers(all_three: Servers) -> Iterator[Servers]:
    yield all_three
    remove_rules(all_three[0])
    for server in all_three:
        server.clear()


def test_a_study_that_is_stable_is_sent(servers: Servers) -> None:
    a, b, _ = servers
    set_rule(a)
    arrived = study(a)
    ended = wait_ended(a, arrived)
    assert has(b, [arrived])
    assert (ended["Rule"], ended["Origin"], ended["Peer"], ended["Attempts"]) == (
        "all",
        "StableStudy",
        "b",
        1,
    )
    assert a.job(ended["Job"])["State"] == "Success"
    assert queue(a) == []


def test_instances_that_arrive_later_are_sent_as_a_difference(servers: Servers) -> None:
    a, b, _ = servers
    set_rule(a)
    files = list(small_instances(5))
    first = a.upload_all(files[:3])[0]["ParentStudy"]
    wait_ended(a, first)
    a.upload_all(files[3:])
    wait_until(lambda: states(a, first) == ["Done", "Done"], "both changes are sent")
    again = a.job(wait_ended(a, first)["Job"])["Content"]
    assert (again["TotalInstances"], again["AlreadyStoredInstances"]) == (5, 3)
    assert b.md5s() == a.md5s()


@pytest.mark.parametrize(
    ("trigger", "level", "kind"),
    [
        ("StablePatient", None, "Patient"),
        ("StableSeries", None, "Series"),
        ("NewInstance", None, "Instance"),
        ("NewInstance", "Study", "Study"),
        ("StableSeries", "Study", "Study"),
    ],
)
def test_triggers_and_levels(servers: Servers, trigger: str, level: str | None, kind: str) -> None:
    a, b, _ = servers
    set_rule(a, Trigger=trigger, **({} if level is None else {"Level": level}))
    study(a, 3)
    wait_until(lambda: b.md5s() == a.md5s(), "all is there")
    wait_until(lambda: not queue(a), "the queue is empty")
    entries = history(a, rule="all")
    assert {(one["Resource"]["Level"], one["State"]) for one in entries[:1]} == {(kind, "Done")}


def test_only_what_the_filter_takes(servers: Servers) -> None:
    a, b, _ = servers
    set_rule(a, Filter={"Modality": "CT", "Tags": {"PatientName": "*Ann*"}})
    set_rule(a, "rest", to="c", Filter={"Modality": "MR"})
    taken = {one["ParentStudy"] for one in a.upload_all(ct_study(2, name="Ann"))}
    left = {one["ParentStudy"] for one in a.upload_all(ct_study(2, name="Bob"))}
    wait_ended(a, *taken)
    wait_until(lambda: not queue(a), "the others were looked at")
    assert set(b.get("studies")) == taken
    assert states(a, *left) == []


def test_each_condition_of_a_filter_looks_at_what_is_stored(servers: Servers) -> None:
    a, _, _ = servers
    arrived = a.upload_all(ct_study(3, name="Ann^Lee", size=64))[0]["ParentStudy"]
    conditions: list[tuple[dict[str, Any], bool]] = [
        ({"Modality": ["MR", "CT"]}, True),
        ({"Modality": "MR"}, False),
        ({"RemoteAET": "SCANNER*"}, False),
        ({"Tags": {"PatientName": "ann*", "0008,1030": "*"}}, True),
        ({"Tags": {"PatientName": "*bob*"}}, False),
        ({"MinInstances": 3, "MaxInstances": 3}, True),
        ({"MinInstances": 4}, False),
        ({"MaxSizeMB": 1}, True),
        ({"MinSizeMB": 1}, False),
        ({"NotFrom": "b"}, True),
    ]
    if a.get("system").get("HasLabels"):
        a.put(f"studies/{arrived}/labels/research")
        conditions += [({"Labels": "research"}, True), ({"Labels": {"None": ["research"]}}, False)]
    for conditions_of_one, fits in conditions:
        set_rule(a, Trigger="Manual", Filter=conditions_of_one)
        asked = {"DryRun": True, "Resources": [resource("Study", arrived)]}
        (row,) = a.post("transfers/rules/all/run", asked)["Resources"]
        assert (row["Why"] is None) is fits, (conditions_of_one, row)


def test_the_next_destination_takes_what_the_first_cannot(servers: Servers) -> None:
    a, b, _ = servers
    set_rule(a, to=["offline", "b"])
    arrived = study(a)
    assert wait_ended(a, arrived)["Peer"] == "b"
    assert has(b, [arrived])


def test_all_destinations_get_it_each_in_its_time(servers: Servers) -> None:
    a, b, c = servers
    set_rule(a, to=["b", "offline", "c"], Deliver="All")
    arrived = study(a)
    wait_until(lambda: has(b, [arrived]) and has(c, [arrived]), "two have it")
    wait_until(lambda: sorted(states(a, arrived)) == ["Done", "Done", "Waiting"], "one waits")
    wait_until(lambda: "offline" in (queue(a)[0]["Said"] or ""), "it says why")
    assert [waiting["Destination"] for waiting in queue(a)] == ["offline"]
    wait_until(
        lambda: a.get("transfers/rules")["UnreachablePeers"] == ["offline"], "the peer is known to be away"
    )


def test_priority_and_compression_are_those_of_the_rule(servers: Servers) -> None:
    a, _, _ = servers
    set_rule(a, Priority=7, Compression="none")
    job = a.job(wait_ended(a, study(a))["Job"])
    assert (job["Priority"], job["Content"]["Compression"]) == (7, "none")


def test_outside_its_window_it_waits(servers: Servers) -> None:
    a, b, _ = servers
    set_rule(a, Window=closed_now())
    arrived = study(a)
    wait_until(lambda: states(a, arrived) == ["Waiting"], "it is queued")
    assert not b.get("studies")
    set_rule(a)
    wait_ended(a, arrived)
    assert has(b, [arrived])


def test_what_runs_is_paused_outside_its_window_and_a_pause_of_a_user_stays(
    servers: Servers, quickly: Callable[[], None]
) -> None:
    a, b, _ = servers
    set_rule(a, Compression="none")
    sent = {one["ParentStudy"] for _ in range(2) for one in a.upload_all(ct_study(2))}

    def running() -> list[str]:
        jobs = [one["Job"] for one in queue(a) if one["Job"]]
        return [job for job in jobs if a.job(job)["State"] == "Running"]

    wait_until(lambda: len(running()) == 2, "both run")
    users, ours = running()
    a.post(f"jobs/{users}/pause")
    wait_until(lambda: a.job(users)["State"] == "Paused", "the user has paused one")
    set_rule(a, Compression="none", Window=closed_now())
    wait_until(lambda: outside(a) == {ours}, "the other is paused outside of the window")
    wait_until(lambda: a.job(ours)["State"] == "Paused", "it rests")
    set_rule(a, Compression="none")
    wait_until(lambda: not outside(a), "the window is open")
    quickly()
    assert a.wait_for_job(ours)["State"] == "Success"
    assert a.job(users)["State"] == "Paused"
    a.post(f"jobs/{users}/resume")
    for one in sent:
        assert wait_ended(a, one)["Attempts"] == 1
    assert has(b, sent)


@pytest.mark.usefixtures("quickly")
def test_what_is_paused_outside_the_window_of_a_rule_is_not_sent_once_that_is_deleted(
    servers: Servers,
) -> None:
    a, b, _ = servers
    set_rule(a, Compression="none")
    (sent,) = {one["ParentStudy"] for one in a.upload_all(ct_study(2))}
    wait_until(lambda: any(one["Job"] for one in queue(a)), "it runs")
    set_rule(a, Compression="none", Window=closed_now())
    wait_until(lambda: outside(a), "it is paused")
    (job,) = outside(a)
    (rule,) = (one["Name"] for one in a.get("transfers/rules")["Rules"])
    a.delete(f"transfers/rules/{rule}")
    assert "its rule was deleted" in wait_ended(a, sent, "Dropped")["Said"]
    assert a.job(job)["State"] == "Failure"
    assert not has(b, [sent])


@pytest.fixture
def quickly(servers: Servers) -> Iterator[Callable[[], None]]:
    """``a`` sends 10 KB in a second, until this is called or the test ends."""
    a = servers[0]

    def no_longer() -> None:
        a.put("transfers/settings", {"Bandwidth": None})

    a.put("transfers/settings", {"Bandwidth": {"LimitKBs": 10}})
    yield no_longer
    no_longer()


def outside(server: OrthancServer) -> set[str]:
    """Jobs that are paused until their window opens."""
    return {one["Job"] for one in queue(server) if one["OutsideWindow"]}


def test_a_rule_that_cannot_work_is_named_and_the_others_run(servers: Servers) -> None:
    a, b, _ = servers
    set_rule(a, "lost", to="nobody")
    set_rule(a)
    wait_ended(a, study(a))
    shown = {one["Name"]: one for one in a.get("transfers/rules")["Rules"]}
    assert shown["all"]["Problem"] is None
    assert "'nobody'" in shown["lost"]["Problem"]
    assert "rule lost cannot work, the others do: \"Destinations\" names 'nobody'" in a.log
    # What it would have sent is sent once the peer is there.
    wait_until(lambda: shown_counts(a, "lost")["Waiting"] == 1, "it waits for its peer")
    a.put("peers/nobody", {"Url": b.url})
    try:
        wait_until(lambda: shown_counts(a, "lost")["Done"] == 1, "it is sent", timeout=120)
    finally:
        a.delete("peers/nobody")


def shown_counts(server: OrthancServer, name: str) -> dict[str, int]:
    counts: dict[str, int] = server.get(f"transfers/rules/{name}")["Counts"]
    return counts


def test_a_study_that_was_deleted_meanwhile_is_said_in_the_history(servers: Servers) -> None:
    a, _, _ = servers
    set_rule(a, to="offline")
    arrived = study(a)
    wait_until(lambda: [one["Attempts"] for one in queue(a)] == [1], "it was tried")
    a.delete(f"studies/{arrived}")
    assert "deleted here" in wait_ended(a, arrived, "Dropped")["Said"]


def test_a_rule_that_is_deleted_drops_what_waits_and_one_that_is_changed_sends_it_elsewhere(
    servers: Servers,
) -> None:
    a, _, c = servers
    set_rule(a, "changed", to=["offline"], Deliver="All")
    set_rule(a, "deleted", Window=closed_now())
    arrived = study(a)
    wait_until(lambda: states(a, arrived) == ["Waiting", "Waiting"], "both wait")
    a.delete("transfers/rules/deleted")
    assert "deleted" in wait_ended(a, arrived, "Dropped")["Said"]
    set_rule(a, "changed", to=["c"], Deliver="All")
    wait_ended(a, arrived)
    assert has(c, [arrived])


def test_by_hand_and_a_dry_run(servers: Servers) -> None:
    a, b, _ = servers
    first, second = study(a), study(a)
    set_rule(a, "hand", Trigger="Manual")
    would = a.post("transfers/rules/hand/run", {"DryRun": True})
    assert {one["ID"] for one in would["WouldSend"]} == {first, second}
    assert (would["Count"], would["Complete"]) == (2, True)
    one = a.post("transfers/rules/hand/run", {"Resources": [resource("Study", first)], "DryRun": True})
    assert one["Resources"] == [{"Level": "Study", "ID": first, "Queued": False, "Why": None}]
    assert history(a, rule="hand") == queue(a) == []
    a.post("transfers/rules/hand/run", {"Resources": [resource("Study", first)]})
    wait_ended(a, first)
    assert not has(b, [second])
    assert [one["ID"] for one in a.post("transfers/rules/hand/run", {"DryRun": True})["WouldSend"]] == [
        second
    ]
    assert a.post("transfers/rules/hand/run", {})["Started"]
    wait_ended(a, second)
    assert states(a, first) == ["Done"]


def test_what_was_sent_is_deleted_here(servers: Servers) -> None:
    a, b, _ = servers
    set_rule(a, After={"Delete": True})
    arrived = study(a, 3)
    ended = wait_ended(a, arrived)
    assert ended["Said"] == "deleted here, 3 instances"
    assert not a.get("studies")
    assert has(b, [arrived])


def test_what_was_sent_gets_metadata(servers: Servers) -> None:
    a, _, _ = servers
    set_rule(a, After={"SetMetadata": {"1030": "sent"}})
    arrived = study(a)
    wait_ended(a, arrived)
    assert a.download(f"studies/{arrived}/metadata/1030") == b"sent"


def test_what_was_sent_gets_a_label(servers: Servers) -> None:
    a, _, _ = servers
    set_rule(a, After={"AddLabel": "sent"})
    arrived = study(a)
    ended = wait_ended(a, arrived)
    if "Labels" in a.get(f"studies/{arrived}"):
        assert a.get(f"studies/{arrived}/labels") == ["sent"]
    else:
        assert "not marked" in ended["Said"]  # before Orthanc 1.12


def test_what_a_c_plus_plus_peer_took_is_marked_and_not_deleted(servers: Servers) -> None:
    a, _, _ = servers
    with CppPeer() as peer:
        a.put("peers/cpp", {"Url": peer.url})
        set_rule(a, to="cpp", After={"SetMetadata": {"1030": "sent"}})
        marked = study(a)
        wait_ended(a, marked)
        set_rule(a, to="cpp", After={"Delete": True})
        kept = study(a)
        ended = wait_ended(a, kept)
    assert a.download(f"studies/{marked}/metadata/1030") == b"sent"
    assert "does not confirm" in ended["Said"]
    assert has(a, [kept])


def test_rules_are_kept_over_a_restart(servers: Servers) -> None:
    a, b, _ = servers
    set_rule(a, Priority=3)
    a.restart()
    # Its HTTP server responds a moment before the rules are there.
    (shown,) = wait_until(lambda: a.get("transfers/rules")["Rules"], "the rules are read")
    assert (shown["Source"], shown["Rule"]["Priority"]) == ("RunTime", 3)
    arrived = study(a)
    wait_ended(a, arrived)
    assert has(b, [arrived])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"Trigger": "Whenever"}, '"Trigger"'),
        ({"Destinations": []}, '"Destinations"'),
        ({"Filter": {"Modalty": "CT"}}, "Modality"),
        ({"Retry": "soon"}, '"Retry"'),
        ({"Windows": []}, '"Window"'),
        ({"After": {"Delete": True, "AddLabel": "x"}}, "delete"),
        ({"Compression": "rar"}, '"Compression"'),
    ],
)
def test_a_bad_rule_is_refused_with_a_sentence(servers: Servers, body: dict[str, Any], said: str) -> None:
    a, _, _ = servers
    answer = a.request("POST", "transfers/rules", json={**rule(), **body})
    assert answer.status_code == 400
    assert said in answer.json()["Details"]
    assert a.get("transfers/rules")["Rules"] == []


def test_names_conflicts_and_unknown_rules(servers: Servers) -> None:
    a, _, _ = servers
    a.post("transfers/rules", rule())
    assert a.request("POST", "transfers/rules", json=rule()).status_code == 409
    assert a.request("PUT", "transfers/rules/other", json=rule()).status_code == 400
    assert a.request("GET", "transfers/rules/none").status_code == 404
    assert a.request("DELETE", "transfers/rules/none").status_code == 404
    assert a.request("GET", "transfers/queue?state=Done").status_code == 400
    form = requests.post(f"{a.url}transfers/rules", data=b"{}", timeout=10)
    assert form.status_code == 415


def test_metrics(servers: Servers) -> None:
    a, _, _ = servers
    set_rule(a, "to-offline", to="offline")
    study(a)
    wait_until(lambda: queue(a), "it waits")

    def waiting() -> bool:
        text = a.download("tools/metrics-prometheus").decode()
        return all(
            f"orthanc_transfers_rules_waiting_{name} 1" in text
            for name in ("to_offline", "to_offline_to_offline")
        )

    wait_until(waiting, "the metric counts it")
