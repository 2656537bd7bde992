"""Two-generation cache of the files listed lately, so that Orthanc need not be asked again for each when it is sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")

LIFETIME = 600.0
"""Seconds that an entry is kept at least, and twice as long at most while others are listed. Long enough for most
transfers: to ask for one that was dropped before it was sent makes Orthanc walk through all of a large archive."""

# Entries per generation, of some 400 bytes each.
_MAX_ENTRIES = 50_000


class ListingCache(Generic[T]):
    """Keyed by instance identifier. What is sent is forgotten at once; what is not, after its lifetime.

    Thread-safe: single operations of a dictionary need no lock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._young: dict[str, T] = {}
        self._old: dict[str, T] = {}

    def add(self, files: Mapping[str, T]) -> None:
        """Remember some files, by instance identifier."""
        now = self._clock()
        if now - self._since > LIFETIME or len(self._young) + len(files) > _MAX_ENTRIES:
            self._old, self._young, self._since = self._young, {}, now
        self._young.update(files)

    def get(self, identifier: str) -> T | None:
        """The file of an instance; ``None`` if it is not remembered."""
        return self._young.get(identifier) or self._old.get(identifier)

    def forget(self, identifier: str) -> None:
        """Drop an instance, once it was sent."""
        self._young.pop(identifier, None)
        self._old.pop(identifier, None)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
