"""What the jobs work with."""

from __future__ import annotations

from dataclasses import dataclass

from orthanc_transfers.core.settings import Settings
from orthanc_transfers.interfaces import Clock, InstanceStore, Peers
from orthanc_transfers.jobs.ack_log import AckLogs
from orthanc_transfers.net.capabilities import CapabilitiesCache
from orthanc_transfers.pipeline.chunk_reader import ChunkReader
from orthanc_transfers.receiver.registry import Registry
from orthanc_transfers.receiver.reports import Reports


@dataclass(frozen=True, slots=True)
class Services:
    """Shared by all jobs. ``originator`` is the random identifier of this process (a UUID)."""

    store: InstanceStore
    peers: Peers
    reader: ChunkReader
    receptions: Registry
    reports: Reports
    sent: AckLogs
    settings: Settings
    clock: Clock
    negotiation: CapabilitiesCache
    originator: str
