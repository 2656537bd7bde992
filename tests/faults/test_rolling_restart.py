"""A node of a cluster stops as its administrator tells it to: a sender that repeats nothing notices nothing."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import requests

from orthanc_transfers.cluster.database import Database
from orthanc_transfers.cluster.schema import identity
from orthanc_transfers.rest.handing_on import HANDED_ON
from tests.faults.failpoint_hooks import FOLDER
from tests.faults.failpoints import Failpoint
from tests.faults.rig import SCRIPT, script_environment
from tests.support.cluster import OrthancCluster
from tests.support.dicom_data import small_instances
from tests.support.orthanc_server import OrthancServer
from tests.support.postgresql import postgresql_is_installed
from tests.support.raw_push import RawPush
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.orthanc,
    pytest.mark.faults,
    pytest.mark.skipif(not postgresql_is_installed(), reason="orthanc-postgresql is not installed"),
]


@contextlib.contextmanager
def started(folder: Path, *, shared: bool) -> Iterator[OrthancCluster]:
    with OrthancCluster(
        folder, size=2, shared=shared, script=SCRIPT, environment=script_environment()
    ) as made:
        for node in made.nodes:
            (node.folder / FOLDER).mkdir(parents=True, exist_ok=True)
        yield made


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancCluster]:
    with started(tmp_path_factory.mktemp("cluster"), shared=True) as made:
        yield made


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancCluster]:
    """Each node has staging of its own."""
    with started(tmp_path_factory.mktemp("apart"), shared=False) as made:
        yield made


class Answer:
    """What a request gets, which is sent at once, and once."""

    def __init__(self, ask: Callable[[], requests.Response]) -> None:
        self._ask = ask
        self._answer: requests.Response | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self._answer = self._ask()

    def get(self) -> requests.Response:
        self._thread.join(60)
        assert self._answer is not None
        return self._answer


def has_left(cluster: OrthancCluster, node: OrthancServer) -> bool:
    """Whether its last start owns nothing any more."""
    with psycopg.connect(cluster.database.uri) as connection:
        row = connection.execute(
            "SELECT released FROM orthanc_transfers.nodes WHERE name = %s ORDER BY number DESC LIMIT 1",
            (node.name,),
        ).fetchone()
    return row is not None and bool(row[0])


@pytest.mark.parametrize("asked", [0, 1], ids=["the-owner-is-asked", "another-is-asked"])
@pytest.mark.parametrize("staging", ["cluster", "apart"])
def test_a_commit_of_version_1_gets_its_response_though_the_node_that_runs_it_stops(
    request: pytest.FixtureRequest, staging: str, asked: int
) -> None:
    cluster: OrthancCluster = request.getfixturevalue(staging)
    cluster.clear()
    owner, other = cluster.nodes
    push = RawPush(owner, 1, list(small_instances(12)))
    push.create()
    push.put_all()
    with Failpoint(owner, "OrthancStore.add before", "slow 0.5") as slow:
        push.server = cluster.nodes[asked]
        answer = Answer(push.commit)
        slow.wait_reached()
        owner.stop()
    assert answer.get().status_code == 200, answer.get().text
    assert other.md5s() == {one["ID"]: one["MD5"] for one in push.instances}
    owner.start()
    assert owner.md5s() == other.md5s()


def test_a_node_says_so_at_once_if_it_has_not_got_what_is_handed_on_to_it(cluster: OrthancCluster) -> None:
    owner, other = cluster.nodes
    push = RawPush(owner, 2, list(small_instances(1)))
    push.create()
    database = Database(cluster.database.uri)
    _, secret = identity(database)
    database.close()
    path = f"/{push.path.lstrip('/')}"
    sent = str(int(time.time()))
    mark = hmac.new(secret.encode(), f"{sent} GET {path}".encode(), hashlib.sha256).hexdigest()
    answer = other.request("GET", path, headers={HANDED_ON: f"{sent}:{mark}"})
    assert answer.status_code == 424
    push.drop()


@pytest.mark.parametrize("version", [1, 2])
def test_a_bucket_that_reaches_a_node_that_stops_is_taken_by_another(
    cluster: OrthancCluster, version: int
) -> None:
    cluster.clear()
    owner, other = cluster.nodes
    push = RawPush(owner, version, list(small_instances(2)))
    push.create()
    name = "PeerRoutes.put_bucket before" if version == 1 else "PeerRoutes.put_ranges before"
    with Failpoint(owner, name, "wait") as waiting:
        answer = Answer(lambda: push.put(0))
        waiting.wait_reached()
        stopping = threading.Thread(target=owner.stop)
        stopping.start()
        wait_until(lambda: has_left(cluster, owner), "the node has left the cluster")
    assert answer.get().status_code == 200, answer.get().text
    stopping.join()
    push.server = other
    assert push.put(1).status_code == 200
    assert push.commit().status_code == 200
    wait_until(lambda: len(other.instances()) == 2, "both are there")
    owner.start()
