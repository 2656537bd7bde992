"""A small pull is one request: its response has the list of the instances, and their bytes."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.checksum import xxh3
from orthanc_transfers.core.errors import LostFile, PeerUnreachable
from orthanc_transfers.interfaces import PeerResponse, StepOutcome, StopReason
from orthanc_transfers.jobs.restore import reload
from orthanc_transfers.receiver.incoming import IncomingTransfer
from orthanc_transfers.receiver.registry import Registry
from tests.jobs.memory_link import InProcessPeers, once
from tests.jobs.memory_store import STUDY, file
from tests.jobs.two_peers import PeerPair, eventually, finish, make_pair, radiographs, services_of, step_until

CAPABILITIES = "GET /transfers/capabilities"
LOOKUP = "POST /transfers/lookup"
CHUNKS = "POST /transfers/v2/chunks"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[PeerPair]:
    """A study of four files there that fits in one bucket."""
    made = make_pair(tmp_path, BucketSize=64)
    made.there.store.put(*(file(number) for number in range(4)))
    yield made
    made.close()


def carried(pair: PeerPair) -> list[bool]:
    """Of each look-up: whether its response was to have the bytes."""
    return ["transfers-whole" in headers for headers in pair.link.headers if "accept-encoding" in headers]


def test_once_the_capabilities_are_known_it_is_one_request(pair: PeerPair) -> None:
    assert finish(pair.pull()) is StepOutcome.SUCCESS
    assert pair.link.log == [CAPABILITIES, LOOKUP]
    pair.here.store.files.clear()
    pair.link.log.clear()
    job = pair.pull()
    assert finish(job) is StepOutcome.SUCCESS
    assert pair.link.log == [LOOKUP]
    assert pair.here.store.files == pair.there.store.files
    content = job.content()
    assert content["CompletedHttpQueries"] == 1
    assert content["AlreadyStoredInstances"] == 0
    assert content["ResumedSizeMB"] == 0
    assert content["Report"] == {"Stored": 4, "AlreadyStored": 0, "FilteredOut": 0}
    assert content["ImportedInstances"] == 4
    assert job.progress() == 1
    report = pair.here.reports.read(content["Transaction"])
    assert report is not None
    assert [row["Outcome"] for row in report["Instances"]] == ["stored"] * 4


@pytest.mark.parametrize(
    ("compression", "codec"), [("none", "none"), ("zstd", "delta16+zstd"), ("gzip", "delta16+zstd")]
)
def test_its_bytes_are_encoded_as_those_of_buckets(pair: PeerPair, compression: str, codec: str) -> None:
    job = pair.pull(compression=compression)
    assert finish(job) is StepOutcome.SUCCESS
    assert job.content()["Codecs"] == {codec: 1}
    assert pair.here.store.files == pair.there.store.files


def test_its_bytes_are_in_no_file(pair: PeerPair) -> None:
    importing, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        importing.set()
        go_on.wait(30)

    pair.here.store.before_add = wait
    job = pair.pull()
    step_until(job, importing.is_set)
    marker = file(0)[100:400]
    assert not any(marker in path.read_bytes() for path in pair.here.root.rglob("*") if path.is_file())
    go_on.set()
    assert finish(job) is StepOutcome.SUCCESS


def test_no_byte_is_fetched_that_is_here_already(pair: PeerPair) -> None:
    pair.here.store.put(file(0), file(1))
    job = pair.pull()
    assert finish(job) is StepOutcome.SUCCESS
    assert carried(pair) == [False]
    assert pair.link.log == [CAPABILITIES, LOOKUP, CHUNKS]
    assert job.content()["AlreadyStoredInstances"] == 2
    # Nor if all is.
    pair.link.log.clear()
    job = pair.pull()
    assert finish(job) is StepOutcome.SUCCESS
    assert pair.link.log == [LOOKUP]
    assert job.content()["AlreadyStoredInstances"] == 4


def test_what_is_stored_by_another_transfer_meanwhile_counts(pair: PeerPair) -> None:
    def store(request: str, response: PeerResponse) -> PeerResponse:
        if request == LOOKUP:
            pair.here.store.put(file(2))
        return response

    pair.link.after = store
    job = pair.pull()
    assert finish(job) is StepOutcome.SUCCESS
    assert job.content()["Report"] == {"Stored": 3, "AlreadyStored": 1, "FilteredOut": 0}
    assert job.content()["AlreadyStoredInstances"] == 1


def test_instances_that_are_ordered_one_by_one_are_one_request_too(pair: PeerPair) -> None:
    resources = [{"Level": "Instance", "ID": name} for name in pair.there.store.files]
    assert finish(pair.pull(Resources=resources)) is StepOutcome.SUCCESS
    assert pair.link.count(CHUNKS) == 0
    assert pair.here.store.files == pair.there.store.files


def test_a_peer_of_an_earlier_release_is_fetched_from_as_before(pair: PeerPair) -> None:
    def without(request: str, response: PeerResponse) -> PeerResponse:
        body = bytes(response.body)
        return PeerResponse(body.replace(b'"WholePulls": true', b'"Other": 1'), response.headers)

    pair.link.after = without
    assert finish(pair.pull()) is StepOutcome.SUCCESS
    assert carried(pair) == [False]
    assert pair.link.log == [CAPABILITIES, LOOKUP, CHUNKS]
    assert pair.here.store.files == pair.there.store.files


def test_what_does_not_fit_into_a_bucket_comes_in_parts_and_not_twice(pair: PeerPair) -> None:
    pair.there.store.put(file(100, 100_000))
    sizes = []

    def weigh(request: str, response: PeerResponse) -> PeerResponse:
        sizes.append((request, memoryview(response.body).nbytes))
        return response

    pair.link.after = weigh
    assert finish(pair.pull()) is StepOutcome.SUCCESS
    assert pair.link.count(LOOKUP) == 1
    assert dict(sizes)[LOOKUP] < 2000
    assert pair.here.store.files == pair.there.store.files


def test_more_than_the_sender_puts_into_a_bucket_comes_in_parts(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, BucketSize=64)
    pair.there.close()
    pair.there.settings = dataclasses.replace(pair.there.settings, bucket_size=11_999)
    pair.there.start()
    pair.there.store.put(*(file(number) for number in range(4)))
    assert finish(pair.pull()) is StepOutcome.SUCCESS
    assert carried(pair) == [True]
    assert pair.link.count(CHUNKS) == 1
    pair.close()


def test_where_there_is_no_room_no_byte_is_fetched(pair: PeerPair) -> None:
    pair.here.close()
    pair.here.start(max_size=5000)
    pair.services = services_of(pair.here, InProcessPeers([pair.here, pair.there], pair.link))
    job = pair.pull()
    assert finish(job) is StepOutcome.FAILURE
    assert "MaxStagingSize" in (job.failure() or "")
    assert carried(pair) == [True]
    assert pair.link.log == [CAPABILITIES, LOOKUP]


@radiographs
def test_a_radiograph_from_a_near_peer_is_one_request(
    tmp_path: Path, round_trip: float | None, bucket_size: int, compression: str, whole: bool
) -> None:
    with closing(make_pair(tmp_path, BucketSize=bucket_size)) as pair:
        pair.there.store.put(*(file(number, 3_000_000) for number in range(2)))
        pair.link.round_trip = round_trip
        job = pair.pull(compression=compression)
        assert finish(job) is StepOutcome.SUCCESS
        assert (pair.link.count(CHUNKS) == 0) == whole
        assert pair.here.store.files == pair.there.store.files
        if whole:
            assert job.content()["Codecs"] == {"none": 1}


def test_from_a_near_peer_that_turned_out_to_be_slow_requests_stay_small(tmp_path: Path) -> None:
    with closing(make_pair(tmp_path, BucketSize=4096)) as pair:
        pair.there.store.put(*(file(number, 3_000_000) for number in range(2)))
        pair.link.round_trip = 0.001
        known = pair.services.near_compressions.of("there", "http://there:8042/", sends=False)
        known.record(False, 1_000_000, 1.0)
        assert finish(pair.pull()) is StepOutcome.SUCCESS
        assert pair.link.count(CHUNKS) > 0


def test_two_radiographs_are_in_memory_at_once_and_others_come_in_parts(tmp_path: Path) -> None:
    with closing(make_pair(tmp_path, BucketSize=4096)) as pair:
        pair.there.store.put(*(file(number, 3_000_000) for number in range(2)))
        pair.link.round_trip = 0.001
        room = pair.services.large_pulls
        assert room.acquire(blocking=False)
        assert finish(pair.pull()) is StepOutcome.SUCCESS
        assert pair.link.count(CHUNKS) == 0
        assert room.acquire(blocking=False)
        pair.here.store.files.clear()
        assert finish(pair.pull()) is StepOutcome.SUCCESS
        assert pair.link.count(CHUNKS) > 0
        assert pair.here.store.files == pair.there.store.files


def test_so_many_at_once_get_their_bytes_and_the_others_in_parts(pair: PeerPair) -> None:
    pair.there.close()
    pair.there.http_threads = 2
    pair.there.start()
    reading, go_on = threading.Event(), threading.Event()
    reads = pair.there.reader.read

    def read(*arguments: Any) -> list[Buffer]:
        if not reading.is_set():
            reading.set()
            go_on.wait(30)
        return reads(*arguments)

    pair.there.reader.read = read  # type: ignore[method-assign]
    first = pair.pull()
    step_until(first, reading.is_set)
    second = pair.pull()
    assert finish(second) is StepOutcome.SUCCESS
    assert pair.link.count(CHUNKS) == 1
    go_on.set()
    assert finish(first) is StepOutcome.SUCCESS
    assert pair.link.count(CHUNKS) == 1
    pair.here.store.files.clear()
    assert finish(pair.pull()) is StepOutcome.SUCCESS
    assert pair.link.count(CHUNKS) == 1


def test_a_response_that_is_lost_is_asked_for_again(pair: PeerPair) -> None:
    left = [2]

    def lose(request: str, response: PeerResponse) -> PeerResponse:
        if request == LOOKUP and left[0]:
            left[0] -= 1
            raise PeerUnreachable("the connection was reset", "there")
        return response

    pair.link.after = lose
    job = pair.pull()
    assert finish(job) is StepOutcome.SUCCESS
    assert job.content()["Report"] == {"Stored": 4, "AlreadyStored": 0, "FilteredOut": 0}
    assert pair.link.count(LOOKUP) == 3


def test_a_damaged_response_is_asked_for_again(pair: PeerPair) -> None:
    left = [1]

    def damage(request: str, response: PeerResponse) -> PeerResponse:
        if request == LOOKUP and left[0]:
            left[0] -= 1
            return PeerResponse(bytes(response.body)[:-3] + b"xyz", response.headers)
        return response

    pair.link.after = damage
    assert finish(pair.pull()) is StepOutcome.SUCCESS
    assert pair.link.count(LOOKUP) == 2
    assert pair.here.store.files == pair.there.store.files


def test_a_file_that_is_damaged_there_is_found_before_anything_is_imported(pair: PeerPair) -> None:
    (name,) = pair.there.store.put(file(2))
    pair.there.store.listed[name] = "0" * 32
    job = pair.pull()
    assert finish(job) is StepOutcome.FAILURE
    assert name in (job.failure() or "")
    assert pair.here.store.files == {}
    assert pair.here.registry.memory_free == 64 * 1024 * 1024
    del pair.there.store.listed[name]
    job.reset()
    assert finish(job) is StepOutcome.SUCCESS
    assert pair.here.store.files == pair.there.store.files


def test_a_refused_instance_fails_the_job_and_is_named(pair: PeerPair) -> None:
    (name,) = pair.there.store.put(file(2))
    pair.here.store.refused.add(name)
    job = pair.pull()
    assert finish(job) is StepOutcome.FAILURE
    assert name in (job.failure() or "")
    assert pair.here.store.files == {}
    pair.here.store.refused.clear()
    job.reset()
    assert finish(job) is StepOutcome.SUCCESS
    assert pair.here.store.files == pair.there.store.files


def test_another_process_than_the_one_that_asked_for_it_is_not_trusted_with_it(pair: PeerPair) -> None:
    job = pair.pull(Originator="somebody else")
    assert finish(job) is StepOutcome.FAILURE
    assert "is not the Orthanc that asked for this transfer" in (job.failure() or "")
    assert pair.here.store.files == {}
    assert pair.here.registry.all() == []
    assert finish(pair.pull(Originator=pair.there.originator)) is StepOutcome.SUCCESS


def test_a_resource_that_the_peer_lacks_is_an_error(pair: PeerPair) -> None:
    job = pair.pull(Resources=[{"Level": "Study", "ID": STUDY[:-1] + "2"}])
    assert finish(job) is StepOutcome.FAILURE
    assert "lacks one of the resources" in (job.failure() or "")


@pytest.mark.parametrize("times", [1, 2])
def test_a_restart_while_it_waits_for_the_response_begins_anew(pair: PeerPair, times: int) -> None:
    job = pair.pull()
    for _ in range(times):
        hold = pair.link.hold(LOOKUP)
        step_until(job, hold.reached.is_set)
        job = pair.restart(job)
    assert finish(job) is StepOutcome.SUCCESS
    assert pair.link.count(CHUNKS) == 0
    assert pair.here.store.files == pair.there.store.files


def hold_import(pair: PeerPair, after: int) -> tuple[threading.Event, threading.Event]:
    """Hold imports once so many are done; the events are "held" and "go on"."""
    held, go_on, done = threading.Event(), threading.Event(), [0]

    def wait() -> None:
        if done[0] >= after:
            held.set()
            go_on.wait(30)
        done[0] += 1

    pair.here.store.before_add = wait
    return held, go_on


def test_a_cancel_during_the_import_leaves_nothing(pair: PeerPair) -> None:
    held, go_on = hold_import(pair, 2)
    job = pair.pull()
    step_until(job, held.is_set)
    threading.Timer(0.05, go_on.set).start()
    job.stop(StopReason.CANCELED)
    eventually(lambda: pair.here.store.files == {})
    eventually(lambda: pair.here.unfinished() == 0)
    assert pair.here.registry.memory_free == 64 * 1024 * 1024
    # Its log is still there.
    pair.here.restart()
    assert pair.here.registry.all() == []


def test_a_pause_during_the_import_gives_the_memory_back_and_the_job_begins_anew(pair: PeerPair) -> None:
    held, go_on = hold_import(pair, 2)
    job = pair.pull()
    step_until(job, held.is_set)
    threading.Timer(0.05, go_on.set).start()
    job.stop(StopReason.PAUSED)
    eventually(lambda: pair.here.store.files == {})
    eventually(lambda: pair.here.registry.memory_free == 64 * 1024 * 1024)
    assert finish(job) is StepOutcome.SUCCESS
    assert pair.here.store.files == pair.there.store.files


@pytest.mark.parametrize("imported", [0, 2, 3])
def test_a_restart_during_the_import_goes_on(pair: PeerPair, imported: int) -> None:
    held, go_on = hold_import(pair, imported)
    job = pair.pull()
    step_until(job, held.is_set)
    threading.Timer(0.05, go_on.set).start()
    again = pair.restart(job)
    assert finish(again) is StepOutcome.SUCCESS
    assert pair.here.store.files == pair.there.store.files
    assert pair.here.unfinished() == 0


@pytest.mark.parametrize("adopted", [False, True])
def test_an_import_that_is_found_only_once_its_bytes_were_fetched_again_goes_on(
    pair: PeerPair, adopted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, end = hold_import(pair, 0)
    job = pair.pull()
    step_until(job, held.is_set)
    ended = Registry._ended

    def slowly(self: Registry, transfer: IncomingTransfer) -> None:
        time.sleep(0.1)
        ended(self, transfer)

    monkeypatch.setattr(Registry, "_ended", slowly)
    monkeypatch.setattr(Registry, "recover", lambda self: self.resume(self.all(), adopted=adopted))
    again = pair.restart(job)
    pair.here.store.before_add = lambda: None
    pair.here.store.before_md5s = lambda _: time.sleep(0.3)  # looks up what that import has brought: nothing
    find, log = pair.here.registry.find, pair.link.log
    log.clear()
    pair.link.headers.clear()
    # In a cluster it is another node's, until this one has taken over.
    pair.here.registry.find = lambda *key: find(*key) if LOOKUP in log else None  # type: ignore[method-assign]
    try:
        assert finish(again) is StepOutcome.SUCCESS, again.failure()
        assert carried(pair)[0]
        assert pair.here.store.files == pair.there.store.files
        assert pair.here.unfinished() == 0
    finally:
        end.set()


@pytest.mark.parametrize("imported", [0, 2])
def test_what_the_peer_got_while_an_import_was_interrupted_is_fetched_once_it_has_ended(
    pair: PeerPair, imported: int
) -> None:
    held, end = hold_import(pair, imported)
    job = pair.pull()
    step_until(job, held.is_set)
    again = pair.restart(job)
    pair.here.store.before_add = lambda: None
    pair.here.store.before_md5s = lambda _: time.sleep(0.3)
    pair.there.store.put(file(4))
    try:
        assert finish(again) is StepOutcome.SUCCESS, again.failure()
        assert pair.here.store.files == pair.there.store.files
        assert pair.here.unfinished() == 0
    finally:
        end.set()


def test_a_restart_after_the_import_finds_the_outcome(pair: PeerPair) -> None:
    job = pair.pull()
    saved = job.serialized()
    assert finish(job) is StepOutcome.SUCCESS
    transaction = job.content()["Transaction"]
    pair.link.log.clear()
    pair.here.store.before_add = pytest.fail
    pair.here.restart()
    pair.services = services_of(pair.here, InProcessPeers([pair.here, pair.there], pair.link))
    again = reload(pair.services, job.type, json.loads(json.dumps(saved)))
    assert finish(again) is StepOutcome.SUCCESS
    assert pair.link.count(CHUNKS) == 0
    assert again.content()["Transaction"] == transaction
    assert again.content()["Report"] == {"Stored": 4, "AlreadyStored": 0, "FilteredOut": 0}
    again.release()


def test_a_file_that_cannot_be_read_there_is_named_as_before(pair: PeerPair) -> None:
    (name,) = pair.there.store.put(file(2))
    reads = pair.there.store.read

    def read(identifier: str) -> memoryview:
        if identifier == name:
            raise LostFile(f"the file of instance {identifier} is lost")
        return reads(identifier)

    pair.there.store.read = read  # type: ignore[method-assign]
    job = pair.pull()
    assert finish(job) is StepOutcome.FAILURE
    assert name in (job.failure() or "")
    assert pair.here.store.files == {}


@pytest.mark.parametrize("instead", [b"", b"\0\0\0\2{}", b"\xff\xff\xff\xff"])
def test_nonsense_is_asked_for_again(pair: PeerPair, instead: bytes) -> None:
    headers = {"transfers-codec": "none", "transfers-xxh3": xxh3([instead])}
    pair.link.after = once("lookup", PeerResponse(instead, headers))
    assert finish(pair.pull()) is StepOutcome.SUCCESS
    assert pair.link.count(LOOKUP) == 2
