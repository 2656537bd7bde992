"""Routes of peers, where no real Orthanc can show it: instances of gigabytes, which are never read."""

from __future__ import annotations

import pytest

from orthanc_transfers.core.errors import TooLarge
from orthanc_transfers.core.model import Instance
from orthanc_transfers.pipeline.chunk_reader import ChunkReader
from orthanc_transfers.pipeline.instance_cache import InstanceCache
from orthanc_transfers.receiver.pushes import PushService
from orthanc_transfers.receiver.reports import Reports
from orthanc_transfers.rest.connection_budget import ConnectionBudget
from orthanc_transfers.rest.http import Request
from orthanc_transfers.rest.peer_routes import PeerRoutes
from orthanc_transfers.rest.whole_pull import WholePulls
from orthanc_transfers.runtime.cancellation import Cancellation
from orthanc_transfers.runtime.clock import SystemClock
from tests.jobs.memory_store import MemoryStore

GB = 2**30


class LargeStore(MemoryStore):
    """Each instance has a gigabyte, and is not there to be read."""

    def instance(self, identifier: str) -> Instance:
        return Instance(identifier, GB, "0" * 32)

    def read(self, identifier: str) -> memoryview:
        raise AssertionError("nothing is read of what is refused")


@pytest.fixture
def routes() -> PeerRoutes:
    store = LargeStore()
    # What is pushed has no part in this.
    return PeerRoutes(
        store,
        ChunkReader(store, InstanceCache(store, GB)),
        object.__new__(PushService),
        object.__new__(Reports),
        "originator",
        lambda: None,
        Cancellation(),
        ConnectionBudget(50, SystemClock()),
        object.__new__(WholePulls),
    )


@pytest.mark.parametrize("query", [{}, {"size": "0"}, {"offset": "5"}, {"size": str(2 * GB)}])
def test_more_bytes_than_one_response_can_hold_are_refused_before_anything_is_read(
    routes: PeerRoutes, query: dict[str, str]
) -> None:
    with pytest.raises(TooLarge, match="in one response"):
        routes.get_chunks(Request("GET", "", ("a.b.c",), query))
