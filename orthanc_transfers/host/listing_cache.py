"""What was listed lately and is going to be sent soon, so that the core need not be asked for each file again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")

LIFETIME = 60.0
"""Seconds that are remembered at least, and twice as many at most while something else is listed."""

# Of some 400 bytes each.
_MOST = 50_000


class ListingCache(Generic[T]):
    """By identifier of instance. What is sent is forgotten at once; what never is, or was listed once more, in time.

    Thread-safe: single operations of a dictionary need no lock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._young: dict[str, T] = {}
        self._old: dict[str, T] = {}

    def add(self, files: Mapping[str, T]) -> None:
        """Remember some."""
        now = self._clock()
        if now - self._since > LIFETIME or len(self._young) + len(files) > _MOST:
            self._old, self._young, self._since = self._young, {}, now
        self._young.update(files)

    def get(self, identifier: str) -> T | None:
        """One of them, unless it was forgotten."""
        return self._young.get(identifier) or self._old.get(identifier)

    def forget(self, identifier: str) -> None:
        """It was sent."""
        self._young.pop(identifier, None)
        self._old.pop(identifier, None)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
