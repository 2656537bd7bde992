"""What one stretch carries: the items planned at its beginning, then those of instances announced meanwhile.

So the first bytes of many instances are under way while the others are still being listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from orthanc_transfers.core.ranges import Range
from orthanc_transfers.pipeline.executor import BucketExecutor, Carried
from orthanc_transfers.pipeline.progress import Progress
from orthanc_transfers.runtime.cancellation import Cancellation
from orthanc_transfers.runtime.threads import Later

T = TypeVar("T")

FIRST = 128
"""Instances that are announced first, if there are more: listed in some 10 ms, mostly more than a first bucket has."""


@dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """Items, taken one by one, and how many there will have been in the end, as far as that is known.

    ``extend`` adds those of more missing bytes, also after the last was taken, in the thread that takes.
    """

    items: Iterator[T]
    total: Callable[[], int]
    extend: Callable[[Iterable[Range]], None] | None = None


@dataclass(frozen=True, slots=True)
class Rest:
    """What the instances announced later are about: missing bytes, and how many items are settled already."""

    missing: Sequence[Range]
    settled: int


class Schedule(Generic[T]):
    """A plan of ``left`` bytes beside ``settled`` items that are there already, told to ``progress``.

    ``known`` is the share of the instances that it is about; the others are of the ``rest`` to come.
    """

    def __init__(
        self,
        plan: Plan[T],
        settled: int,
        left: int,
        progress: Progress,
        *,
        known: float = 1.0,
        rest: Later[Rest] | None = None,
    ) -> None:
        self._plan = plan
        self._settled = settled
        self._progress = progress
        self._known = known
        self._rest = rest
        # As if the others were like these.
        expected = round(left / known)
        self._guessed = expected - left
        progress.plan(self._scheduled, settled, expected)

    def carry(
        self, carrier: BucketExecutor, work: Callable[[T], Carried], cancellation: Cancellation
    ) -> None:
        """Do ``work`` for every item, the rest's included. Raises what ``BucketExecutor.carry`` and the rest do."""
        carrier.carry(self._items(cancellation), work)
        if self._rest is not None:
            # What was announced first went faster than the listing.
            rest = self._take(self._rest, cancellation)
            self._progress.plan(
                self._scheduled, self._progress.completed + rest.settled, size_of(rest.missing)
            )
            carrier.carry(self._items(cancellation), work)

    def _items(self, cancellation: Cancellation) -> Iterator[T]:
        while True:
            if self._rest is not None and self._rest.ready:
                rest = self._take(self._rest, cancellation)
                self._progress.correct(rest.settled, size_of(rest.missing) - self._guessed)
            try:
                item = next(self._plan.items)
            except StopIteration:
                return
            yield item

    def _take(self, later: Later[Rest], cancellation: Cancellation) -> Rest:
        rest = later.result(cancellation)
        assert self._plan.extend is not None
        self._plan.extend(rest.missing)
        self._rest = None
        self._known = 1.0
        self._settled += rest.settled
        return rest

    def _scheduled(self) -> int:
        return self._settled + round(self._plan.total() / self._known)


def size_of(ranges: Iterable[Range]) -> int:
    """Bytes of some ranges."""
    return sum(item.size for item in ranges)


def beyond(ranges: Iterable[Range], start: int) -> list[Range]:
    """What of some ranges lies behind the first ``start`` bytes of the area."""
    return [Range(max(item.start, start), item.stop) for item in ranges if item.stop > start]
