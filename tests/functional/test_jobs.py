"""Transfers as jobs of Orthanc: pause, resume, cancel, resubmit, several at once, and through restarts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.dicom_data import ct_study, small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer, start_together
from tests.support.ports import free_port
from tests.support.recording_proxy import RecordedRequest, RecordingProxy
from tests.support.slowly import quickly, slowly
from tests.support.waiting import wait_until

pytestmark = pytest.mark.orthanc

KB = 1024
BUCKET = 64 * KB
THREADS = 2
AT_ONCE = 4

# Requests under way at one moment at most: on a slow link there are up to four times the configured connections.
AT_ONE_MOMENT = 4 * THREADS

SLICES = 8
"""Of each study of ``all_kinds``, half a MB each."""

KINDS = [("send", "b1"), ("send", "b2"), ("pull", "b1"), ("pull", "b2")]


@dataclass(frozen=True)
class World:
    """``a`` sends to and fetches from ``b``, over a slow link, behind a proxy for each version."""

    a: OrthancServer
    b: OrthancServer
    proxies: dict[str, RecordingProxy]


@pytest.fixture(scope="module")
def shared(make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    a = make_shared_server(
        "a",
        configuration={
            "ConcurrentJobs": AT_ONCE,
            "Transfers": {
                "BucketSize": BUCKET // KB,
                "Threads": THREADS,
                "MaxPeerBandwidth": 12,
                "MaxOutage": 1,
            },
        },
    )
    b = make_shared_server("b", user="alice", password="wonderland")
    folder = tmp_path_factory.mktemp("nginx")
    with RecordingProxy(folder / "1", b, version=1) as proxy1, RecordingProxy(folder / "2", b) as proxy2:
        proxies = {"b1": proxy1, "b2": proxy2}
        for name, proxy in proxies.items():
            a.add_peer(name, b, Url=proxy.url)
        a.add_peer("offline", b, Url=f"http://127.0.0.1:{free_port()}/")
        a.add_peer("wrong-password", b, Password="looking-glass")
        start_together(a, b)
        yield World(a, b, proxies)


@pytest.fixture
def world(shared: World) -> World:
    """The same servers for all tests of this file, empty at the start of each."""
    quickly(shared.a)
    for server in (shared.a, shared.b):
        server.clear()
    for proxy in shared.proxies.values():
        proxy.forget()
    return shared


def stored(server: OrthancServer, files: Iterable[bytes]) -> list[dict[str, str]]:
    return [resource("Study", one) for one in {item["ParentStudy"] for item in server.upload_all(files)}]


SLOW = 500
"""KB a second, of all transfers of ``a``: none ends before that was seen which a test waits for."""


def slow_study() -> Iterator[bytes]:
    """A bit more than 3 MB, which take about 2 s, and 6 s when it is ``SLOW``."""
    return ct_study(6)


def size_of(server: OrthancServer) -> int:
    return sum(int(server.get(f"instances/{one}/attachments/dicom/size")) for one in server.instances())


def wait_for_content(server: OrthancServer, job: str, enough: Callable[[dict[str, Any]], bool]) -> None:
    def reached() -> bool:
        known = server.job(job)
        assert known["State"] in ("Pending", "Running") or "Waiting" in known["Content"], known
        return enough(known["Content"])

    wait_until(reached, f"job {job}")


def under_way(server: OrthancServer, job: str) -> None:
    """Wait until the transfer has carried something, and is far from its end."""
    wait_for_content(server, job, lambda content: content.get("CompletedHttpQueries", 0) >= 8)


def paused(server: OrthancServer, job: str) -> dict[str, Any]:
    server.post(f"jobs/{job}/pause")
    return server.wait_for_job(job, ["Paused", "Success"])


def succeeded(server: OrthancServer, job: str) -> dict[str, Any]:
    known = server.wait_for_job(job)
    assert known["State"] == "Success", known
    return known


def error_of(server: OrthancServer, job: str) -> str:
    known = server.wait_for_job(job)
    assert known["State"] == "Failure", known
    return str(known["Content"]["Error"])


def slots_left(server: OrthancServer) -> int:
    metrics = server.request("GET", "tools/metrics-prometheus").text
    (line,) = (line for line in metrics.splitlines() if line.startswith("orthanc_transfers_available_push_"))
    return int(float(line.split()[1]))


def carried(proxy: RecordingProxy) -> list[RecordedRequest]:
    """The requests that brought bytes and were answered."""
    return [
        seen
        for seen in proxy.requests
        if seen.status == 200 and (seen.method == "PUT" or "/chunks" in seen.uri)
    ]


def size_carried(seen: RecordedRequest) -> int:
    return seen.length if seen.method == "PUT" else seen.answered


def bytes_carried(proxy: RecordingProxy) -> int:
    return sum(map(size_carried, carried(proxy)))


def in_flight(proxy: RecordingProxy, methods: Container[str] = ("PUT", "GET", "POST")) -> int:
    """Bytes that may have been under way, and arrived or not, when a transfer was interrupted.

    Buckets follow the link: the largest requests may all have run at that moment.
    """
    sizes = sorted(size_carried(seen) for seen in carried(proxy) if seen.method in methods)
    return sum(sizes[-AT_ONE_MOMENT:])


def bytes_cut(proxy: RecordingProxy) -> int:
    """Of buckets whose sender hung up before the answer (nginx's 499): some of them arrived all the same."""
    return sum(seen.length for seen in proxy.of("PUT") if seen.status == 499)


def started(world: World, route: str, peer: str, **options: Any) -> str:
    """A slow transfer of what is there, without compression."""
    here = world.a if route == "send" else world.b
    resources = [resource("Study", study) for study in here.get("studies")]
    body = {"Resources": resources, "Peer": peer, "Compression": "none", **options}
    return str(world.a.post(f"transfers/{route}", body)["ID"])


# -- Pause, resume, cancel, resubmit -------------------------------------------------------------------


@pytest.mark.parametrize("route", ["send", "pull"])
@pytest.mark.parametrize("peer", ["b1", "b2"])
def test_a_paused_transfer_rests_and_then_goes_on_where_it_was(world: World, route: str, peer: str) -> None:
    here, there = (world.a, world.b) if route == "send" else (world.b, world.a)
    stored(here, slow_study())
    size = size_of(here)
    proxy = world.proxies[peer]
    with slowly(world.a, kbs=SLOW):
        job = started(world, route, peer, SenderTransferID="paused")
        under_way(world.a, job)
        assert paused(world.a, job)["State"] == "Paused"

    # While another transfer comes and goes, not a byte of this one does.
    before = len(carried(proxy))
    (small,) = here.upload_all(small_instances(1))
    other = world.a.post(
        f"transfers/{route}", {"Resources": [resource("Instance", small["ID"])], "Peer": peer}
    )
    succeeded(world.a, other["ID"])
    of_other = [seen for seen in carried(proxy)[before:] if seen.transfer != "paused"]
    assert len(carried(proxy)) - before <= len(of_other) + THREADS
    there_now = bytes_carried(proxy)
    assert there_now < size

    world.a.post(f"jobs/{job}/resume")
    done = succeeded(world.a, job)
    assert there.md5s() == here.md5s()
    assert done["Content"]["ResumedSizeMB"] >= 0
    small_size = int(here.get(f"instances/{small['ID']}/attachments/dicom/size"))
    assert size - bytes_cut(proxy) <= bytes_carried(proxy) <= size + small_size + in_flight(proxy)


@pytest.mark.parametrize("peer", ["b1", "b2"])
def test_no_bucket_is_sent_twice_but_those_that_a_pause_cut(world: World, peer: str) -> None:
    stored(world.a, slow_study())
    proxy = world.proxies[peer]
    with slowly(world.a, kbs=SLOW):
        job = started(world, "send", peer)
        for _ in range(2):
            before = len(carried(proxy))
            wait_until(lambda: len(carried(proxy)) >= before + 4, "some more are carried")  # noqa: B023
            assert paused(world.a, job)["State"] == "Paused"
            world.a.post(f"jobs/{job}/resume")
    done = succeeded(world.a, job)
    paths = [seen.uri for seen in carried(proxy)]
    assert len(paths) - len(set(paths)) <= 2 * THREADS
    # One creation of version 1 serves for all; version 2 asks again what is missing.
    creations = [seen for seen in proxy.of("POST") if seen.uri.endswith("/push")]
    assert len(creations) == (1 if peer == "b1" else 3)
    if peer == "b1":  # version 2 cuts what is missing anew
        assert done["Content"]["CompletedHttpQueries"] == len(set(paths))
    size = size_of(world.a)
    assert size - bytes_cut(proxy) <= bytes_carried(proxy) <= size + 2 * in_flight(proxy)
    assert world.b.md5s() == world.a.md5s()


@pytest.mark.parametrize("route", ["send", "pull"])
def test_progress_never_goes_back(world: World, route: str) -> None:
    stored(world.a if route == "send" else world.b, slow_study())
    seen: list[int] = []

    def watch(states: tuple[str, ...]) -> bool:
        known = world.a.job(job)
        seen.append(known["Progress"])
        return known["State"] in states

    with slowly(world.a, kbs=SLOW):
        job = started(world, route, "b2")
        wait_until(lambda: watch(("Running",)) and seen[-1] >= 20 and len(set(seen)) > 5, "a fifth is done")
        world.a.post(f"jobs/{job}/pause")
        wait_until(lambda: watch(("Paused",)), "the job pauses")
    world.a.post(f"jobs/{job}/resume")
    wait_until(lambda: watch(("Success",)), "the job succeeds")
    assert seen == sorted(seen)
    assert seen[-1] == 100


@pytest.mark.parametrize("peer", ["b1", "b2"])
def test_a_canceled_push_is_deleted_on_the_receiver_and_can_be_resubmitted(world: World, peer: str) -> None:
    stored(world.a, slow_study())
    proxy = world.proxies[peer]
    with slowly(world.a, kbs=SLOW):
        job = started(world, "send", peer, SenderTransferID="canceled")
        under_way(world.a, job)
        assert slots_left(world.b) == 3
        world.a.post(f"jobs/{job}/cancel")
        world.a.wait_for_job(job, ["Failure"])
    wait_until(lambda: slots_left(world.b) == 4, "the receiver's slot is free again")
    (deletion,) = proxy.wait_for("DELETE", "push")
    assert deletion.transfer == "canceled"
    wait_until(lambda: staged(world.b) < 100 * KB, "what was received is deleted")
    assert world.b.instances() == []

    world.a.post(f"jobs/{job}/resubmit")
    done = succeeded(world.a, job)
    assert "Error" not in done["Content"]
    assert world.b.md5s() == world.a.md5s()
    wait_until(lambda: slots_left(world.b) == 4, "the receiver's slot is free again")


def test_a_canceled_pull_leaves_nothing_and_can_be_resubmitted(world: World) -> None:
    stored(world.b, slow_study())
    with slowly(world.a, kbs=SLOW):
        job = started(world, "pull", "b2")
        under_way(world.a, job)
        world.a.post(f"jobs/{job}/cancel")
        world.a.wait_for_job(job, ["Failure"])

    wait_until(lambda: staged(world.a) < 100 * KB, "what was received is deleted")
    assert world.a.instances() == []
    world.a.post(f"jobs/{job}/resubmit")
    succeeded(world.a, job)
    assert world.a.md5s() == world.b.md5s()


@pytest.mark.parametrize("route", ["send", "pull"])
def test_a_failed_job_can_be_resubmitted_once_its_cause_is_gone(world: World, route: str) -> None:
    here, there = (world.a, world.b) if route == "send" else (world.b, world.a)
    files = list(small_instances(3))
    stored(here, files)
    job = started(world, route, "b2")
    succeeded(world.a, job)
    here.clear()
    there.clear()
    body = {"Resources": world.a.job(job)["Content"]["Resources"], "Peer": "b2"}
    again = world.a.post(f"transfers/{route}", body)["ID"]
    assert body["Resources"][0]["ID"] in error_of(world.a, again)
    here.upload_all(files)
    world.a.post(f"jobs/{again}/resubmit")
    done = succeeded(world.a, again)
    assert "Error" not in done["Content"]
    assert there.md5s() == here.md5s()


# -- Several at once -----------------------------------------------------------------------------------


def test_jobs_run_side_by_side_and_those_that_wait_show_nothing_yet(world: World) -> None:
    studies = [stored(world.a, ct_study(3, seed=number)) for number in range(AT_ONCE + 1)]
    with slowly(world.a, kbs=SLOW):
        jobs = [world.a.send(study, "b2", Compression="none")["ID"] for study in studies]
        # Each of the first ones carries bytes while the last one waits.
        for job in jobs[:-1]:
            wait_for_content(world.a, job, lambda content: content.get("CompletedHttpQueries", 0) > 0)
        states = {job: world.a.job(job) for job in jobs}
    assert [states[job]["State"] for job in jobs] == ["Running"] * AT_ONCE + ["Pending"]
    assert states[jobs[-1]]["Content"] == {}
    assert states[jobs[-1]]["Progress"] == 0
    for job in jobs:
        succeeded(world.a, job)
    assert world.b.md5s() == world.a.md5s()


# -- Errors --------------------------------------------------------------------------------------------


def test_a_wrong_password_is_told_without_the_password(world: World) -> None:
    stored(world.a, small_instances(1))
    for route in ("send", "pull"):
        body = {"Resources": [resource("Study", world.a.get("studies")[0])], "Peer": "wrong-password"}
        error = error_of(world.a, world.a.post(f"transfers/{route}", body)["ID"])
        assert "wrong-password" in error
        assert "401" in error
        assert "password" in error.replace("wrong-password", "")
        for secret in ("looking-glass", "wonderland"):
            assert secret not in error
            assert secret not in world.a.log


def test_an_unreachable_peer_is_waited_for_and_then_named(world: World) -> None:
    stored(world.a, small_instances(1))
    job = started(world, "send", "offline")
    wait_for_content(world.a, job, lambda content: "Waiting" in content)
    error = error_of(world.a, job)
    assert "offline" in error
    assert "refused" in error
    assert "127.0.0.1" in error


def staged(server: OrthancServer) -> int:
    """Bytes that are kept of transfers, their reports and the list of past ones aside."""
    folder = server.storage / "Transfers"
    return sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in ("reports", "history")
    )


