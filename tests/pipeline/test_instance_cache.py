from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.checksum import md5
from orthanc_transfers.core.errors import BadRequest, UnknownResource
from orthanc_transfers.core.model import Chunk, Instance, Manifest
from orthanc_transfers.pipeline import instance_cache as source_module
from orthanc_transfers.pipeline.instance_cache import SMALL, InstanceCache

KB = 1024


class Store:
    """Files in memory; ``reads`` are those that were read, ``listed`` those that were asked for in the index."""

    def __init__(self, files: dict[str, bytes], on_read: Callable[[str], None] = lambda name: None) -> None:
        self.files = files
        self.reads: list[str] = []
        self.listed: list[str] = []
        self.parts: list[tuple[str, int, int]] = []
        self.reads_parts = False
        self._on_read = on_read

    def read_into(self, view: memoryview, identifier: str, offset: int) -> bool:
        if not self.reads_parts:
            return False
        self.parts.append((identifier, offset, len(view)))
        view[:] = self.files[identifier][offset : offset + len(view)]
        return True

    def read(self, identifier: str) -> memoryview:
        self.reads.append(identifier)
        self._on_read(identifier)
        if identifier not in self.files:
            raise UnknownResource(identifier)
        # A copy, as from Orthanc: each read is new memory.
        return memoryview(bytearray(self.files[identifier]))

    def instance(self, identifier: str) -> Instance:
        self.listed.append(identifier)
        if identifier not in self.files:
            raise UnknownResource(identifier)
        return manifest_of(self.files).instance(identifier)


def manifest_of(files: dict[str, bytes]) -> Manifest:
    return Manifest(Instance(name, len(data), md5(data)) for name, data in files.items())


def files_of(count: int, size: int) -> dict[str, bytes]:
    generator = random.Random(count * size)
    return {f"i{number}": generator.randbytes(size) for number in range(count)}


def wholes(files: dict[str, bytes]) -> list[Chunk]:
    return [Chunk(name, 0, len(data)) for name, data in files.items()]


def joined(pieces: Iterable[Buffer]) -> bytes:
    return b"".join(pieces)


def make(store: Store, capacity: int) -> InstanceCache:
    return InstanceCache(store, capacity)  # type: ignore[arg-type]


# --- bytes


@given(
    sizes=st.lists(st.integers(0, 3 * SMALL), min_size=1, max_size=6),
    cuts=st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1), st.floats(0, 1)), max_size=10),
    capacity=st.integers(1, 6 * SMALL),
)
def test_pieces_are_the_bytes_of_the_chunks_in_order(
    sizes: list[int], cuts: list[tuple[int, float, float]], capacity: int
) -> None:
    files = {f"i{place}": random.Random(place).randbytes(size) for place, size in enumerate(sizes)}
    chunks = []
    for place, from_, length in cuts:
        name = f"i{place % len(sizes)}"
        offset = int(from_ * len(files[name]))
        chunks.append(Chunk(name, offset, int(length * (len(files[name]) - offset))))
    expected = b"".join(files[chunk.id][chunk.offset : chunk.offset + chunk.size] for chunk in chunks)

    source = make(Store(files), capacity)

    assert joined(source.pieces(chunks, manifest_of(files))) == expected
    assert joined(source.pieces(chunks)) == expected


def test_large_pieces_are_views_and_small_ones_are_joined() -> None:
    files = files_of(6, 1000) | {"large": bytes(SMALL)} | {"last": b"x"}
    pieces = make(Store(files), 1 << 30).pieces(wholes(files))

    assert [len(piece) for piece in pieces] == [6000, SMALL, 1]
    assert [type(piece) for piece in pieces] == [bytes, memoryview, bytes]


def test_the_chunks_of_a_split_instance_share_its_memory() -> None:
    store = Store(files_of(1, 5 * SMALL))
    source = make(store, 1 << 30)
    (first,) = source.pieces([Chunk("i0", 0, 2 * SMALL)])
    (second,) = source.pieces([Chunk("i0", 2 * SMALL, 3 * SMALL)])

    assert isinstance(first, memoryview)
    assert isinstance(second, memoryview)
    assert first.obj is second.obj
    assert store.reads == ["i0"]


@pytest.mark.parametrize(("offset", "size"), [(0, 11), (10, 1), (-1, 2), (0, -1), (2**70, 1)])
def test_a_chunk_beyond_its_instance_is_refused_before_anything_is_read(offset: int, size: int) -> None:
    store = Store({"i0": b"0123456789", "i1": b"a"})
    source = make(store, 100)

    with pytest.raises(BadRequest, match="i0"):
        source.pieces([Chunk("i1", 0, 1), Chunk("i0", offset, size)])
    assert store.reads == []
    assert source.used == 0


def test_a_file_that_became_shorter_is_noticed() -> None:
    store = Store({"i0": b"0123456789"})
    stale = manifest_of({"i0": b"0123456789 and more"})
    source = make(store, 100)

    with pytest.raises(BadRequest):
        source.pieces([Chunk("i0", 0, 12)], stale)
    assert source.used == 10
    assert joined(source.pieces([Chunk("i0", 0, 10)], stale)) == b"0123456789"


