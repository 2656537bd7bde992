"""A proxy that takes small requests only: buckets and announcements become smaller, and stay so for that peer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from orthanc_transfers.core.errors import PeerStatus
from orthanc_transfers.interfaces import PeerResponse, StepOutcome
from tests.jobs.memory_server import KB
from tests.jobs.memory_store import file
from tests.jobs.two_peers import PeerPair, eventually, finish, make_pair

BUCKETS = {1: "PUT /transfers/push/[^/]+/[0-9]+", 2: "PUT /transfers/v2/push/.*"}
CREATION = {1: "POST /transfers/push", 2: "POST /transfers/v2/push"}


class Proxy:
    """413 to every request of more than ``limit`` bytes."""

    def __init__(self, made: PeerPair, limit: int) -> None:
        self.limit = limit
        self.refused: list[tuple[str, int]] = []
        self.passed: list[tuple[str, int]] = []
        made.link.before = self

    def __call__(self, request: str, body: bytes) -> bytes:
        if len(body) > self.limit:
            self.refused.append((request, len(body)))
            page = b"<html><h1>413 Request Entity Too Large</h1></html>"
            raise PeerStatus(f"peer 'there' answered {request} with 413", "there", 413, body=page)
        self.passed.append((request, len(body)))
        return body

    def refusals(self, pattern: str) -> int:
        return sum(bool(re.fullmatch(pattern, request)) for request, _ in self.refused)


@pytest.fixture(params=[1, 2], ids=["version1", "version2"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def made(tmp_path: Path, version: int) -> Iterator[PeerPair]:
    """Buckets of 1 MB to a peer of either version."""
    pair = make_pair(tmp_path, version=version, BucketSize=1024)
    pair.here.store.put(*(file(number, 900 * KB) for number in range(3)), file(3, 3000 * KB))
    yield pair
    pair.close()


@pytest.mark.parametrize("limit", [600 * KB, 300 * KB, 128 * KB])
def test_buckets_are_halved_until_they_pass(made: PeerPair, version: int, limit: int) -> None:
    proxy = Proxy(made, limit)
    assert finish(made.push(compression="none")) is StepOutcome.SUCCESS
    assert made.there.store.files == made.here.store.files
    assert proxy.refused
    sizes = [size for request, size in proxy.passed if re.fullmatch(BUCKETS[version], request)]
    # No smaller than what is needed.
    assert max(sizes) > limit // 4


def test_the_next_transfer_to_that_peer_knows_it(made: PeerPair) -> None:
    proxy = Proxy(made, 300 * KB)
    assert finish(made.push(compression="none")) is StepOutcome.SUCCESS
    made.there.store.files.clear()
    proxy.refused.clear()
    assert finish(made.push(compression="none")) is StepOutcome.SUCCESS
    assert made.there.store.files == made.here.store.files
    assert proxy.refused == []


def test_what_passes_at_no_size_is_an_error_that_says_what_to_do(made: PeerPair, version: int) -> None:
    proxy = Proxy(made, 20 * KB)
    job = made.push(compression="none")
    assert finish(job) is StepOutcome.FAILURE
    error = job.content()["Error"]
    size = min(size for request, size in proxy.refused if request.startswith("PUT"))
    assert 64 * KB <= size <= 128 * KB
    assert re.search(
        r"something in front of this peer takes no request of \d+ bytes: raise its limit there"
        r" \(client_max_body_size of nginx\), or lower BucketSize here$",
        error,
    ), error
    assert int(re.findall(r"(\d+) bytes", error)[0]) <= 128 * KB
    eventually(lambda: made.there.unfinished() == (0 if version == 1 else 1))


def test_a_smaller_bucket_size_is_kept_to(tmp_path: Path, version: int) -> None:
    small = make_pair(tmp_path, version=version, BucketSize=8)
    small.here.store.put(*(file(number, 9 * KB) for number in range(5)), file(5, 100 * KB))
    try:
        Proxy(small, 20 * KB)
        assert finish(small.push(compression="none")) is StepOutcome.SUCCESS
        assert small.there.store.files == small.here.store.files
    finally:
        small.close()


@pytest.fixture
def long(tmp_path: Path) -> Iterator[PeerPair]:
    """Many tiny instances."""
    pair = make_pair(tmp_path, version=2, BucketSize=1024)
    pair.here.store.put(*(file(number, 40) for number in range(12_000)))
    yield pair
    pair.close()


def test_a_long_announcement_goes_in_parts(long: PeerPair) -> None:
    proxy = Proxy(long, 150 * KB)
    assert finish(long.push()) is StepOutcome.SUCCESS
    assert long.there.store.files == long.here.store.files
    assert proxy.refusals(CREATION[2])
    assert sum(request == CREATION[2] for request, _ in proxy.passed) > 3

    # What is known is not tried again.
    long.there.store.files.clear()
    proxy.refused.clear()
    assert finish(long.push()) is StepOutcome.SUCCESS
    assert long.there.store.files == long.here.store.files
    assert proxy.refused == []


def test_a_peer_that_takes_no_parts_is_told_what_to_change(long: PeerPair) -> None:
    def as_before(request: str, answer: PeerResponse) -> PeerResponse:
        return PeerResponse(bytes(answer.body).replace(b'"Parts": true', b'"Parts": false'), answer.headers)

    long.link.after = as_before
    Proxy(long, 150 * KB)
    job = long.push()
    assert finish(job) is StepOutcome.FAILURE
    assert job.content()["Error"].endswith(
        "raise its limit there (client_max_body_size of nginx), or send fewer instances at once"
    )


def test_chunks_of_many_instances_are_asked_for_in_parts(long: PeerPair) -> None:
    long.there.store.files, long.here.store.files = long.here.store.files, {}
    proxy = Proxy(long, 130 * KB)
    assert finish(long.pull()) is StepOutcome.SUCCESS
    assert long.there.store.files == long.here.store.files
    assert proxy.refusals("POST /transfers/v2/chunks")