# -- Restarts ------------------------------------------------------------------------------------------


def jobs_are_saved(server: OrthancServer) -> None:
    """Wait until Orthanc has written its jobs into its database, which it does soon after a new one."""
    file = server.storage / "index-wal"
    before = file.stat().st_mtime_ns
    # A job that fails at once is a new job as well.
    server.wait_for_job(server.pull([resource("Study", "none")], "b2")["ID"])
    wait_until(lambda: file.stat().st_mtime_ns > before, "the jobs are saved")


@dataclass(frozen=True)
class Transfer:
    route: str
    peer: str
    job: str
    size: int

    @property
    def methods(self) -> tuple[str, ...]:
        return ("PUT",) if self.route == "send" else ("GET", "POST")

    def carried(self, world: World) -> int:
        proxy = world.proxies[self.peer]
        return sum(size_carried(seen) for seen in carried(proxy) if seen.method in self.methods)


def all_kinds(world: World) -> list[Transfer]:
    """A push and a pull of each version, each of a study of its own, all under way; slow until ``quickly``."""
    studies = []
    for number, (route, _) in enumerate(KINDS):
        here = world.a if route == "send" else world.b
        (study,) = stored(here, ct_study(SLICES, seed=number))
        studies.append((study, int(here.get(f"studies/{study['ID']}/statistics")["DicomDiskSize"])))
    world.a.put("transfers/settings", {"Bandwidth": {"LimitKBs": 2 * SLOW}})
    transfers = []
    for (route, peer), (study, size) in zip(KINDS, studies, strict=True):
        body = {"Resources": [study], "Peer": peer, "Compression": "none"}
        job = world.a.post(f"transfers/{route}", body)["ID"]
        transfers.append(Transfer(route, peer, job, size))
    for transfer in transfers:
        under_way(world.a, transfer.job)
    return transfers


