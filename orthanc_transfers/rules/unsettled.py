"""What arrived shortly before Orthanc ended: it never becomes stable, for Orthanc forgets then that it waited for that.

(Tried on 1.10.1: a study that was received less than ``StableAge`` before a restart has no ``StableStudy``, ever.)
So it is remembered up to which change all is settled; what came later, and was not called stable since, is stable at
the next start. What is still being received then is sent again as a difference.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from orthanc_transfers.core.model import Level
from orthanc_transfers.core.rule import CHANGES
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.rules.orthanc import LocalOrthanc

PAGE = 500

MARGIN = 60.0
"""Seconds after ``StableAge`` within which Orthanc calls a resource stable: it looks once a second."""

_NEW = "NewInstance"


class Unsettled:
    """``stable_age`` in seconds, as configured. Used by one thread at a time."""

    def __init__(self, orthanc: LocalOrthanc, clock: Clock, stable_age: int) -> None:
        self._orthanc = orthanc
        self._clock = clock
        self._age = stable_age + MARGIN
        self._marks: deque[tuple[float, int]] = deque()

    def settled(self) -> int | None:
        """To be called now and then: the last change of a time that long ago; ``None`` if that is not known yet."""
        now = self._clock.monotonic()
        self._marks.append((now, self._orthanc.last_change()))
        found = None
        while self._marks and now - self._marks[0][0] >= self._age:
            found = self._marks.popleft()[1]
        return found

    def find(self, since: int, until: int) -> Iterator[tuple[str, str, int]]:
        """Changes that are missing in that part of the list: type, resource, and the number of its last instance."""
        received: dict[str, int] = {}
        stable: dict[tuple[str, str], int] = {}
        done = False
        while not done and since < until:
            changes, done = self._orthanc.changes(since, PAGE)
            if not changes:
                break
            since = changes[-1].number
            for one in changes:
                if one.number > until:
                    break
                if one.type == _NEW:
                    received[one.resource] = one.number
                elif one.type in CHANGES:
                    stable[one.type, one.resource] = one.number
        for type_, level in (
            ("StableSeries", Level.INSTANCE),
            ("StableStudy", Level.SERIES),
            ("StablePatient", Level.STUDY),
        ):
            received = self._lifted(level, received)
            for resource, number in received.items():
                if stable.get((type_, resource), 0) < number:
                    yield type_, resource, number

    def _lifted(self, level: Level, last: dict[str, int]) -> dict[str, int]:
        """Of what is above: the number of its last instance."""
        found: dict[str, int] = {}
        names = list(last)
        for start in range(0, len(names), PAGE):
            for child, parent in self._orthanc.parents(level, names[start : start + PAGE]).items():
                found[parent] = max(found.get(parent, 0), last[child])
        return found
