"""A transfer keeps to the connections that its peer can spare."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orthanc_transfers.interfaces import PeerResponse, StepOutcome
from tests.jobs.memory_store import file
from tests.jobs.two_peers import PeerPair, finish, make_pair


@pytest.fixture
def made(tmp_path: Path) -> Iterator[PeerPair]:
    """Many small buckets, on either side."""
    both = make_pair(tmp_path, Threads=8)
    both.here.store.put(*(file(number) for number in range(60)))
    yield both
    both.close()


class Counter:
    """Requests under way."""

    def __init__(self, made: PeerPair) -> None:
        self.most = self.now = 0
        self.close: list[bool] = []
        self._made = made
        self._lock = threading.Lock()
        made.link.before, made.link.after = self.before, self.after

    def before(self, request: str, body: bytes) -> bytes:
        if "/v2/push/" in request or "/v2/chunks" in request:
            with self._lock:
                self.now += 1
                self.most = max(self.most, self.now)
            # So that others come meanwhile, if they may.
            threading.Event().wait(0.005)
        return body

    def after(self, request: str, answer: PeerResponse) -> PeerResponse:
        if "/v2/push/" in request or "/v2/chunks" in request:
            with self._lock:
                self.now -= 1
        return answer


@pytest.mark.parametrize("way", ["push", "pull"])
@pytest.mark.parametrize(("threads", "most"), [(1, 1), (4, 2), (50, 8)])
def test_requests_at_once(made: PeerPair, way: str, threads: int, most: int) -> None:
    if way == "pull":
        made.here.store.files, made.there.store.files = made.there.store.files, made.here.store.files
    made.there.http_threads = threads
    made.there.restart()
    counter = Counter(made)
    job = made.push() if way == "push" else made.pull()
    assert finish(job) is StepOutcome.SUCCESS
    assert made.there.store.files == made.here.store.files
    assert counter.most <= most
    assert counter.most > 1 or most == 1
    closing = [headers.get("connection") == "close" for headers in made.link.headers[1:]]
    assert all(closing) == any(closing) == (threads == 1)
