"""When a receiver says that bytes have a wrong MD5: are they wrong here already?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from orthanc_transfers.core.errors import LostFile
from orthanc_transfers.core.model import Chunk, Instance, Manifest
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.jobs.context import RunContext

# Bytes that are read at once.
_PIECE = 16 * 1024 * 1024


def check_ranges(context: RunContext, manifest: Manifest, ranges: Iterable[Range]) -> None:
    """``check_files`` of the instances that have bytes in some ranges of the area."""
    found = {instance: None for item in ranges for instance, _ in manifest.overlapping(item)}
    check_files(context, manifest, found)


def check_files(context: RunContext, manifest: Manifest, instances: Iterable[Instance]) -> None:
    """Compare files on this Orthanc with the MD5s that were announced: what differs is no matter of the network.

    Raises ``LostFile``, naming the first instance that differs; ``UnknownResource``, ``Canceled``.
    """
    for instance in instances:
        digest = hashlib.md5(usedforsecurity=False)
        for offset in range(0, instance.size, _PIECE):
            context.cancellation.check()
            chunk = Chunk(instance.id, offset, min(_PIECE, instance.size - offset))
            for piece in context.services.reader.read([chunk], manifest):
                digest.update(piece)
        if digest.hexdigest() != instance.md5:
            raise LostFile(_reason(context, instance, digest.hexdigest()))


def _reason(context: RunContext, instance: Instance, found: str) -> str:
    indexed = context.services.store.md5s([instance.id]).get(instance.id)
    if indexed != instance.md5:
        damaged = "" if indexed else ", or its file is damaged"
        return (
            f"instance {instance.id} was overwritten on this Orthanc while it was being sent{damaged}:"
            " resubmit the job, which sends it as it is now"
        )
    return (
        f"the file of instance {instance.id} is damaged on this Orthanc: its MD5 is {found}, and {instance.md5} in"
        " Orthanc's index; restore it, or delete the instance"
    )
