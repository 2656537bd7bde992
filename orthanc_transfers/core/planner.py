"""Manifest (and what is missing) -> buckets.

Version 1 has rules for them (``docs/protocol.md``, "How buckets are cut"): with T the target size, instances
smaller than T are grouped until a bucket has T bytes; one of T to 2T goes alone; a larger one is split into
ceil(size / 2T) equal chunks, the last taking the rest. Large ones come first, each kind in the manifest's order.
Version 2 cuts the area itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.core.model import Bucket, Chunk, Manifest
from orthanc_transfers.core.ranges import Range, RangeSet

# A C++ peer takes URLs of less than 2000 characters; the rest is left for the peer's root and the query.
MAX_PATH = 1800


def plan_buckets(manifest: Manifest, target: int) -> list[Bucket]:
    """The buckets of a push of version 1. ``target`` in bytes."""
    return _plan(_whole(manifest), target, None)


def plan_pull(manifest: Manifest, target: int, missing: RangeSet | None = None) -> list[Bucket]:
    """The buckets of a pull of version 1: their URLs stay short. Only what is ``missing``; ``None``: all.

    In each bucket only the first chunk starts within its instance, and only the last stops short of its end.
    """
    pieces = _whole(manifest) if missing is None else _missing(manifest, missing)
    return _plan(pieces, target, MAX_PATH)


def plan_ranges(missing: Iterable[Range], target: int) -> list[Range]:
    """The buckets of version 2: ranges of about ``target`` bytes, none larger than twice that.

    They start at even offsets of a missing range, so that 16-bit words are not torn.
    """
    return [part for item in missing for part in _cut(item, target)]


def chunks_path(bucket: Bucket, codec: Codec) -> str:
    """Path and query of ``GET /transfers/chunks`` for a bucket of ``plan_pull``."""
    identifiers = ".".join(chunk.id for chunk in bucket.chunks)
    offset = bucket.chunks[0].offset
    return f"/transfers/chunks/{identifiers}?offset={offset}&size={bucket.size}&compression={codec.value}"


def _cut(item: Range, target: int) -> Iterator[Range]:
    parts = max(1, -(-item.size // (2 * target)) if item.size >= 2 * target else round(item.size / target))
    # Rounded up to even; the last part takes what is left.
    step = -(-item.size // parts)
    step += step % 2
    start = item.start
    while start < item.stop:
        stop = min(start + step, item.stop)
        yield Range(start, stop)
        start = stop


def _whole(manifest: Manifest) -> Iterator[tuple[Chunk, int]]:
    for instance in manifest:
        if instance.size:
            yield Chunk(instance.id, 0, instance.size), instance.size


def _missing(manifest: Manifest, missing: RangeSet) -> Iterator[tuple[Chunk, int]]:
    for gap in missing:
        for chunk in manifest.chunks(gap):
            yield chunk, manifest.instance(chunk.id).size


def _plan(pieces: Iterable[tuple[Chunk, int]], target: int, longest: int | None) -> list[Bucket]:
    """``pieces``: chunks, each with the size of its whole instance."""
    large: list[tuple[Chunk, ...]] = []
    small: list[tuple[Chunk, ...]] = []
    group: list[Chunk] = []
    group_size = group_length = 0
    for chunk, whole in pieces:
        if chunk.size >= target or chunk.size < whole:
            # A part of an instance goes alone: within a group it would leave a hole in the middle.
            large.extend((part,) for part in _split(chunk, target))
            continue
        length = len(chunk.id) + 1
        if group and longest is not None and group_length + length > longest:
            small.append(tuple(group))
            group, group_size, group_length = [], 0, 0
        group.append(chunk)
        group_size += chunk.size
        group_length += length
        if group_size >= target:
            small.append(tuple(group))
            group, group_size, group_length = [], 0, 0
    if group:
        small.append(tuple(group))
    return [Bucket(index, chunks) for index, chunks in enumerate(large + small)]


def _split(chunk: Chunk, target: int) -> Iterator[Chunk]:
    parts = -(-chunk.size // (2 * target)) if chunk.size >= 2 * target else 1
    step = chunk.size // parts
    for index in range(parts):
        start = index * step
        size = step if index < parts - 1 else chunk.size - start
        yield Chunk(chunk.id, chunk.offset + start, size)
