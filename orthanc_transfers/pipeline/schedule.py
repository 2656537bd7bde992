"""The buckets of one run: those planned at its beginning, then those of the instances listed meanwhile.

So the first bytes of many instances are on their way while the others are still being listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from orthanc_transfers.core.ranges import Range, RangeSet
from orthanc_transfers.pipeline.executor import BucketExecutor, Moved
from orthanc_transfers.runtime.threads import Later

T = TypeVar("T")

FIRST_INSTANCES = 128
"""Instances announced first, if there are more: listed in some 10 ms, mostly more than a first bucket holds."""

MAX_ROUNDS = 4
"""Times that bytes are moved: once, and again if some are missing, or damaged, in spite of that."""

MAX_LOSSES = 20
"""Times that a receiver may lose a push of which it had taken bytes: each restart of a node of a cluster that has them
on its own disk is one."""


@dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """Buckets, taken one by one, and how many there will have been in the end, as far as that is known.

    ``extend`` adds those of more missing bytes, also after the last one was taken, in the thread that takes.
    """

    buckets: Iterator[T]
    total: Callable[[], int]
    extend: Callable[[Iterable[Range]], None] | None = None


class Planner(Protocol[T]):
    """Cuts missing bytes of the area into buckets."""

    def plan(self, missing: RangeSet) -> Plan[T]:
        """Buckets that bring just those bytes of the area, one request each."""

    def count(self, present: RangeSet) -> int:
        """About how many buckets those bytes would have been, which need not be moved."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What the receiver needs of a list of instances: how many there are, the size of their area, what is missing.

    ``more`` instances are still to be listed.
    """

    count: int
    size: int
    missing: Sequence[Range]
    more: int = 0


class Schedule(Generic[T]):
    """Moves what is missing of a ``listing``.

    If it has ``more`` instances to come, ``list_all`` is called in a thread of its own meanwhile: it announces all
    of them and returns the listing of all. The area of the first is the beginning of the area of all.
    """

    def __init__(
        self, executor: BucketExecutor, planner: Planner[T], listing: Listing, list_all: Callable[[], Listing]
    ) -> None:
        self._executor = executor
        self._progress = executor.progress
        self._planner = planner
        missing = RangeSet(listing.missing)
        self._plan = planner.plan(missing)
        self._first_size = listing.size
        self._list_all = list_all
        self._known = listing.count / (listing.count + listing.more) if listing.more else 1.0
        """The share of the instances that the plan is about."""
        self._present = planner.count(missing.missing(Range(0, listing.size)))
        """Buckets that need not be moved."""
        # As if the others were like these.
        expected = round(missing.size / self._known)
        self._guessed = expected - missing.size
        self._progress.plan(self._scheduled, self._present, expected)
        self._rest = Later("transfers-listing", self._plan_rest) if listing.more else None

    def run(self, move: Callable[[T], Moved]) -> None:
        """Call ``move`` for every bucket. Raises what ``BucketExecutor.run`` and ``list_all`` do."""
        self._executor.run(self._buckets(), move)
        if self._rest is not None:
            # What was announced first went faster than the listing.
            rest = self._take(self._rest)
            self._progress.plan(self._scheduled, self._progress.completed + rest.present, rest.size)
            self._executor.run(self._buckets(), move)

    def _plan_rest(self) -> _Rest:
        listing = self._list_all()
        missing = _from(self._first_size, listing.missing)
        present = RangeSet(missing).missing(Range(self._first_size, listing.size))
        return _Rest(missing, self._planner.count(present))

    def _buckets(self) -> Iterator[T]:
        while True:
            if self._rest is not None and self._rest.ready:
                rest = self._take(self._rest)
                self._progress.correct(rest.present, rest.size - self._guessed)
            try:
                bucket = next(self._plan.buckets)
            except StopIteration:
                return
            yield bucket

    def _take(self, later: Later[_Rest]) -> _Rest:
        rest = later.result(self._executor.cancellation)
        assert self._plan.extend is not None
        self._plan.extend(rest.missing)
        self._rest = None
        self._known = 1.0
        self._present += rest.present
        return rest

    def _scheduled(self) -> int:
        return self._present + round(self._plan.total() / self._known)


@dataclass(frozen=True, slots=True)
class _Rest:
    """What the instances listed later add: missing bytes, and buckets that need not be moved."""

    missing: Sequence[Range]
    present: int

    @property
    def size(self) -> int:
        return sum(item.size for item in self.missing)


def _from(start: int, ranges: Iterable[Range]) -> list[Range]:
    """The ranges without the first ``start`` bytes of the area."""
    return [Range(max(item.start, start), item.stop) for item in ranges if item.stop > start]
