"""Sets of byte ranges of an area: sorted, disjoint, non-empty."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """The bytes ``start`` (included) to ``stop`` (excluded)."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"not a range of bytes: {self.start} to {self.stop}")

    @property
    def size(self) -> int:
        return self.stop - self.start


class RangeSet:
    """A mutable set of bytes. Not thread-safe."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for item in ranges:
            self.add(item)

    def __iter__(self) -> Iterator[Range]:
        for start, stop in zip(self._starts, self._stops, strict=True):
            yield Range(start, stop)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and list(self) == list(other)

    def __hash__(self) -> int:  # mutable
        raise TypeError("a RangeSet cannot be hashed")

    def __repr__(self) -> str:
        return f"RangeSet({list(self)!r})"

    @property
    def size(self) -> int:
        """Number of bytes in the set."""
        return sum(self._stops) - sum(self._starts)

    def add(self, item: Range) -> None:
        """Add the bytes of ``item``; those present stay."""
        if not item.size:
            return
        # Ranges that touch the new one merge with it.
        first = bisect_left(self._stops, item.start)
        last = bisect_right(self._starts, item.stop)
        start, stop = item.start, item.stop
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def discard(self, item: Range) -> None:
        """Remove the bytes of ``item``; absent ones do not matter."""
        if not item.size:
            return
        first = bisect_right(self._stops, item.start)
        last = bisect_left(self._starts, item.stop)
        if first >= last:
            return
        starts: list[int] = []
        stops: list[int] = []
        if self._starts[first] < item.start:
            starts.append(self._starts[first])
            stops.append(item.start)
        if self._stops[last - 1] > item.stop:
            starts.append(item.stop)
            stops.append(self._stops[last - 1])
        self._starts[first:last] = starts
        self._stops[first:last] = stops

    def prefix(self, item: Range) -> int:
        """How many bytes from ``item.start`` on, within ``item``, are present without a gap."""
        index = bisect_right(self._starts, item.start) - 1
        if index < 0:
            return 0
        return max(0, min(self._stops[index], item.stop) - item.start)

    def missing(self, within: Range) -> RangeSet:
        """The bytes of ``within`` that are absent, in ascending order."""
        gaps = RangeSet([within])
        first = bisect_right(self._stops, within.start)
        last = bisect_left(self._starts, within.stop)
        for index in range(first, last):
            gaps.discard(Range(self._starts[index], self._stops[index]))
        return gaps


def halves(ranges: Sequence[Range]) -> tuple[list[Range], list[Range]]:
    """The first half of some ranges, an even number of bytes unless there is but one, and the second."""
    size = sum(item.size for item in ranges)
    return cut(ranges, size // 4 * 2 or size // 2)


def cut(ranges: Sequence[Range], size: int) -> tuple[list[Range], list[Range]]:
    """The first ``size`` bytes of some ranges, in their order, and the others."""
    before: list[Range] = []
    after: list[Range] = []
    for item in ranges:
        middle = min(item.start + size, item.stop)
        size -= middle - item.start
        before.append(Range(item.start, middle))
        after.append(Range(middle, item.stop))
    return [item for item in before if item.size], [item for item in after if item.size]
