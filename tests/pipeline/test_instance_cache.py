"""What the cache holds, and for how long."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable

import pytest

from orthanc_transfers.core.errors import UnknownResource
from orthanc_transfers.core.model import Chunk
from orthanc_transfers.pipeline import instance_cache
from orthanc_transfers.pipeline.chunk_reader import SMALL
from orthanc_transfers.pipeline.instance_cache import InstanceCache
from tests.pipeline.file_store import FileStore, files_of, joined, make, manifest_of, wholes


def test_an_instance_is_read_once_however_many_parts_are_asked_for() -> None:
    store = FileStore(files_of(1, 100))
    reader, cache = make(store, 100)
    for offset in (0, 25, 50, 75):
        reader.read([Chunk("i0", offset, 25)])

    assert store.reads == ["i0"]
    assert (cache.misses, cache.hits) == (1, 3)


def test_a_file_whose_bytes_were_all_handed_out_is_dropped() -> None:
    store = FileStore(files_of(2, 100))
    reader, cache = make(store, 1000)
    reader.read([Chunk("i0", 0, 100), Chunk("i1", 0, 60)])

    assert cache.used == 100
    reader.read([Chunk("i1", 60, 40)])
    assert cache.used == 0


def test_views_that_were_handed_out_count_until_they_are_gone() -> None:
    store = FileStore(files_of(1, SMALL))
    reader, cache = make(store, 2 * SMALL)
    held = reader.read([Chunk("i0", 0, SMALL)])
    assert cache.used == SMALL

    del held
    gc.collect()
    assert cache.used == 0


def test_the_least_recently_used_file_is_evicted_first() -> None:
    store = FileStore(files_of(4, 100))
    reader, cache = make(store, 300)
    for name in ("i0", "i1", "i2", "i0", "i3"):
        reader.read([Chunk(name, 0, 10)])
    store.reads.clear()
    for name in ("i0", "i2", "i3", "i1"):
        reader.read([Chunk(name, 10, 10)])

    assert store.reads == ["i1"]
    assert cache.used == 300


# --- several threads


def test_one_read_serves_all_callers_that_ask_at_once() -> None:
    reading = threading.Event()
    go = threading.Event()

    def on_read(name: str) -> None:
        reading.set()
        go.wait()

    store = FileStore(files_of(1, 2 * SMALL), on_read)
    reader, cache = make(store, 10 * SMALL)
    results: list[bytes] = []
    threads = [
        _thread(lambda: results.append(joined(reader.read([Chunk("i0", 0, 2 * SMALL)])))) for _ in range(6)
    ]
    reading.wait()
    wait_for_requests(cache, 6)
    go.set()
    for thread in threads:
        thread.join()

    assert store.reads == ["i0"]
    assert results == [store.files["i0"]] * 6
    assert (cache.misses, cache.hits) == (1, 5)


def test_a_caller_that_waited_for_a_failed_read_reads_again() -> None:
    both_asked = threading.Event()
    fails = iter([True, False])

    def on_read(name: str) -> None:
        both_asked.wait()
        if next(fails):
            raise UnknownResource("for a moment")

    store = FileStore(files_of(1, 10), on_read)
    reader, cache = make(store, 100)
    outcomes: list[object] = []

    def work() -> None:
        try:
            outcomes.append(joined(reader.read([Chunk("i0", 0, 9)])))
        except UnknownResource as error:
            outcomes.append(str(error))

    threads = [_thread(work) for _ in range(2)]
    wait_for_requests(cache, 2)
    both_asked.set()
    for thread in threads:
        thread.join()

    assert sorted(outcomes, key=str) == [store.files["i0"][:9], "for a moment"]
    assert store.reads == ["i0", "i0"]
    assert cache.used == 10


def test_a_caller_that_needs_more_than_is_free_waits_for_what_others_hold() -> None:
    store = FileStore(files_of(3, 2 * SMALL))
    reader, _ = make(store, 4 * SMALL)
    held = [reader.read([Chunk(name, 0, 2 * SMALL)]) for name in ("i0", "i1")]
    results: list[bytes] = []
    thread = _thread(lambda: results.append(joined(reader.read([Chunk("i2", 0, 2 * SMALL)]))))
    thread.join(0.05)
    assert store.reads == ["i0", "i1"]
    held.pop(0)
    thread.join()

    assert results == [store.files["i2"]]


class Name(str):
    """An identifier that calls ``on_use`` whenever it is looked up."""

    __slots__ = ()
    on_use: Callable[[], None] = staticmethod(lambda: None)

    def __hash__(self) -> int:
        Name.on_use()
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)


@pytest.mark.parametrize("moment", range(60))
def test_a_view_that_is_collected_in_the_middle_of_anything_does_no_harm(
    moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_cache, "IMPATIENCE", 0.01)
    files = {Name(name): data for name, data in files_of(4, SMALL).items()}
    first, second, third, fourth = wholes(files)
    reader, cache = make(FileStore(files), 3 * SMALL)
    held = [reader.read([first]), reader.read([second])]
    left = moment

    def on_use() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            held.clear()

    monkeypatch.setattr(Name, "on_use", on_use)
    pieces = reader.read([first, third, fourth], manifest_of(files))

    assert joined(pieces) == files[first.id] + files[third.id] + files[fourth.id]
    del pieces
    held.clear()
    assert cache.used == 0


def test_room_is_made_before_a_file_is_read() -> None:
    """Eight threads that use every file for a moment: memory stays within the capacity and one bucket."""
    size = 4 * SMALL
    store = FileStore(files_of(12, size))
    reader, cache = make(store, 4 * size)
    most = 0

    def work() -> None:
        nonlocal most
        order = list(store.files)
        random.Random(threading.get_ident()).shuffle(order)
        for name in order:
            held = reader.read([Chunk(name, 0, size)])
            most = max(most, cache.used)
            assert joined(held) == store.files[name]
            del held

    threads = [_thread(work) for _ in range(8)]
    for thread in threads:
        thread.join()

    assert most <= 4 * size
    assert cache.used <= 4 * size


def test_two_callers_that_hold_what_the_other_waits_for_do_not_deadlock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(instance_cache, "IMPATIENCE", 0.05)
    size = 2 * SMALL
    store = FileStore(files_of(4, size))
    reader, _ = make(store, 2 * size)
    both = threading.Barrier(2)
    results: list[bytes] = []

    def work(first: str, second: str) -> None:
        held = reader.read([Chunk(first, 0, size)])
        both.wait()
        results.append(joined(reader.read([Chunk(second, 0, size)])))
        both.wait()
        del held

    threads = [_thread(lambda: work("i0", "i1")), _thread(lambda: work("i2", "i3"))]
    for thread in threads:
        thread.join()

    assert sorted(results) == sorted([store.files["i1"], store.files["i3"]])


def test_a_bucket_that_needs_more_than_the_capacity_is_served_alone() -> None:
    store = FileStore(files_of(4, 2 * SMALL))
    reader, cache = make(store, SMALL)
    results: list[bool] = []

    def work() -> None:
        for _ in range(5):
            results.append(joined(reader.read(wholes(store.files))) == joined(store.files.values()))

    threads = [_thread(work) for _ in range(3)]
    for thread in threads:
        thread.join()

    assert results == [True] * 15
    assert cache.used <= 8 * SMALL


def wait_for_requests(cache: InstanceCache, count: int) -> None:
    """Return when so many instances were asked for."""
    while cache.hits + cache.misses < count:
        threading.Event().wait(0.001)


def _thread(target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread
