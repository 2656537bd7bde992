"""The model: Instance, Manifest, Chunk, Bucket. Frozen, with their invariants."""

from __future__ import annotations

import enum
import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha1, sha256

from orthanc_transfers.core.ranges import Range

IDENTIFIER = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")
"""An Orthanc identifier (a SHA-1). Nothing else may go into a path of Orthanc's REST API."""


def orthanc_identifier(*values: bytes) -> str:
    """Orthanc's identifier of a resource: the SHA-1 of the values that name it, from the ``PatientID`` down.

    They are without padding (DicomInstanceHasher.cpp of Orthanc; tried on 1.10.1).
    """
    digest = sha1(b"|".join(values), usedforsecurity=False).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))


class Level(enum.Enum):
    """The four levels of DICOM's model of the real world, spelled as Orthanc does."""

    PATIENT = "Patient"
    STUDY = "Study"
    SERIES = "Series"
    INSTANCE = "Instance"


@dataclass(frozen=True, slots=True)
class Resource:
    """What a user names: a level and an Orthanc identifier."""

    level: Level
    id: str


@dataclass(frozen=True, slots=True)
class Instance:
    """A DICOM file: Orthanc identifier, size in bytes, MD5 of the file (32 lower-case hex digits)."""

    id: str
    size: int
    md5: str

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"instance {self.id} has a negative size")


@dataclass(frozen=True, slots=True)
class Chunk:
    """``size`` bytes of the instance ``id``, from its byte ``offset`` on."""

    id: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """What one HTTP request carries: chunks, end to end. ``index`` is its position in the plan."""

    index: int
    chunks: tuple[Chunk, ...]

    @property
    def size(self) -> int:
        """Bytes, before any codec."""
        return sum(chunk.size for chunk in self.chunks)


@dataclass(frozen=True)
class Manifest:
    """The ordered instances of a transfer; laid end to end they form one linear area of bytes.

    Raises ``ValueError`` if an instance is named twice.
    """

    instances: tuple[Instance, ...]
    size: int = field(init=False)
    _indices: dict[str, int] = field(init=False, repr=False, compare=False)
    _starts: list[int] = field(init=False, repr=False, compare=False)

    def __init__(self, instances: Iterable[Instance]) -> None:
        kept = tuple(instances)
        starts: list[int] = []
        position = 0
        for instance in kept:
            starts.append(position)
            position += instance.size
        indices = {instance.id: index for index, instance in enumerate(kept)}
        if len(indices) != len(kept):
            raise ValueError("an instance is named twice in a manifest")
        object.__setattr__(self, "instances", kept)
        object.__setattr__(self, "size", position)
        object.__setattr__(self, "_indices", indices)
        object.__setattr__(self, "_starts", starts)

    def __len__(self) -> int:
        return len(self.instances)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self.instances)

    def __contains__(self, identifier: object) -> bool:
        return identifier in self._indices

    def starts_with(self, beginning: Manifest) -> bool:
        """Whether its first instances are those of ``beginning``: both have the same area up to there."""
        return self.instances[: len(beginning)] == beginning.instances

    def fingerprint(self) -> str:
        """A SHA-256 that is equal for equal manifests only."""
        rows = [[instance.id, instance.size, instance.md5] for instance in self.instances]
        return sha256(json.dumps(rows).encode()).hexdigest()

    @property
    def area(self) -> Range:
        """The whole area, as one range."""
        return Range(0, self.size)

    def instance(self, identifier: str) -> Instance:
        """The instance of that identifier; ``KeyError`` if there is none."""
        return self.instances[self._indices[identifier]]

    def index_of(self, identifier: str) -> int:
        """Its index in ``instances``; ``KeyError`` if there is none."""
        return self._indices[identifier]

    def range_of(self, identifier: str) -> Range:
        """The bytes of an instance within the area; ``KeyError`` if there is none."""
        index = self._indices[identifier]
        start = self._starts[index]
        return Range(start, start + self.instances[index].size)

    def range_of_chunk(self, chunk: Chunk) -> Range:
        """The bytes of a chunk within the area; ``KeyError``, or ``ValueError`` beyond the instance."""
        whole = self.range_of(chunk.id)
        if chunk.offset < 0 or chunk.size < 0 or chunk.offset + chunk.size > whole.size:
            raise ValueError(f"a chunk lies beyond instance {chunk.id}")
        return Range(whole.start + chunk.offset, whole.start + chunk.offset + chunk.size)

    def overlapping(self, item: Range) -> Iterator[tuple[Instance, Range]]:
        """The instances that have bytes in a range of the area, in order, each with its own whole range."""
        if not item.size:
            return
        index = bisect_right(self._starts, item.start) - 1
        while index < len(self.instances) and self._starts[index] < item.stop:
            instance = self.instances[index]
            start = self._starts[index]
            if instance.size and start + instance.size > item.start:
                yield instance, Range(start, start + instance.size)
            index += 1

    def chunks(self, item: Range) -> tuple[Chunk, ...]:
        """A range of the area as chunks of its instances."""
        # There may be thousands of tiny instances in a bucket: no more than one object is made for each.
        chunks: list[Chunk] = []
        position = item.start
        index = max(0, bisect_right(self._starts, position) - 1)
        while position < item.stop and index < len(self.instances):
            instance, start = self.instances[index], self._starts[index]
            stop = min(start + instance.size, item.stop)
            if stop > position:
                chunks.append(Chunk(instance.id, position - start, stop - position))
                position = stop
            index += 1
        return tuple(chunks)


@dataclass(frozen=True, slots=True)
class Beginning:
    """The first instances of a manifest, and how many ``more`` it has."""

    manifest: Manifest
    more: int
    patients: frozenset[str] | None = None
    """Identifiers of the patients of all of them, if they were asked for."""

    @property
    def whole(self) -> bool:
        """Whether there are no others."""
        return not self.more


class PushState(enum.Enum):
    """State of a push on the receiver."""

    RECEIVING = "receiving"
    COMMITTING = "committing"
    COMMITTED = "committed"
    FAILED = "failed"


_MAX_NAMED = 3


def name_missing(manifest: Manifest, missing: Iterable[Range]) -> str:
    """Names the instances that have missing bytes, for an error message."""
    found = {instance.id: None for item in missing for instance, _ in manifest.overlapping(item)}
    return name_instances(list(found))


def name_instances(identifiers: Collection[str]) -> str:
    """The first few of some instances, and the number of others, for an error message."""
    named = "instance " + ", ".join(list(identifiers)[:_MAX_NAMED])
    others = len(identifiers) - _MAX_NAMED
    return f"{named} and {others} more" if others > 0 else named
