"""Journal replay: the state of an incoming transfer that its journal's records lead to."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from orthanc_transfers.core.model import Manifest
from orthanc_transfers.core.ranges import RangeSet
from orthanc_transfers.runtime.journal import Kind, Record


@dataclass
class History:
    """What a journal tells. Instances are named by their indices in the manifest."""

    have: RangeSet = field(default_factory=RangeSet)
    """Bytes received, without those of instances that were already stored."""
    stored: frozenset[int] = frozenset()
    """Instances that were already stored when the transfer began."""
    absent: frozenset[int] | None = None
    """Instances that were absent from Orthanc before the import; ``None``: no import has begun."""
    outcome: dict[str, Any] | None = None
    """How it ended; ``None``: it has not."""


def replay(records: Iterator[Record], manifest: Manifest) -> History:
    """The state that a journal's records lead to. Invalid records are ignored."""
    history = History()
    for record in records:
        with contextlib.suppress(ValueError, RecursionError):
            _apply(record, manifest, history)
    return history


def _apply(record: Record, manifest: Manifest, history: History) -> None:
    match record.kind:
        case Kind.RECEIVED | Kind.LOST:
            item = record.range
            if item.stop > manifest.size:
                raise ValueError("beyond the area")
            if record.kind is Kind.RECEIVED:
                history.have.add(item)
            else:
                history.have.discard(item)
                lost = {manifest.index_of(instance.id) for instance, _ in manifest.overlapping(item)}
                history.stored -= lost
        case Kind.STORED:
            # Fewer bits were written before the transfer grew.
            count = min(len(manifest), 8 * len(record.payload))
            history.stored = from_bits(record.payload, count)
        case Kind.COMMITTING:
            history.absent = from_bits(record.payload, len(manifest))
        case Kind.RECEIVING:
            history.absent = None
        case Kind.OUTCOME:
            outcome = json.loads(record.payload)
            if isinstance(outcome, dict):
                history.outcome = outcome


def to_bits(indices: Collection[int], count: int) -> bytes:
    """A set of indices below ``count`` as one bit each, the lowest bit of the first byte first."""
    bits = bytearray((count + 7) // 8)
    for index in indices:
        bits[index >> 3] |= 1 << (index & 7)
    return bytes(bits)


def from_bits(bits: bytes, count: int) -> frozenset[int]:
    """The inverse of ``to_bits``. Raises ``ValueError`` for bits of another count."""
    if len(bits) != (count + 7) // 8:
        raise ValueError("bits of another manifest")
    return frozenset(index for index in range(count) if bits[index >> 3] >> (index & 7) & 1)
