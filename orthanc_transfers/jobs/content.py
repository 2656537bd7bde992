"""What ``GET /jobs/{id}`` shows of a transfer as ``Content``.

First the keys of the C++ plugin, each from the moment on when it shows them; then our own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from orthanc_transfers.core.codec import Compression
from orthanc_transfers.core.errors import BadRequest
from orthanc_transfers.core.messages_v1 import TransferRequest, parse_resources
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.pipeline.progress import Progress

_MB = 1024 * 1024


class Importing(Protocol):
    """An import in progress."""

    @property
    def imported(self) -> int:
        """Instances done so far."""


@dataclass(slots=True)
class TransferStatus:
    """What is known of a transfer. Written by its run, read by any thread; each value by itself."""

    started: bool = False
    phase: str | None = None
    """``Listing``, ``Sending`` or ``Fetching``, ``Importing``, ``Done``."""
    protocol: int | None = None
    compression: Compression | None = None
    """As the order's is taken with this peer."""
    total_instances: int | None = None
    total_size: int = 0
    already_stored: int | None = None
    """Instances that need not be sent."""
    resumed: int | None = None
    """Bytes that had arrived before this attempt."""
    imported: int | None = None
    """Instances that the receiver had settled, as of its last status."""
    importing: Importing | None = None
    """The import, while it runs in this process: more recent than ``imported``."""
    waiting: str | None = None
    """What the transfer waits for: one sentence, while nothing else can be done."""
    waiting_since: float | None = None
    """Seconds since the epoch, as all times here."""
    began: float | None = None
    """When its first run did."""
    ended: float | None = None
    transaction: str | None = None
    error: str | None = None
    peer_failed: bool = False
    report: dict[str, int] | None = field(default=None)
    extras: dict[str, int] | None = None
    """Labels, metadata and attachments that travel: how many of each kind."""
    transcoded: int | None = None
    """Instances that are sent in another transfer syntax than they are stored in."""
    untranscoded: int | None = None
    """Those that cannot be, and are sent as they are."""
    originals: dict[str, str] = field(default_factory=dict)
    """Of those that are other instances for that: identifier -> that of the instance it was made of."""
    not_transferred: list[str] = field(default_factory=list)
    """What was asked for, or found, and cannot travel: sentences."""

    def set_totals(self, manifest: Manifest) -> None:
        """To be called when all the instances are listed."""
        self.total_size, self.total_instances = manifest.size, len(manifest)


def describe(
    order: TransferRequest, resources: list[Any], status: TransferStatus, progress: Progress, bytes_key: str
) -> dict[str, Any]:
    """The content. ``resources`` as of ``with_types``; ``bytes_key`` is ``UploadedSizeMB`` or ``DownloadedSizeMB``."""
    if not status.started:
        return {}
    content: dict[str, Any] = {
        "Resources": resources,
        "Peer": order.peer,
        "Compression": order.compression.value,
    }
    if order.originator is not None:
        content["Originator"] = order.originator
    if status.total_instances is not None:
        content["TotalInstances"] = status.total_instances
        content["TotalSizeMB"] = megabytes(status.total_size)
    if progress.planned:
        content["CompletedHttpQueries"] = progress.completed
        content[bytes_key] = megabytes(progress.wire)
        content["NetworkSpeedKBs"] = int(progress.speed() / 1024)
    importing = status.importing
    ratio, left = progress.ratio, progress.seconds_left()
    ours = {
        "Protocol": status.protocol,
        "CompressionUsed": None if status.compression is None else status.compression.value,
        "CompressionRatio": None if ratio is None else round(ratio, 2),
        "Codecs": progress.codecs or None,
        "AlreadyStoredInstances": status.already_stored,
        "ResumedSizeMB": None if status.resumed is None else megabytes(status.resumed),
        "Phase": status.phase,
        "ImportedInstances": status.imported if importing is None else importing.imported,
        "EstimatedSecondsLeft": None if left is None else round(left),
        "Waiting": status.waiting,
        "Transaction": status.transaction,
        "Error": status.error,
        "Report": status.report,
        "Extras": status.extras,
        "TranscodedInstances": status.transcoded,
        "NotTranscodedInstances": status.untranscoded or None,
        "ChangedIdentifiers": len(status.originals) or None,
        "NotTransferred": list(status.not_transferred) or None,
    }
    content.update((key, value) for key, value in ours.items() if value is not None)
    return content


def megabytes(size: int) -> int:
    """Bytes to megabytes (2^20 bytes), rounded to the nearest."""
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