def test_an_unknown_instance_is_named_and_leaves_nothing_behind() -> None:
    store = Store(files_of(2, 10))
    source = make(store, 100)
    stale = manifest_of(store.files | {"gone": b"x"})

    with pytest.raises(UnknownResource, match="gone"):
        source.pieces([*wholes(store.files), Chunk("gone", 0, 1)])
    with pytest.raises(UnknownResource, match="gone"):
        source.pieces([Chunk("i0", 0, 10), Chunk("gone", 0, 1), Chunk("i1", 0, 10)], stale)

    assert source.used == 10
    assert joined(source.pieces(wholes(store.files))) == joined(store.files.values())


# --- sizes


def test_sizes_come_from_the_manifest_where_there_is_one() -> None:
    store = Store(files_of(3, 10))
    make(store, 100).pieces(wholes(store.files), manifest_of(store.files))

    assert store.listed == []


def test_without_a_manifest_an_instance_is_what_the_store_says() -> None:
    store = Store(files_of(1, 10))
    source = make(store, 100)

    assert source.instance("i0").size == 10
    with pytest.raises(UnknownResource):
        source.instance("gone")
    assert joined(source.pieces(wholes(store.files))) == store.files["i0"]
    assert store.listed == ["i0", "gone", "i0"]


@pytest.mark.parametrize("new", [b"9876543210", b"longer than that", b"less"])
def test_an_instance_that_is_stored_anew_is_another_file(new: bytes) -> None:
    store = Store({"i0": b"0123456789"})
    source = make(store, 100)
    old = manifest_of(store.files)
    assert joined(source.pieces([Chunk("i0", 0, 4)], old)) == b"0123"

    store.files["i0"] = new
    assert joined(source.pieces([Chunk("i0", 0, len(new))], manifest_of(store.files))) == new
    assert joined(source.pieces([Chunk("i0", 0, len(new))])) == new
    # Whoever was told of the old one, which is still in memory, gets what it expects.
    assert joined(source.pieces([Chunk("i0", 4, 6)], old)) == b"456789"
    assert store.reads == ["i0", "i0", "i0"]


# --- memory


def test_an_instance_is_read_once_however_many_parts_it_is_asked_for_in() -> None:
    store = Store(files_of(1, 100))
    source = make(store, 100)
    for offset in (0, 25, 50, 75):
        source.pieces([Chunk("i0", offset, 25)])

    assert store.reads == ["i0"]
    assert (source.misses, source.hits) == (1, 3)


def test_a_file_whose_bytes_were_all_handed_out_is_let_go() -> None:
    store = Store(files_of(2, 100))
    source = make(store, 1000)
    source.pieces([Chunk("i0", 0, 100), Chunk("i1", 0, 60)])

    assert source.used == 100
    source.pieces([Chunk("i1", 60, 40)])
    assert source.used == 0


def test_views_that_were_handed_out_count_until_they_are_gone() -> None:
    store = Store(files_of(1, SMALL))
    source = make(store, 2 * SMALL)
    held = source.pieces([Chunk("i0", 0, SMALL)])
    assert source.used == SMALL

    del held
    gc.collect()
    assert source.used == 0


def test_the_least_recently_used_goes_first() -> None:
    store = Store(files_of(4, 100))
    source = make(store, 300)
    for name in ("i0", "i1", "i2", "i0", "i3"):
        source.pieces([Chunk(name, 0, 10)])
    store.reads.clear()
    for name in ("i0", "i2", "i3", "i1"):
        source.pieces([Chunk(name, 10, 10)])

    assert store.reads == ["i1"]
    assert source.used == 300


# --- several threads


def test_one_read_serves_all_who_ask_at_once() -> None:
    reading = threading.Event()
    go = threading.Event()

    def on_read(name: str) -> None:
        reading.set()
        go.wait()

    store = Store(files_of(1, 2 * SMALL), on_read)
    source = make(store, 10 * SMALL)
    results: list[bytes] = []
    threads = [
        _thread(lambda: results.append(joined(source.pieces([Chunk("i0", 0, 2 * SMALL)])))) for _ in range(6)
    ]
    reading.wait()
    wait_for_requests(source, 6)
    go.set()
    for thread in threads:
        thread.join()

    assert store.reads == ["i0"]
    assert results == [store.files["i0"]] * 6
    assert (source.misses, source.hits) == (1, 5)


def test_who_waited_for_a_read_that_failed_reads_himself() -> None:
    both_asked = threading.Event()
    fails = iter([True, False])

    def on_read(name: str) -> None:
        both_asked.wait()
        if next(fails):
            raise UnknownResource("for a moment")

    store = Store(files_of(1, 10), on_read)
    source = make(store, 100)
    outcomes: list[object] = []

    def work() -> None:
        try:
            outcomes.append(joined(source.pieces([Chunk("i0", 0, 9)])))
        except UnknownResource as error:
            outcomes.append(str(error))

    threads = [_thread(work) for _ in range(2)]
    wait_for_requests(source, 2)
    both_asked.set()
    for thread in threads:
        thread.join()

    assert sorted(outcomes, key=str) == [store.files["i0"][:9], "for a moment"]
    assert store.reads == ["i0", "i0"]
    assert source.used == 10


