"""How buckets are cut."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.core.model import Bucket, Chunk, Instance, Manifest
from orthanc_transfers.core.paths import chunks_v1
from orthanc_transfers.core.planner import (
    MAX_PATH,
    MAX_RANGES,
    RangePlan,
    plan_buckets,
    plan_pull,
)
from orthanc_transfers.core.ranges import Range, RangeSet

MD5 = "0" * 32


def manifest_of(*sizes: int) -> Manifest:
    """Instances a, b, c… of these sizes."""
    return Manifest(Instance(chr(ord("a") + index), size, MD5) for index, size in enumerate(sizes))


def real_id(number: int) -> str:
    return "-".join([f"{number:08x}"] * 5)


def chunks_of(buckets: Sequence[Bucket]) -> list[list[tuple[str, int, int]]]:
    return [[(chunk.id, chunk.offset, chunk.size) for chunk in bucket.chunks] for bucket in buckets]


# --- version 1, push


def test_small_instances_are_grouped_until_the_target_is_reached() -> None:
    buckets = plan_buckets(manifest_of(40, 40, 40, 40, 40), 100)
    assert chunks_of(buckets) == [
        [("a", 0, 40), ("b", 0, 40), ("c", 0, 40)],
        [("d", 0, 40), ("e", 0, 40)],
    ]


def test_an_instance_of_the_target_or_more_goes_alone() -> None:
    assert chunks_of(plan_buckets(manifest_of(100, 199), 100)) == [[("a", 0, 100)], [("b", 0, 199)]]


def test_an_instance_of_twice_the_target_still_goes_in_one() -> None:
    assert chunks_of(plan_buckets(manifest_of(200), 100)) == [[("a", 0, 200)]]


def test_a_larger_one_is_cut_into_equal_chunks() -> None:
    assert chunks_of(plan_buckets(manifest_of(600), 100)) == [
        [("a", 0, 200)],
        [("a", 200, 200)],
        [("a", 400, 200)],
    ]


def test_cuts_are_even_and_the_last_chunk_takes_the_rest() -> None:
    assert chunks_of(plan_buckets(manifest_of(205), 100)) == [[("a", 0, 104)], [("a", 104, 101)]]


def test_large_instances_come_first_in_order_then_the_small_ones() -> None:
    buckets = plan_buckets(manifest_of(10, 150, 20, 120, 30), 100)
    assert chunks_of(buckets) == [
        [("b", 0, 150)],
        [("d", 0, 120)],
        [("a", 0, 10), ("c", 0, 20), ("e", 0, 30)],
    ]
    assert [bucket.index for bucket in buckets] == [0, 1, 2]


def test_empty_instances_are_in_no_bucket() -> None:
    assert chunks_of(plan_buckets(manifest_of(0, 10, 0), 100)) == [[("b", 0, 10)]]


def test_nothing_needs_no_bucket() -> None:
    assert plan_buckets(Manifest([]), 100) == []
    assert plan_pull(Manifest([]), 100) == []
    assert plan_buckets(manifest_of(0), 100) == []


# --- version 1, pull


def test_a_pull_is_cut_like_a_push() -> None:
    manifest = manifest_of(10, 150, 20, 120, 0, 30, 605)
    assert plan_pull(manifest, 100) == plan_buckets(manifest, 100)


def test_a_pull_of_many_tiny_instances_keeps_its_paths_short() -> None:
    manifest = Manifest(Instance(real_id(number), 2, MD5) for number in range(200))
    buckets = plan_pull(manifest, 4096)
    paths = [chunks_v1(bucket, Codec.GZIP) for bucket in buckets]
    assert max(map(len, paths)) <= MAX_PATH
    # Fewer would be a waste: 35 identifiers and more fit into each but the last.
    assert all(len(bucket.chunks) >= 35 for bucket in buckets[:-1])


def test_a_resumed_pull_fetches_what_is_missing_and_nothing_else() -> None:
    manifest = manifest_of(40, 40, 40, 40)
    missing = RangeSet([Range(0, 40), Range(80, 160)])
    assert chunks_of(plan_pull(manifest, 100, missing)) == [[("a", 0, 40), ("c", 0, 40), ("d", 0, 40)]]


def test_parts_of_an_instance_are_fetched_one_by_one() -> None:
    manifest = manifest_of(40, 400, 40)
    missing = RangeSet([Range(0, 40), Range(100, 140), Range(240, 480)])
    assert chunks_of(plan_pull(manifest, 100, missing)) == [
        [("b", 60, 40)],
        [("b", 200, 200)],
        [("a", 0, 40), ("c", 0, 40)],
    ]


def test_with_nothing_missing_there_is_no_bucket() -> None:
    assert plan_pull(manifest_of(40, 400), 100, RangeSet()) == []


def test_the_path_names_the_instances_and_what_of_them() -> None:
    bucket = Bucket(3, (Chunk("aa-1", 10, 90), Chunk("bb-2", 0, 5)))
    path = chunks_v1(bucket, Codec.GZIP)
    assert path == "/transfers/chunks/aa-1.bb-2?offset=10&size=95&compression=gzip"


def test_an_identifier_that_is_none_cannot_lead_elsewhere() -> None:
    path = chunks_v1(Bucket(0, (Chunk("../../instances?x#\r\n", 0, 5),)), Codec.NONE)
    parts = urlsplit(path)
    assert parts.path.count("/") == 3
    assert parse_qs(parts.query) == {"offset": ["0"], "size": ["5"], "compression": ["none"]}
    assert not parts.fragment


# --- version 2


def planned(missing: Sequence[Range], target: int) -> list[tuple[Range, ...]]:
    return list(RangePlan(missing, lambda left: target))


def test_ranges_have_about_the_target() -> None:
    assert planned([Range(0, 1000)], 100) == [(Range(start, start + 100),) for start in range(0, 1000, 100)]


def test_a_little_more_than_the_target_is_not_cut() -> None:
    assert planned([Range(6, 146)], 100) == [(Range(6, 146),)]


def test_ranges_are_cut_at_even_offsets() -> None:
    assert planned([Range(1, 202)], 100) == [(Range(1, 102),), (Range(102, 202),)]


def test_what_is_missing_here_and_there_shares_a_bucket() -> None:
    gaps = [Range(start, start + 10) for start in range(0, 400, 20)]
    assert planned(gaps, 100) == [tuple(gaps[:10]), tuple(gaps[10:])]


def test_the_address_of_a_bucket_names_no_more_ranges_than_it_may() -> None:
    gaps = [Range(start, start + 1) for start in range(0, 200, 2)]
    assert max(map(len, planned(gaps, 1000))) == MAX_RANGES


def test_a_large_piece_does_not_share_a_bucket() -> None:
    assert planned([Range(0, 50), Range(60, 160)], 100) == [(Range(0, 50),), (Range(60, 160),)]


def test_nothing_missing_needs_no_range() -> None:
    assert planned([], 100) == []
    assert planned([Range(5, 5)], 100) == []
    assert RangePlan([], lambda left: 100).total == 0


def test_buckets_follow_a_target_that_changes() -> None:
    target = 100
    plan = RangePlan([Range(0, 1000)], lambda left: target)
    assert next(plan) == (Range(0, 100),)
    assert plan.total == 10
    target = 300
    assert next(plan) == (Range(100, 400),)
    assert plan.total == 4
    assert [*plan] == [(Range(400, 700),), (Range(700, 1000),)]
    assert plan.total == 4


def test_more_may_be_planned_also_after_the_end() -> None:
    plan = RangePlan([Range(0, 150)], lambda left: 100)
    assert next(plan) == (Range(0, 76),)
    plan.extend([Range(200, 250), Range(250, 250)])
    assert [*plan] == [(Range(76, 150),), (Range(200, 250),)]
    plan.extend([Range(300, 400)])
    assert plan.total == 4
    assert [*plan] == [(Range(300, 400),)]
    assert plan.total == 4


def test_what_is_there_already_counts_as_one_bucket_at_least() -> None:
    assert RangePlan([Range(0, 10)], lambda left: 4096).total == 1


# --- for any manifest

TARGETS = st.integers(1, 200)
SIZES = st.lists(st.integers(0, 1000), max_size=40)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    identifiers = draw(st.sampled_from([str, real_id]))
    return Manifest(Instance(identifiers(index), size, MD5) for index, size in enumerate(draw(SIZES)))


@st.composite
def missing_of(draw: st.DrawFn, manifest: Manifest) -> RangeSet:
    cuts = sorted(draw(st.lists(st.integers(0, manifest.size), max_size=12)))
    return RangeSet(Range(start, stop) for start, stop in zip(cuts[::2], cuts[1::2], strict=False))


def covered_once(manifest: Manifest, buckets: Sequence[Bucket]) -> RangeSet:
    covered = RangeSet()
    for bucket in buckets:
        assert bucket.chunks
        for chunk in bucket.chunks:
            item = manifest.range_of_chunk(chunk)
            assert item.size > 0
            assert covered.missing(item) == RangeSet([item]), "a byte travels twice"
            covered.add(item)
    assert [bucket.index for bucket in buckets] == list(range(len(buckets)))
    return covered


@given(manifests(), TARGETS)
def test_a_push_carries_every_byte_exactly_once(manifest: Manifest, target: int) -> None:
    assert covered_once(manifest, plan_buckets(manifest, target)) == RangeSet([manifest.area])


@given(manifests(), TARGETS)
def test_a_bucket_is_never_larger_than_twice_the_target(manifest: Manifest, target: int) -> None:
    for bucket in plan_buckets(manifest, target) + plan_pull(manifest, target):
        assert bucket.size <= 2 * target
        assert all(chunk.offset % 2 == 0 for chunk in bucket.chunks)


@given(manifests(), TARGETS)
def test_only_the_last_bucket_of_small_instances_has_less_than_the_target(
    manifest: Manifest, target: int
) -> None:
    sizes = {instance.id: instance.size for instance in manifest}
    small = [bucket for bucket in plan_buckets(manifest, target) if sizes[bucket.chunks[0].id] < target]
    assert all(bucket.size >= target for bucket in small[:-1])


@given(st.data(), manifests(), TARGETS)
def test_a_pull_keeps_all_rules_whatever_is_missing(
    data: st.DataObject, manifest: Manifest, target: int
) -> None:
    missing = data.draw(missing_of(manifest))
    buckets = plan_pull(manifest, target, missing)
    assert covered_once(manifest, buckets) == missing
    for bucket in buckets:
        assert bucket.size <= 2 * target
        assert len(chunks_v1(bucket, Codec.GZIP)) <= MAX_PATH
        assert all(chunk.offset == 0 for chunk in bucket.chunks[1:])
        for chunk in bucket.chunks[:-1]:
            assert chunk.offset + chunk.size == manifest.instance(chunk.id).size


@given(st.data(), manifests())
def test_an_area_in_order_is_what_the_receiver_of_chunks_puts_together(
    data: st.DataObject, manifest: Manifest
) -> None:
    """The reading of the other side: instances end to end, from an offset on, so many bytes."""
    missing = data.draw(missing_of(manifest))
    for bucket in plan_pull(manifest, 100, missing):
        bytes_of_bucket: list[tuple[str, int]] = []
        for chunk in bucket.chunks:
            bytes_of_bucket += [(chunk.id, chunk.offset + byte) for byte in range(chunk.size)]
        end_to_end = [
            (chunk.id, byte) for chunk in bucket.chunks for byte in range(manifest.instance(chunk.id).size)
        ]
        offset = bucket.chunks[0].offset
        assert end_to_end[offset : offset + bucket.size] == bytes_of_bucket


@given(st.data(), manifests(), TARGETS)
def test_ranges_cover_what_is_missing_once_and_are_not_too_large(
    data: st.DataObject, manifest: Manifest, target: int
) -> None:
    missing = data.draw(missing_of(manifest))
    plan = RangePlan(missing, lambda left: target)
    buckets = list(plan)
    assert plan.total == len(buckets)
    assert all(0 < sum(item.size for item in bucket) <= 2 * target for bucket in buckets)
    ranges = [item for bucket in buckets for item in bucket]
    assert all(item.size for item in ranges)
    assert all(one.stop <= other.start for one, other in pairwise(ranges))
    assert RangeSet(ranges) == missing
    ends = {item.stop for item in missing}
    assert all(item.stop % 2 == 0 or item.stop in ends for item in ranges)


@pytest.mark.parametrize("plan", [plan_buckets, plan_pull])
def test_a_target_beyond_everything_makes_one_bucket(plan: object) -> None:
    assert callable(plan)
    assert len(plan(manifest_of(10, 20, 30), 10**12)) == 1
