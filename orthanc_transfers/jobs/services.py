"""The parts of the plugin that all jobs share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from threading import Semaphore

from orthanc_transfers.core.buffers import Buffer
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.core.transfer_record import TransferRecord
from orthanc_transfers.interfaces import Clock, InstanceStore, Peers
from orthanc_transfers.jobs.ack_log import AckLogs
from orthanc_transfers.net.body_limits import BodyLimits
from orthanc_transfers.net.capabilities import CapabilitiesCache
from orthanc_transfers.net.circuit import Circuits
from orthanc_transfers.pipeline.chunk_reader import ChunkReader
from orthanc_transfers.pipeline.near_compression import NearCompressions
from orthanc_transfers.receiver.extras_commit import ExtrasPolicy
from orthanc_transfers.receiver.registry import Registry
from orthanc_transfers.receiver.reports import Reports
from orthanc_transfers.runtime.cancellation import Cancellation


@dataclass(frozen=True, slots=True)
class Services:
    """Shared by all jobs. ``originator`` is a random UUID of this process, by which peers recognize it."""

    store: InstanceStore
    peers: Peers
    reader: ChunkReader
    registry: Registry
    reports: Reports
    ack_logs: AckLogs
    settings: Settings
    clock: Clock
    capabilities: CapabilitiesCache
    body_limits: BodyLimits
    originator: str
    name: str | None = None
    """The ``Name`` of this Orthanc, told to receivers for people to see."""
    transcode: Callable[[Buffer, str], memoryview] | None = None
    """A DICOM file -> the same in the transfer syntax of that UID. Raises ``HostError``."""
    extras: ExtrasPolicy | None = None
    """What is taken beside DICOM, and where it is kept."""
    limited: Callable[[str], bool] = lambda peer: False
    """Whether transfers with a peer, by its name, have to keep to a limit on bandwidth now."""
    near_compressions: NearCompressions = field(default_factory=NearCompressions)
    large_pulls: Semaphore = field(default_factory=partial(Semaphore, 2))
    """Pulls that may hold more than a bucket in memory, at once: as many as ``ConcurrentJobs`` usually allows."""
    circuits: Circuits = field(default_factory=Circuits)
    ended: Callable[[TransferRecord], None] = lambda record: None
    """Called when a job has come to its end; never blocks."""
    begun_anew: Callable[[str], None] = lambda identifier: None
    """Called when a job that had ended, of that identifier, is resubmitted; never blocks."""
    new_cancellation: Callable[[], Cancellation] = Cancellation
    """Makes the token on which all waits of one run sleep."""
