"""Limits on pushes: idle time, number, bytes and instances; and senders that die."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.protocol_matrix import VARIANTS, ProtocolMatrix, start_matrix
from tests.support import process
from tests.support.dicom_data import ct_study, small_instances
from tests.support.fixtures import MakeServer
from tests.support.orthanc_client import resource
from tests.support.orthanc_server import OrthancServer
from tests.support.raw_push import RawPush
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.orthanc, pytest.mark.faults]

IDLE = 2
"""Seconds of PushIdleTimeout."""
SLOTS = 2
INSTANCES = 100
STAGING_MB = 4


@pytest.fixture(scope="module")
def shared(
    make_shared_server: MakeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProtocolMatrix]:
    folder = tmp_path_factory.mktemp("limits")
    limits = {
        "MaxPushTransactions": SLOTS,
        "PushIdleTimeout": IDLE,
        "MaxStagingSize": STAGING_MB,
        "MaxManifestInstances": INSTANCES,
        "MaxHttpRetries": 1,
    }
    a = make_shared_server("a", configuration={"ConcurrentJobs": 8})
    b = make_shared_server("b", configuration={"ConcurrentJobs": 8, "Transfers": limits})
    with start_matrix(a, b, folder, folder / "staging", {}) as matrix:
        yield matrix


@pytest.fixture
def matrix(shared: ProtocolMatrix) -> ProtocolMatrix:
    """The same two Orthancs for all tests of this file, empty at the start of each."""
    shared.clear()
    shared.nothing_is_left()
    return shared


@pytest.fixture(scope="module")
def patient(make_shared_server: MakeServer) -> OrthancServer:
    """The same limits, but no push expires: tests drop theirs."""
    limits = {"MaxPushTransactions": SLOTS, "MaxStagingSize": STAGING_MB}
    return make_shared_server("patient", configuration={"Transfers": limits}).start()


def drop_all(pushes: Iterable[RawPush]) -> None:
    for push in pushes:
        if push.path:
            push.drop()


def files(count: int = 3) -> list[bytes]:
    return list(small_instances(count))


def store(server: OrthancServer, data: list[bytes]) -> list[dict[str, str]]:
    return [resource("Study", server.upload_all(data)[0]["ParentStudy"])]


def metrics(server: OrthancServer) -> dict[str, float]:
    text = server.get("tools/metrics-prometheus")
    return {name: float(value) for name, value in re.findall(r"^orthanc_transfers_(\w+) (\S+)", text, re.M)}


def test_a_push_of_version_2_that_finds_no_slot_is_told_when_to_come_again(patient: OrthancServer) -> None:
    pushes = [RawPush(patient, 2, files()) for _ in range(SLOTS + 1)]
    for push in pushes[:SLOTS]:
        assert push.create().status_code == 200
    refused = pushes[-1].create()
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert "MaxPushTransactions" in refused.json()["Details"]
    pushes[0].drop()
    assert pushes[-1].create().status_code == 200
    drop_all(pushes[1:])


def test_a_push_of_version_1_that_finds_no_slot_is_held_until_there_is_one(patient: OrthancServer) -> None:
    pushes = [RawPush(patient, 1, files()) for _ in range(SLOTS + 1)]
    for push in pushes[:SLOTS]:
        assert push.create().status_code == 200
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(pushes[-1].create)
        assert pushes[0].put(0).status_code == 200
        assert not held.done()
        pushes[0].drop()
        assert held.result().status_code == 200
    drop_all(pushes[1:])


@pytest.mark.parametrize("variant", ["push-1", "push-2"])
def test_more_pushes_than_slots_all_go_through(matrix: ProtocolMatrix, variant: str) -> None:
    studies = [store(matrix.a, files(5)) for _ in range(3 * SLOTS)]
    transfers = [matrix.start(variant, resources) for resources in studies]
    for transfer in transfers:
        transfer.succeed()
    assert matrix.b.md5s() == matrix.a.md5s()


@pytest.mark.parametrize("version", [1, 2])
def test_an_instance_that_no_plugin_can_import_is_refused_before_a_byte_is_sent(
    matrix: ProtocolMatrix, version: int
) -> None:
    push = RawPush(matrix.b, version, files(2))
    push.instances[1]["Size"] = str(2**32)
    refused = push.create()
    assert refused.status_code == 413
    assert refused.json()["Details"] == (
        f"instance {push.instances[1]['ID']} has 4294967296 bytes, and a plugin can hand at most 4294967295 to Orthanc:"
        " transfer the others without it"
    )
    assert matrix.receiving() == []
    for _ in range(SLOTS):
        assert RawPush(matrix.b, 2, files(2)).create().status_code == 200, "it has taken no slot"


@pytest.mark.parametrize("version", [1, 2])
def test_an_abandoned_push_expires_with_all_its_bytes(matrix: ProtocolMatrix, version: int) -> None:
    push = RawPush(matrix.b, version, files())
    push.create()
    push.put(0)
    matrix.nothing_is_left()
    # Its bytes go a moment after its identifier.
    wait_until(lambda: not list(matrix.staging.glob("*/area")), "no byte of it is left")
    assert push.put(1).status_code == push.commit().status_code == 404
    assert matrix.b.instances() == []


@pytest.mark.parametrize("version", [1, 2])
def test_a_push_that_is_continued_now_and_then_does_not_expire(matrix: ProtocolMatrix, version: int) -> None:
    push = RawPush(matrix.b, version, files())
    push.create()
    for _ in range(2):
        # Others, that are abandoned, come and go meanwhile.
        other = RawPush(matrix.b, 3 - version, files())
        other.create()
        wait_until(lambda: push.put(0).status_code != 200 or not folder(matrix, other).exists(), "expiry")  # noqa: B023
    for index in range(3):
        assert push.put(index).status_code == 200
    assert push.commit().status_code == 200
    wait_until(lambda: len(matrix.b.instances()) == 3, "the import")


def folder(matrix: ProtocolMatrix, push: RawPush) -> Path:
    """Where its bytes are."""
    return matrix.staging / push.path.rpartition("/")[2]


@pytest.mark.parametrize("version", [1, 2])
def test_all_that_is_being_received_stays_below_the_limit_on_staging(
    patient: OrthancServer, version: int
) -> None:
    first, second = (RawPush(patient, version, list(ct_study(5))) for _ in range(2))
    assert first.create().status_code == 200
    refused = second.create()
    assert refused.status_code == 507
    said = refused.json()["Details"]
    assert re.findall(r"\d{6,}", said) == [str(second.size), str(STAGING_MB * 1024 * 1024 - first.size)]
    assert "MaxStagingSize" in said
    assert first.drop().status_code == 200
    assert second.create().status_code == 200
    second.drop()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_transfer_of_too_many_instances_is_refused_before_anything_is_staged(
    matrix: ProtocolMatrix, variant: str
) -> None:
    transfer = matrix.start(variant, store(matrix.a, files(INSTANCES + 1)))
    said = transfer.failure()
    assert f"{INSTANCES + 1} instances" in said
    assert "MaxManifestInstances" in said
    assert ("413" in said) == variant.startswith("push")
    assert matrix.receiving() == []
    assert matrix.b.instances() == []
    transfer = matrix.start(variant, [resource("Instance", one) for one in matrix.a.instances()[:INSTANCES]])
    transfer.succeed()


@pytest.mark.parametrize("variant", ["push-2", "pull-2"])
def test_reports_older_than_their_retention_go_when_others_come(matrix: ProtocolMatrix, variant: str) -> None:
    def transfer() -> str:
        return f"transfers/reports/{matrix.start(variant, store(matrix.a, files())).succeed()['Transaction']}"

    old = transfer()
    assert matrix.b.get(old)["State"] == "committed"
    matrix.b.stop()
    for path in (matrix.staging / "reports").iterdir():
        written = path.stat().st_mtime - 31 * 86400
        os.utime(path, (written, written))
    # The log of transfers in memory, which has the report too, forgets it after PushIdleTimeout.
    shutil.rmtree(matrix.staging / "in-memory")
    # At the start, and then once an hour, old ones are looked for.
    matrix.b.start()
    new = transfer()
    assert matrix.b.get(new)["State"] == "committed"
    assert matrix.b.request("GET", old).status_code == 404


@pytest.mark.parametrize("variant", ["push-1", "push-2"])
def test_senders_that_are_slow_or_dead_do_not_delay_others_for_long(
    matrix: ProtocolMatrix, variant: str
) -> None:
    resources = store(matrix.a, files(5))
    with ExitStack() as stack:
        for number in range(SLOTS):
            dead = RawPush(matrix.b, 1 + number % 2, files())
            assert dead.create().status_code == 200
        for _ in range(20):
            # Each keeps a thread of Orthanc's HTTP server: it announces more bytes than it sends.
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", matrix.b.http_port)))
            head = f"PUT {dead.path}/0/9000 HTTP/1.1\r\nHost: b\r\nContent-Length: 9000\r\n\r\n"
            connection.sendall(head.encode() + bytes(100))
        matrix.start(variant, resources).succeed()
    assert matrix.b.md5s() == matrix.a.md5s()


def test_a_thousand_abandoned_pushes_leave_nothing_behind(make_server: MakeServer, tmp_path: Path) -> None:
    half = 500
    options = {
        "StagingDirectory": str(tmp_path / "staging"),
        "MaxPushTransactions": 2 * half,
        "PushIdleTimeout": IDLE,
    }
    server = make_server("server", configuration={"Transfers": options}).start()
    data = files(2)

    def abandon(number: int) -> int:
        push = RawPush(server, 1 + number % 2, data)
        status = push.create().status_code
        if number % 10 < 2:
            status = max(status, push.put(0).status_code)
        return status

    used = []
    for _ in range(2):
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(abandon, range(half))) == {200}
        wait_until(
            lambda: {path.name for path in (tmp_path / "staging").iterdir()} == {"lock", "history"}, "expiry"
        )
        used.append([measure(server.pid) for measure in MEASURES])
    (files_1, threads_1, memory_1), (files_2, threads_2, memory_2) = used
    # The first half has made what is kept: connections, threads, contexts of codecs.
    assert files_2 <= files_1 + 8
    assert threads_2 <= threads_1 + 8
    assert memory_2 <= memory_1 + 8_000_000
    found = metrics(server)
    assert found["created_push_count"] == found["aborted_push_count"] == 2 * half
    assert found["available_push_count"] == 2 * half


MEASURES = (process.open_files, process.threads, process.memory)
