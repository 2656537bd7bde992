"""Instance, Manifest, Chunk, Bucket."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core.model import Bucket, Chunk, Instance, Manifest
from orthanc_transfers.core.ranges import Range

MD5 = "0" * 32


def manifest_of(*sizes: int) -> Manifest:
    """Instances a, b, c… of these sizes."""
    return Manifest(Instance(chr(ord("a") + index), size, MD5) for index, size in enumerate(sizes))


def test_an_instance_has_no_negative_size() -> None:
    with pytest.raises(ValueError, match="negative"):
        Instance("a", -1, MD5)


def test_an_instance_is_named_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        Manifest([Instance("a", 1, MD5), Instance("b", 1, MD5), Instance("a", 2, MD5)])


def test_instances_lie_end_to_end() -> None:
    manifest = manifest_of(10, 0, 5)
    assert manifest.size == 15
    assert manifest.area == Range(0, 15)
    assert [manifest.range_of(one) for one in "abc"] == [Range(0, 10), Range(10, 10), Range(10, 15)]
    assert [manifest.index_of(one) for one in "abc"] == [0, 1, 2]


def test_a_manifest_is_a_collection_of_instances() -> None:
    manifest = manifest_of(10, 20)
    assert len(manifest) == 2
    assert [instance.id for instance in manifest] == ["a", "b"]
    assert "a" in manifest
    assert "z" not in manifest
    assert manifest.instance("b").size == 20
    assert manifest == manifest_of(10, 20)
    assert manifest != manifest_of(20, 10)


@pytest.mark.parametrize("ask", [Manifest.instance, Manifest.index_of, Manifest.range_of])
def test_a_name_that_is_not_there_is_an_error(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(KeyError):
        ask(manifest_of(10), "z")


def test_a_manifest_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        manifest_of(10).size = 5  # type: ignore[misc]


def test_a_bucket_is_as_large_as_its_chunks() -> None:
    assert Bucket(0, (Chunk("a", 5, 10), Chunk("b", 0, 3))).size == 13


def test_a_chunk_has_its_range_in_the_area() -> None:
    assert manifest_of(10, 20).range_of_chunk(Chunk("b", 5, 15)) == Range(15, 30)


@pytest.mark.parametrize(
    "chunk", [Chunk("b", 5, 16), Chunk("b", -1, 2), Chunk("b", 2, -1), Chunk("b", 21, 0)]
)
def test_a_chunk_beyond_its_instance_has_none(chunk: Chunk) -> None:
    with pytest.raises(ValueError, match="beyond instance b"):
        manifest_of(10, 20, 30).range_of_chunk(chunk)


def test_a_chunk_of_an_unknown_instance_has_none() -> None:
    with pytest.raises(KeyError):
        manifest_of(10).range_of_chunk(Chunk("z", 0, 1))


def test_a_range_of_the_area_is_chunks_of_its_instances() -> None:
    manifest = manifest_of(10, 0, 20, 30)
    assert manifest.chunks(Range(5, 35)) == (Chunk("a", 5, 5), Chunk("c", 0, 20), Chunk("d", 0, 5))
    assert manifest.chunks(Range(10, 10)) == ()


@given(st.lists(st.integers(0, 20), max_size=10), st.data())
def test_chunks_of_a_range_lie_end_to_end_in_it(sizes: list[int], data: st.DataObject) -> None:
    manifest = manifest_of(*sizes)
    start = data.draw(st.integers(0, manifest.size))
    item = Range(start, data.draw(st.integers(start, manifest.size)))
    position = item.start
    for chunk in manifest.chunks(item):
        item = manifest.range_of_chunk(chunk)
        assert item.start == position
        assert item.size > 0
        position = item.stop
    assert position == item.stop or item.size == 0


@given(st.lists(st.integers(0, 20), max_size=10), st.data())
def test_a_range_overlaps_every_instance_that_has_a_byte_in_it(sizes: list[int], data: st.DataObject) -> None:
    manifest = manifest_of(*sizes)
    start = data.draw(st.integers(0, manifest.size))
    item = Range(start, data.draw(st.integers(start, manifest.size)))
    expected = [
        (instance, manifest.range_of(instance.id))
        for instance in manifest
        if set(range(item.start, item.stop))
        & set(range(manifest.range_of(instance.id).start, manifest.range_of(instance.id).stop))
    ]
    assert list(manifest.overlapping(item)) == expected