def test_who_needs_more_than_there_is_waits_for_what_others_hold() -> None:
    store = Store(files_of(3, 2 * SMALL))
    source = make(store, 4 * SMALL)
    held = [source.pieces([Chunk(name, 0, 2 * SMALL)]) for name in ("i0", "i1")]
    results: list[bytes] = []
    thread = _thread(lambda: results.append(joined(source.pieces([Chunk("i2", 0, 2 * SMALL)]))))
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
    monkeypatch.setattr(source_module, "IMPATIENCE", 0.01)
    files = {Name(name): data for name, data in files_of(4, SMALL).items()}
    first, second, third, fourth = wholes(files)
    source = make(Store(files), 3 * SMALL)
    held = [source.pieces([first]), source.pieces([second])]
    left = moment

    def on_use() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            held.clear()

    monkeypatch.setattr(Name, "on_use", on_use)
    pieces = source.pieces([first, third, fourth], manifest_of(files))

    assert joined(pieces) == files[first.id] + files[third.id] + files[fourth.id]
    del pieces
    held.clear()
    assert source.used == 0


def test_room_is_made_before_a_file_is_read() -> None:
    """Eight threads that use every file for a moment: memory stays within the capacity and one bucket."""
    size = 4 * SMALL
    store = Store(files_of(24, size))
    source = make(store, 4 * size)
    most = 0

    def work() -> None:
        nonlocal most
        order = list(store.files)
        random.Random(threading.get_ident()).shuffle(order)
        for name in order:
            held = source.pieces([Chunk(name, 0, size)])
            most = max(most, source.used)
            assert joined(held) == store.files[name]
            del held

    threads = [_thread(work) for _ in range(8)]
    for thread in threads:
        thread.join()

    assert most <= 4 * size
    assert source.used <= 4 * size


def test_two_who_hold_what_the_other_waits_for_do_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(source_module, "IMPATIENCE", 0.05)
    size = 2 * SMALL
    store = Store(files_of(4, size))
    source = make(store, 2 * size)
    both = threading.Barrier(2)
    results: list[bytes] = []

    def work(first: str, second: str) -> None:
        held = source.pieces([Chunk(first, 0, size)])
        both.wait()
        results.append(joined(source.pieces([Chunk(second, 0, size)])))
        both.wait()
        del held

    threads = [_thread(lambda: work("i0", "i1")), _thread(lambda: work("i2", "i3"))]
    for thread in threads:
        thread.join()

    assert sorted(results) == sorted([store.files["i1"], store.files["i3"]])


def test_a_bucket_that_needs_more_than_the_capacity_is_served_alone() -> None:
    store = Store(files_of(4, 2 * SMALL))
    source = make(store, SMALL)
    results: list[bool] = []

    def work() -> None:
        for _ in range(5):
            results.append(joined(source.pieces(wholes(store.files))) == joined(store.files.values()))

    threads = [_thread(work) for _ in range(3)]
    for thread in threads:
        thread.join()

    assert results == [True] * 15
    assert source.used <= 8 * SMALL


def wait_for_requests(source: InstanceCache, count: int) -> None:
    """Return when so many instances were asked for."""
    while source.hits + source.misses < count:
        threading.Event().wait(0.001)


def _thread(target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


# --- where the store can read parts of files


def in_parts() -> Store:
    store = Store({"i0": b"a" * 100, "i1": b"b" * 3 * SMALL, "i2": b"c" * 100})
    store.reads_parts = True
    return store


def test_where_the_store_can_only_the_parts_asked_for_are_read_and_nothing_is_held() -> None:
    store = in_parts()
    source = make(store, capacity=10**9)
    chunks = [Chunk("i0", 0, 100), Chunk("i1", 0, 50), Chunk("i1", 1000, 20), Chunk("i2", 10, 5)]
    assert joined(source.pieces(chunks)) == b"a" * 100 + b"b" * 70 + b"c" * 5
    assert store.parts == [(chunk.id, chunk.offset, chunk.size) for chunk in chunks]
    assert (store.reads, source.used, source.misses) == ([], 0, 4)


def test_a_part_that_lies_beyond_its_file_is_refused() -> None:
    with pytest.raises(BadRequest):
        make(in_parts(), capacity=10**9).pieces([Chunk("i1", 3 * SMALL - 10, 11)])


def test_if_the_store_cannot_read_one_of_the_parts_all_go_through_the_cache() -> None:
    store = in_parts()
    read_into = store.read_into
    store.read_into = lambda view, name, offset: name != "i2" and read_into(view, name, offset)  # type: ignore[method-assign]
    source = make(store, capacity=10**9)
    assert joined(source.pieces([Chunk("i0", 0, 100), Chunk("i2", 0, 100)])) == b"a" * 100 + b"c" * 100
    assert sorted(store.reads) == ["i0", "i2"]
