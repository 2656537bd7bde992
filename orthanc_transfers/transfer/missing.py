"""What is missing, in words."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from orthanc_transfers.core.model import Manifest
from orthanc_transfers.core.ranges import Range

_NAMED = 3


def name_missing(manifest: Manifest, missing: Iterable[Range]) -> str:
    """The instances that have missing bytes."""
    found = {instance.id: None for item in missing for instance, _ in manifest.overlapping(item)}
    return name_instances(list(found))


def name_instances(identifiers: Collection[str]) -> str:
    """The first few of some instances, and how many others there are."""
    named = "instance " + ", ".join(list(identifiers)[:_NAMED])
    others = len(identifiers) - _NAMED
    return f"{named} and {others} more" if others > 0 else named