def all_finish(world: World, transfers: list[Transfer]) -> None:
    """All succeed, and each carried no more again than what was under way when it was interrupted."""
    quickly(world.a)
    for transfer in transfers:
        # What was saved while it was paused still is.
        if world.a.job(transfer.job)["State"] == "Paused":
            world.a.post(f"jobs/{transfer.job}/resume")
    for transfer in transfers:
        done = succeeded(world.a, transfer.job)
        assert done["Content"]["ResumedSizeMB"] >= 0
        again = transfer.carried(world) - transfer.size
        proxy = world.proxies[transfer.peer]
        assert -bytes_cut(proxy) <= again <= in_flight(proxy, transfer.methods), (
            f"{transfer.route} {transfer.peer}: {again} bytes too many"
        )
    assert world.a.md5s() == world.b.md5s()
    assert len(world.a.instances()) == SLICES * len(transfers)


def test_running_transfers_go_on_after_orthanc_was_stopped_and_started(world: World) -> None:
    transfers = all_kinds(world)
    world.a.restart()
    all_finish(world, transfers)


def test_saved_transfers_go_on_after_orthanc_was_killed(world: World) -> None:
    transfers = all_kinds(world)
    for transfer in transfers[::2]:
        paused(world.a, transfer.job)
    carried_before = [transfer.carried(world) for transfer in transfers]
    jobs_are_saved(world.a)
    world.a.kill()
    world.a.start()
    # What was under way when the process died; and of what ran on, all that came after the jobs were saved.
    for before, transfer in zip(carried_before, transfers, strict=True):
        assert 0 < before < transfer.size, transfer
    all_finish(world, transfers)


