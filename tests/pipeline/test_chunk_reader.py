"""The bytes of chunks, from the cache or read in part."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core.errors import BadRequest, LostFile, UnknownResource
from orthanc_transfers.core.model import Chunk
from orthanc_transfers.pipeline.chunk_reader import SMALL
from tests.pipeline.file_store import FileStore, files_of, joined, make, manifest_of, wholes


@given(
    sizes=st.lists(st.integers(0, 3 * SMALL), min_size=1, max_size=6),
    cuts=st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1), st.floats(0, 1)), max_size=10),
    capacity=st.integers(1, 6 * SMALL),
)
def test_pieces_are_the_bytes_of_the_chunks_in_order(
    sizes: list[int], cuts: list[tuple[int, float, float]], capacity: int
) -> None:
    files = {f"i{index}": random.Random(index).randbytes(size) for index, size in enumerate(sizes)}
    chunks = []
    for index, from_, length in cuts:
        name = f"i{index % len(sizes)}"
        offset = int(from_ * len(files[name]))
        chunks.append(Chunk(name, offset, int(length * (len(files[name]) - offset))))
    expected = b"".join(files[chunk.id][chunk.offset : chunk.offset + chunk.size] for chunk in chunks)

    reader, _ = make(FileStore(files), capacity)

    assert joined(reader.read(chunks, manifest_of(files))) == expected
    assert joined(reader.read(chunks)) == expected


def test_large_pieces_are_views_and_small_ones_are_joined() -> None:
    files = files_of(6, 1000) | {"large": bytes(SMALL)} | {"last": b"x"}
    pieces = make(FileStore(files), 1 << 30)[0].read(wholes(files))

    assert [len(piece) for piece in pieces] == [6000, SMALL, 1]
    assert [type(piece) for piece in pieces] == [bytes, memoryview, bytes]


def test_the_chunks_of_a_split_instance_share_its_memory() -> None:
    store = FileStore(files_of(1, 5 * SMALL))
    reader, _ = make(store, 1 << 30)
    (first,) = reader.read([Chunk("i0", 0, 2 * SMALL)])
    (second,) = reader.read([Chunk("i0", 2 * SMALL, 3 * SMALL)])

    assert isinstance(first, memoryview)
    assert isinstance(second, memoryview)
    assert first.obj is second.obj
    assert store.reads == ["i0"]


@pytest.mark.parametrize(("offset", "size"), [(0, 11), (10, 1), (-1, 2), (0, -1), (2**70, 1)])
def test_a_chunk_beyond_its_instance_is_refused_before_anything_is_read(offset: int, size: int) -> None:
    store = FileStore({"i0": b"0123456789", "i1": b"a"})
    reader, cache = make(store, 100)

    with pytest.raises(BadRequest, match="i0"):
        reader.read([Chunk("i1", 0, 1), Chunk("i0", offset, size)])
    assert store.reads == []
    assert cache.used == 0


def test_a_file_that_became_shorter_is_noticed() -> None:
    store = FileStore({"i0": b"0123456789"})
    stale = manifest_of({"i0": b"0123456789 and more"})
    reader, cache = make(store, 100)

    with pytest.raises(LostFile, match="instance i0 has 10 bytes on this Orthanc, whose index says 19"):
        reader.read([Chunk("i0", 0, 12)], stale)
    assert cache.used == 10
    assert joined(reader.read([Chunk("i0", 0, 10)], stale)) == b"0123456789"


def test_an_unknown_instance_is_named_and_leaves_nothing_behind() -> None:
    store = FileStore(files_of(2, 10))
    reader, cache = make(store, 100)
    stale = manifest_of(store.files | {"gone": b"x"})

    with pytest.raises(UnknownResource, match="gone"):
        reader.read([*wholes(store.files), Chunk("gone", 0, 1)])
    with pytest.raises(UnknownResource, match="gone"):
        reader.read([Chunk("i0", 0, 10), Chunk("gone", 0, 1), Chunk("i1", 0, 10)], stale)

    assert cache.used == 10
    assert joined(reader.read(wholes(store.files))) == joined(store.files.values())


# --- sizes


def test_sizes_come_from_the_manifest_where_there_is_one() -> None:
    store = FileStore(files_of(3, 10))
    make(store, 100)[0].read(wholes(store.files), manifest_of(store.files))

    assert store.listed == []


def test_without_a_manifest_an_instance_is_what_the_store_says() -> None:
    store = FileStore(files_of(1, 10))
    reader, _ = make(store, 100)

    assert joined(reader.read(wholes(store.files))) == store.files["i0"]
    assert store.listed == ["i0"]


@pytest.mark.parametrize("new", [b"9876543210", b"longer than that", b"less"])
def test_an_instance_that_is_stored_again_is_another_file(new: bytes) -> None:
    store = FileStore({"i0": b"0123456789"})
    reader, _ = make(store, 100)
    old = manifest_of(store.files)
    assert joined(reader.read([Chunk("i0", 0, 4)], old)) == b"0123"

    store.files["i0"] = new
    assert joined(reader.read([Chunk("i0", 0, len(new))], manifest_of(store.files))) == new
    assert joined(reader.read([Chunk("i0", 0, len(new))])) == new
    # The old one is still in memory: a caller with the old manifest gets its bytes.
    assert joined(reader.read([Chunk("i0", 4, 6)], old)) == b"456789"
    assert store.reads == ["i0", "i0", "i0"]


# --- where the store can read parts of files


def in_parts() -> FileStore:
    store = FileStore({"i0": b"a" * 100, "i1": b"b" * 3 * SMALL, "i2": b"c" * 100})
    store.reads_parts = True
    return store


def test_a_store_that_reads_parts_is_asked_for_no_more_and_nothing_is_cached() -> None:
    store = in_parts()
    reader, cache = make(store, capacity=10**9)
    chunks = [Chunk("i0", 0, 100), Chunk("i1", 0, 50), Chunk("i1", 1000, 20), Chunk("i2", 10, 5)]
    assert joined(reader.read(chunks)) == b"a" * 100 + b"b" * 70 + b"c" * 5
    assert store.parts == [(chunk.id, chunk.offset, chunk.size) for chunk in chunks]
    assert (store.reads, cache.used, cache.misses, reader.partial_reads) == ([], 0, 0, 4)


def test_a_part_that_lies_beyond_its_file_is_refused() -> None:
    with pytest.raises(BadRequest):
        make(in_parts(), capacity=10**9)[0].read([Chunk("i1", 3 * SMALL - 10, 11)])


def test_if_the_store_cannot_read_one_of_the_parts_all_come_from_the_cache() -> None:
    store = in_parts()
    read_into = store.read_into
    store.read_into = lambda view, name, offset: name != "i2" and read_into(view, name, offset)  # type: ignore[method-assign]
    reader, _ = make(store, capacity=10**9)
    assert joined(reader.read([Chunk("i0", 0, 100), Chunk("i2", 0, 100)])) == b"a" * 100 + b"c" * 100
    assert sorted(store.reads) == ["i0", "i2"]
