"""One PostgreSQL for all tests of a file, and nodes of a cluster in this process."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest

from orthanc_transfers.cluster.cluster import Cluster, join
from orthanc_transfers.cluster.nodes import Timing
from orthanc_transfers.core.settings import Settings, parse_settings
from orthanc_transfers.receiver.ownership import Adoption
from orthanc_transfers.runtime.clock import SystemClock
from tests.support.postgresql import PostgreSQL, postgresql_is_installed

FAST = Timing(lease=1.5, heartbeat=0.2, margin=0.3)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    if not postgresql_is_installed():
        pytest.skip("PostgreSQL is not installed")
    with PostgreSQL() as server:
        yield server


class NodeInTest:
    """A node of a cluster, with what it was told."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.owner = cluster.ownership
        self.adoptions: list[Adoption] = []
        self.fenced = 0
        self.owner.on_adoption(self.adoptions.extend, self._fence)

    def _fence(self) -> None:
        self.fenced += 1

    def silence(self) -> Callable[[], None]:
        """It renews its lease no more, as one that is stopped, until what is returned is called."""
        members = self.owner._members
        beat = members._beat
        members._heartbeat._work = lambda: None
        members.renew = lambda: None  # type: ignore[method-assign]

        def go_on() -> None:
            members._heartbeat._work = beat
            members.renew = beat  # type: ignore[method-assign]

        return go_on


MakeNode = Callable[..., NodeInTest]


@pytest.fixture
def settings(postgresql: PostgreSQL) -> Settings:
    with psycopg.connect(postgresql.uri, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS orthanc_transfers CASCADE")
    return parse_settings({"Cluster": {"ConnectionUri": postgresql.uri}})


@pytest.fixture
def make_node(settings: Settings) -> Iterator[MakeNode]:
    """Nodes with short leases; all leave at the end. ``port``: where one of them reaches the database."""
    with ExitStack() as stack:

        def make(
            *, shared: bool = True, started: bool = True, timing: Timing = FAST, port: int = 0
        ) -> NodeInTest:
            own = settings
            if port:
                uri = re.sub(r":\d+/", f":{port}/", settings.cluster.connection_uri)
                own = parse_settings({"Cluster": {"ConnectionUri": uri}})
            cluster = join(own, {}, SystemClock(), shared_staging=shared, timing=timing)
            stack.callback(cluster.close)
            node = NodeInTest(cluster)
            if started:
                node.owner.start()
            return node

        yield make
