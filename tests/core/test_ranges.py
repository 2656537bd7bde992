"""Sets of bytes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_transfers.core.ranges import Range, RangeSet, cut

LENGTH = 40


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    start = draw(st.integers(0, LENGTH))
    return Range(start, draw(st.integers(start, LENGTH)))


def members(items: RangeSet | list[Range]) -> set[int]:
    return {byte for item in items for byte in range(item.start, item.stop)}


def is_canonical(found: RangeSet) -> bool:
    """Sorted, disjoint, not even touching, none empty."""
    items = list(found)
    return all(item.size > 0 for item in items) and all(
        one.stop < other.start for one, other in itertools.pairwise(items)
    )


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 4)])
def test_a_range_does_not_run_backwards(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="not a range"):
        Range(start, stop)


def test_ranges_that_touch_become_one() -> None:
    assert list(RangeSet([Range(0, 5), Range(10, 15), Range(5, 10)])) == [Range(0, 15)]


def test_a_hole_makes_two_of_one() -> None:
    found = RangeSet([Range(0, 10)])
    found.discard(Range(4, 6))
    assert list(found) == [Range(0, 4), Range(6, 10)]


def test_an_empty_range_adds_nothing() -> None:
    found = RangeSet([Range(5, 5)])
    assert not found


def test_a_set_that_changes_cannot_be_hashed() -> None:
    with pytest.raises(TypeError):
        hash(RangeSet())


def test_a_set_shows_its_ranges() -> None:
    assert repr(RangeSet([Range(1, 2)])) == "RangeSet([Range(start=1, stop=2)])"
    assert RangeSet([Range(1, 2)]) != [Range(1, 2)]


@given(st.lists(st.tuples(st.booleans(), ranges()), max_size=20), ranges())
def test_it_behaves_like_a_set_of_numbers(changes: list[tuple[bool, Range]], question: Range) -> None:
    found, expected = RangeSet(), set[int]()
    for added, item in changes:
        if added:
            found.add(item)
            expected |= members([item])
        else:
            found.discard(item)
            expected -= members([item])
    asked = members([question])
    assert members(found) == expected
    assert is_canonical(found)
    assert found.size == len(expected)
    assert bool(found) == bool(expected)
    missing = found.missing(question)
    assert members(missing) == asked - expected
    assert is_canonical(missing)
    first_gap = min(asked - expected, default=question.stop)
    assert found.prefix(question) == first_gap - question.start


@given(st.lists(ranges()))
def test_the_order_of_additions_does_not_matter(items: list[Range]) -> None:
    assert RangeSet(items) == RangeSet(reversed(items)) == RangeSet(RangeSet(items))


@given(st.lists(ranges()), st.integers(0, 4 * LENGTH))
def test_ranges_are_cut_where_so_many_of_their_bytes_are_over(items: list[Range], size: int) -> None:
    def laid_end_to_end(some: list[Range]) -> list[int]:
        return [byte for item in some for byte in range(item.start, item.stop)]

    before, after = cut(items, size)
    whole = laid_end_to_end(items)
    assert (laid_end_to_end(before), laid_end_to_end(after)) == (whole[:size], whole[size:])
    assert all(item.size for item in before + after)
