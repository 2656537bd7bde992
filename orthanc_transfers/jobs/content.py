"""What ``GET /jobs/{id}`` shows of a transfer as ``Content``.

First the keys of the C++ plugin, each from the moment on when it shows them; then our own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.messages_v1 import TransferRequest, parse_resources
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.pipeline.progress import Progress

_MB = 1024 * 1024


class Importing(Protocol):
    """An import that goes on."""

    @property
    def imported(self) -> int:
        """Instances that it is done with."""


@dataclass(slots=True)
class Facts:
    """What is known of a transfer. Written by its driver, read by any thread; each value by itself."""

    started: bool = False
    phase: str | None = None
    """``Listing``, ``Sending`` or ``Fetching``, ``Importing``, ``Done``."""
    protocol: int | None = None
    total_instances: int | None = None
    total_size: int = 0
    already_stored: int | None = None
    """Instances that need not travel."""
    resumed: int | None = None
    """Bytes that had arrived before this attempt."""
    imported: int | None = None
    """Instances that the receiver is done with, at its last word."""
    importing: Importing | None = None
    """Who knows better, while the import goes on here."""
    waiting: str | None = None
    """For what, while nothing else can be done."""
    transaction: str | None = None
    error: str | None = None
    report: dict[str, int] | None = field(default=None)

    def know(self, manifest: Manifest) -> None:
        """All the instances are listed."""
        self.total_size, self.total_instances = manifest.size, len(manifest)


def describe(
    order: TransferRequest, resources: list[Any], facts: Facts, progress: Progress, bytes_key: str
) -> dict[str, Any]:
    """``resources`` as of ``with_types``; ``bytes_key`` is ``UploadedSizeMB`` or ``DownloadedSizeMB``."""
    if not facts.started:
        return {}
    content: dict[str, Any] = {
        "Resources": resources,
        "Peer": order.peer,
        "Compression": order.compression.value,
    }
    if order.originator is not None:
        content["Originator"] = order.originator
    if facts.total_instances is not None:
        content["TotalInstances"] = facts.total_instances
        content["TotalSizeMB"] = megabytes(facts.total_size)
    if progress.planned:
        content["CompletedHttpQueries"] = progress.completed
        content[bytes_key] = megabytes(progress.wire)
        content["NetworkSpeedKBs"] = int(progress.speed() / 1024)
    importing = facts.importing
    ratio, left = progress.ratio, progress.seconds_left()
    ours = {
        "Protocol": facts.protocol,
        "CompressionRatio": None if ratio is None else round(ratio, 2),
        "Codecs": progress.codecs or None,
        "AlreadyStoredInstances": facts.already_stored,
        "ResumedSizeMB": None if facts.resumed is None else megabytes(facts.resumed),
        "Phase": facts.phase,
        "ImportedInstances": facts.imported if importing is None else importing.imported,
        "EstimatedSecondsLeft": None if left is None else round(left),
        "Waiting": facts.waiting,
        "Transaction": facts.transaction,
        "Error": facts.error,
        "Report": facts.report,
    }
    content.update((key, value) for key, value in ours.items() if value is not None)
    return content


def megabytes(size: int) -> int:
    """Rounded to the nearest."""
    return (size + _MB // 2) // _MB


def with_types(value: Any) -> list[Any]:
    """The resources as the user wrote them, each with a ``Type``.

    Orthanc Explorer 2 reads ``Type`` where the C++ plugin has ``Level``.
    """
    return [_with_type(resource) for resource in value]


def _with_type(resource: Any) -> Any:
    if not isinstance(resource, dict) or "Type" in resource:
        return resource
    try:
        (parsed,) = parse_resources([resource])
    except BadRequest:
        return resource
    shown: dict[str, Any] = {}
    for key, value in resource.items():
        shown[key] = value
        if key == "Level":
            shown["Type"] = parsed.level.value
    return shown