def test_finished_jobs_are_still_told_of_after_a_restart(world: World) -> None:
    stored(world.a, small_instances(2))
    good = started(world, "send", "b2")
    shown = succeeded(world.a, good)["Content"]
    bad = world.a.send([resource("Study", "nowhere")], "b2")["ID"]
    error = error_of(world.a, bad)
    world.a.restart()
    assert world.a.job(good)["State"] == "Success"
    assert world.a.job(good)["Content"] == shown
    assert world.a.job(bad)["State"] == "Failure"
    assert world.a.job(bad)["Content"]["Error"] == error


def test_jobs_saved_by_the_c_plugin_are_taken_over(world: World) -> None:
    transfers = all_kinds(world)
    world.a.stop()
    with closing(sqlite3.connect(world.a.storage / "index")) as database:
        # The jobs registry, among the properties of Orthanc's database.
        ((number, text),) = database.execute(
            "SELECT property, value FROM GlobalProperties WHERE value LIKE '%JobsRegistry%'"
        ).fetchall()
        registry = json.loads(text)
        for transfer in transfers:
            ours = registry["Jobs"][transfer.job]["Job"]
            theirs = {key: ours[key] for key in ("Type", "Peer", "Resources", "Compression")}
            registry["Jobs"][transfer.job]["Job"] = theirs
        database.execute(
            "UPDATE GlobalProperties SET value = ? WHERE property = ?", (json.dumps(registry), number)
        )
        database.commit()
    world.a.start()
    quickly(world.a)
    for transfer in transfers:
        succeeded(world.a, transfer.job)
        # Their identifiers were not among what was saved.
        assert world.a.get("transfers/status", params={"id": transfer.job})["Total"] == 1
    assert world.a.md5s() == world.b.md5s()
