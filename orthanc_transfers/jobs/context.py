"""What one run of a job works with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from orthanc_transfers.core.codec import Compression
from orthanc_transfers.core.messages_v1 import TransferRequest
from orthanc_transfers.core.messages_v2 import Capabilities
from orthanc_transfers.jobs.content import TransferStatus
from orthanc_transfers.jobs.resume import ResumeState
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.net.body_limits import BodyLimit
from orthanc_transfers.net.extras_client import ExtrasClient
from orthanc_transfers.net.retry import RetryingTransport
from orthanc_transfers.pipeline.auto_compression import AutoCompression
from orthanc_transfers.pipeline.bucket_size import MAX_SIZE, BucketSize
from orthanc_transfers.pipeline.concurrency import Concurrency
from orthanc_transfers.pipeline.executor import BucketExecutor
from orthanc_transfers.pipeline.near_compression import NearCompression
from orthanc_transfers.pipeline.progress import Progress
from orthanc_transfers.runtime.cancellation import Cancellation


@dataclass(frozen=True, slots=True)
class RunContext:
    """One run, from start or resume to pause or end; used by several threads."""

    services: Services
    order: TransferRequest
    resume: ResumeState
    progress: Progress
    status: TransferStatus
    cancellation: Cancellation
    transport: RetryingTransport
    peer: ExtrasClient
    """The peer, over ``transport``."""
    on_transaction: Callable[[str], None]
    """To be called with the receiver's identifier of the transfer."""

    def body_limit(self) -> BodyLimit:
        """How large a request to the peer may be."""
        return self.services.body_limits.of(self.transport, self.services.settings.bucket_size)

    def round_trip(self) -> float | None:
        """Seconds to the peer and back; if need be, a connection is opened for it, which the next request will take."""
        transport = self.transport.without_retries
        if transport.round_trip is None:
            transport.prepare()
        return transport.round_trip

    def near_peer(self, *, sends: bool) -> NearCompression:
        """What is known of the peer if it is near, for what is sent to it or fetched from it."""
        return self.services.near_compressions.of(self.peer.name, self.transport.url, sends=sends)

    def compression(self, capabilities: Capabilities | None) -> Compression:
        """What the user asked for, as it is taken with a peer of these capabilities; shown in the job.

        Clients of the C++ plugin ask for ``gzip`` by habit. Between two of our own it means what is best.
        """
        asked = self.order.compression
        by_habit = asked is Compression.GZIP and not self.services.settings.strict_compression
        taken = Compression.AUTO if by_habit and capabilities is not None else asked
        self.status.compression = taken
        return taken

    def executor(self, name: str, capabilities: Capabilities | None, *, sends: bool) -> BucketExecutor:
        """Moves buckets to or from a peer of these capabilities; ``name`` is that of the threads."""
        settings, clock = self.services.settings, self.services.clock
        max_size = MAX_SIZE if capabilities is None else capabilities.max_bucket_target

        limit = self.body_limit()

        def body_size() -> int:
            known = limit.known if sends else None
            # A bucket may have one and a half times its target.
            return MAX_SIZE if known is None else max(1, known * 2 // 3)

        def round_trip() -> float | None:
            return self.transport.round_trip

        announced = None if capabilities is None else capabilities.max_connections

        def spare() -> int:
            connections = announced if self.peer.connections is None else self.peer.connections
            return sys.maxsize if connections is None else connections

        concurrency = Concurrency(settings.threads, clock, round_trip, spare)
        return BucketExecutor(
            name,
            concurrency,
            BucketSize(settings.bucket_size, concurrency, max_size, round_trip, body_size),
            AutoCompression(
                self.compression(capabilities), concurrency, clock, round_trip, self.near_peer(sends=sends)
            ),
            self.progress,
            self.cancellation,
            clock,
        )
