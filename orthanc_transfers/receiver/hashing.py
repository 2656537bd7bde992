"""Incremental MD5 of instances that arrive in parts, along the prefix that has been received."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from orthanc_transfers.core.ranges import Range
from orthanc_transfers.receiver.area import Area

_BLOCK = 1024 * 1024

MAX_ROUNDS = 4
"""Times that a thread which wrote a bucket looks for more to hash: it may go on with the bytes of other threads, but
not for as long as these write."""


@dataclass(eq=False, slots=True)
class _Prefix:
    """The MD5 of the first ``position`` bytes of an instance."""

    digest: hashlib._Hash = field(default_factory=lambda: hashlib.md5(usedforsecurity=False))
    position: int = 0
    busy: bool = False


class PrefixHasher:
    """Hashes the instances of an area, each by one thread at a time, read back from the kernel's cache.

    Called with ``lock`` held: ``settled`` returns how many bytes of a range are there without a gap from its
    beginning and cannot change any more; ``verified`` whether an instance needs no hashing.
    """

    def __init__(
        self,
        area: Area,
        lock: threading.Lock,
        *,
        settled: Callable[[Range], int],
        verified: Callable[[int], bool],
    ) -> None:
        self._area = area
        self._lock = lock
        self._settled = settled
        self._verified = verified
        self._prefixes: dict[int, _Prefix] = {}

    def advance(self, index: int, item: Range, rounds: int | None) -> str | None:
        """Hash what is settled of an instance, whose bytes are ``item``; ``rounds`` is how often to look for more.

        Returns the MD5 once the last byte is hashed; ``None`` before, and if another thread is at it.
        ``rounds=None``: until nothing more is settled. Raises ``TransferError`` if the disk cannot be read.
        """
        with self._lock:
            prefix = self._prefixes.setdefault(index, _Prefix())
            if prefix.busy or self._verified(index):
                return None
            prefix.busy = True
        try:
            self._hash(prefix, item, rounds)
        except BaseException:
            # How much of the last block is in the digest is unknown.
            with self._lock:
                self._prefixes.pop(index, None)
            raise
        with self._lock:
            prefix.busy = False
            finished = prefix.position == item.size
            if finished:
                self._prefixes.pop(index, None)
        return prefix.digest.hexdigest() if finished else None

    def _hash(self, prefix: _Prefix, item: Range, rounds: int | None) -> None:
        buffer = memoryview(bytearray(min(_BLOCK, item.size)))
        while rounds is None or rounds > 0:
            rounds = None if rounds is None else rounds - 1
            with self._lock:
                stop = self._settled(item)
            if stop <= prefix.position:
                break
            for block in self._area.blocks(Range(item.start + prefix.position, item.start + stop), buffer):
                prefix.digest.update(block)
            prefix.position = stop
