"""Whether the disks have room for one more transfer: for its bytes in staging, for its import, and for Orthanc's index.

What shares a disk is added up, and so is what the transfers under way will still take.
"""

from __future__ import annotations

from dataclasses import dataclass

# Of Orthanc's SQLite index, measured on 1.10.1 and 1.13.0: its log grows by 90 KB with each instance, up to 4.2 MB, and
# is used anew from there on; the database itself grows by 1.2 KB with each.
LOG_SIZE = 4_300_000
"""Bytes that the log of the index grows to."""
_LOG_GROWTH = 96 * 1024
_INDEX_GROWTH = 2 * 1024
# A file takes whole blocks, and may need two folders.
_BLOCKS = 3
# Files that several threads have written before Orthanc recycles others for them.
_AHEAD = 8


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system: the number of its device, free bytes, bytes of a block."""

    device: int
    free: int
    block: int


@dataclass(frozen=True, slots=True)
class OrthancDisks:
    """Where this Orthanc stores files and its index, as far as these are folders of its own."""

    storage: Disk | None = None
    index: Disk | None = None
    log: int = 0
    """Bytes of the log of the index now."""
    growth: int | None = None
    """Bytes by which the stored files can grow before Orthanc's recycling keeps them as they are, if it does."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What transfers will still take: ``staged`` bytes in staging, ``size`` bytes of ``count`` imported instances."""

    staged: int
    size: int
    count: int

    def __add__(self, other: Demand) -> Demand:
        return Demand(self.staged + other.staged, self.size + other.size, self.count + other.count)

    def beyond(self, staged: int, size: int, count: int) -> Demand:
        """What is left of it when so much is done."""
        return Demand(max(0, self.staged - staged), max(0, self.size - size), max(0, self.count - count))

    def on(self, device: int, staging: Disk, orthanc: OrthancDisks) -> dict[str, int]:
        """Bytes on one device, by what they are for."""
        found = {}
        if device == staging.device and self.staged:
            found["for staging"] = self.staged
        if orthanc.storage is not None and device == orthanc.storage.device and self.count:
            stored = self.size + self.count * _BLOCKS * orthanc.storage.block
            if orthanc.growth is not None:
                stored = min(stored, orthanc.growth + _AHEAD * stored // self.count)
            found["for importing"] = stored
        if orthanc.index is not None and device == orthanc.index.device and self.count:
            changes = self.count if orthanc.growth is None else 2 * self.count  # deletions are logged, too
            log = min(changes * _LOG_GROWTH, max(0, LOG_SIZE - orthanc.log))
            found["for Orthanc's index"] = self.count * _INDEX_GROWTH + log
        return found


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why one more transfer does not fit on a disk."""

    needed: dict[str, int]
    """Bytes that it takes there, by what they are for."""
    free: int
    reserved: int
    """Of the free bytes, or more, for the transfers under way."""

    def __str__(self) -> str:
        total = sum(self.needed.values())
        if len(self.needed) == 1:
            (purpose,) = self.needed
            text = f"{total} bytes are needed {purpose} this transfer, {self.free} are free on that disk"
        else:
            parts = ", ".join(f"{size} {purpose}" for purpose, size in self.needed.items())
            text = f"{total} bytes are needed for this transfer on one disk ({parts}), {self.free} are free there"
        if self.reserved:
            text += (
                f", and the transfers under way will take {self.reserved}: wait for these, or make room there,"
                " then resubmit the job"
            )
        else:
            text += ": make room there, then resubmit the job"
        return text


def shortage(staging: Disk, orthanc: OrthancDisks, own: Demand, others: Demand) -> Shortage | None:
    """What is missing if ``own`` does not fit beside what ``others`` will still take."""
    for disk in (staging, orthanc.storage, orthanc.index):
        if disk is None:
            continue
        mine = own.on(disk.device, staging, orthanc)
        both = sum((own + others).on(disk.device, staging, orthanc).values())
        if mine and both > disk.free:
            return Shortage(mine, disk.free, both - sum(mine.values()))
    return None
