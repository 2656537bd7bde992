"""Plans buckets, what each HTTP request carries, from a manifest and its missing ranges.

Cuts lie at even offsets, so that 16-bit pixels stay whole in a bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from urllib.parse import quote

from orthanc_transfers.core.model import Bucket, Chunk, Manifest
from orthanc_transfers.core.paths import CHUNKS_V1
from orthanc_transfers.core.ranges import Range, RangeSet

MAX_PATH = 1999
"""Maximum number of characters in the path and query of a pull, as for C++ peers: 43 instances."""

MAX_RANGES = 32
"""Maximum number of ranges in one bucket of version 2: its URL path names each."""

# The query for several complete instances: they are small, and start at offset 0.
_LONGEST_QUERY = len("?offset=0&size=1234567890&compression=gzip")


def plan_buckets(manifest: Manifest, target: int) -> list[Bucket]:
    """The buckets of a push of version 1; ``target`` is the size in bytes that they should have.

    First the large instances in the order of the manifest: one of less than twice the target alone, a
    larger one cut into equal chunks of at most that; then the smaller ones, grouped in the same order until a
    bucket has the target. Empty instances are in no bucket.
    """
    wholes = [Chunk(instance.id, 0, instance.size) for instance in manifest if instance.size]
    large = (chunk for chunk in wholes if chunk.size >= target)
    small = (chunk for chunk in wholes if chunk.size < target)
    return _numbered(chain(_alone(large, target), _grouped(small, target)))


def plan_pull(manifest: Manifest, target: int, missing: RangeSet | None = None) -> list[Bucket]:
    """The buckets of a pull of version 1: as of a push, but the path of each is short enough.

    ``missing`` are the bytes of the area that are needed, ``None`` for all. Only the first chunk of a
    bucket starts inside its instance, only the last one stops short of its end. An instance of which parts are
    missing shares no bucket with others.
    """
    sizes = {instance.id: instance.size for instance in manifest}
    needed = [chunk for item in ([manifest.area] if missing is None else missing)
              for chunk in manifest.chunks(item)]  # fmt: skip

    def goes_alone(chunk: Chunk) -> bool:
        return chunk.size >= target or chunk.size < sizes[chunk.id]

    large = (chunk for chunk in needed if goes_alone(chunk))
    small = (chunk for chunk in needed if not goes_alone(chunk))
    room = MAX_PATH - len(f"{CHUNKS_V1}/") - _LONGEST_QUERY
    return _numbered(chain(_alone(large, target), _grouped(small, target, room)))


class RangePlan:
    """The buckets of version 2: the missing bytes in order, as ranges of the area, cut when they are taken.

    ``target`` returns, given the bytes that are left, how many a bucket should have at that moment; none has more than
    one and a half times as many. Scattered ranges share a bucket. To be iterated by one thread at a time;
    any may ask ``total``.
    """

    def __init__(self, missing: Iterable[Range], target: Callable[[int], int]) -> None:
        self._missing = [item for item in missing if item.size]
        self._target = target
        self._index = 0
        self._left = sum(item.size for item in self._missing)
        self._taken = 0

    def extend(self, missing: Iterable[Range]) -> None:
        """Append bytes; also after the last bucket was taken. For the thread that iterates."""
        added = [item for item in missing if item.size]
        self._missing += added
        self._left += sum(item.size for item in added)

    def __iter__(self) -> Iterator[tuple[Range, ...]]:
        return self

    def __next__(self) -> tuple[Range, ...]:
        target = max(1, self._target(self._left))
        bucket: list[Range] = []
        room = target
        while room > 0 and self._index < len(self._missing) and len(bucket) < MAX_RANGES:
            item = self._missing[self._index]
            piece = next(_cut(item, _nearest(item.size, target)))
            if bucket and piece.size > room:
                break
            bucket.append(piece)
            room -= piece.size
            if piece.stop < item.stop:
                self._missing[self._index] = Range(piece.stop, item.stop)
            else:
                self._index += 1
        if not bucket:
            raise StopIteration
        self._left -= target - room
        self._taken += 1
        return tuple(bucket)

    @property
    def total(self) -> int:
        """Buckets taken so far, plus an estimate for the rest; exact in the end."""
        if not self._left:
            return self._taken
        shared = -(-(len(self._missing) - self._index) // MAX_RANGES)
        return self._taken + max(1, shared, round(self._left / max(1, self._target(self._left))))


def _numbered(buckets: Iterable[tuple[Chunk, ...]]) -> list[Bucket]:
    return [Bucket(index, chunks) for index, chunks in enumerate(buckets)]


def _alone(chunks: Iterable[Chunk], target: int) -> Iterator[tuple[Chunk, ...]]:
    for chunk in chunks:
        whole = Range(chunk.offset, chunk.offset + chunk.size)
        for piece in _cut(whole, -(-chunk.size // (2 * target))):
            yield (Chunk(chunk.id, piece.start, piece.size),)


def _grouped(chunks: Iterable[Chunk], target: int, room: int | None = None) -> Iterator[tuple[Chunk, ...]]:
    """Groups of up to ``target`` bytes, whose identifiers, with a dot each, have ``room`` characters at most."""
    group: list[Chunk] = []
    size = characters = 0
    for chunk in chunks:
        if room is not None:
            added = len(quote(chunk.id, safe="")) + 1
            if group and characters + added > room:
                yield tuple(group)
                group, size, characters = [], 0, 0
            characters += added
        group.append(chunk)
        size += chunk.size
        if size >= target:
            yield tuple(group)
            group, size, characters = [], 0, 0
    if group:
        yield tuple(group)


def _nearest(size: int, target: int) -> int:
    # Never more than one and a half times the target each.
    return max(1, round(size / target))


def _cut(item: Range, count: int) -> Iterator[Range]:
    """Cut a range into ``count`` equal parts, but at even offsets, and with the rest in the last."""
    step = -(-item.size // count) if count else 0
    start = item.start
    while start < item.stop:
        stop = start + step
        if stop % 2:
            stop += -1 if start % 2 else 1
        stop = min(item.stop, stop)
        yield Range(start, stop)
        start = stop
