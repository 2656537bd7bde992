"""What the jobs work with."""

from __future__ import annotations

from dataclasses import dataclass

from orthanc_transfers.core.settings import Settings
from orthanc_transfers.transfer.negotiation import Negotiation
from orthanc_transfers.transfer.ports import Clock, InstanceStore, Peers
from orthanc_transfers.transfer.reception import Receptions
from orthanc_transfers.transfer.reports import Reports
from orthanc_transfers.transfer.sent import SentRecords
from orthanc_transfers.transfer.source import Source


@dataclass(frozen=True, slots=True)
class Environment:
    """Shared by all jobs. ``originator`` is the random identifier of this process (a UUID)."""

    store: InstanceStore
    peers: Peers
    source: Source
    receptions: Receptions
    reports: Reports
    sent: SentRecords
    settings: Settings
    clock: Clock
    negotiation: Negotiation
    originator: str
