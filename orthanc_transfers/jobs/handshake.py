"""What is settled with a peer at the beginning, while instances are still being listed or announced.

On a long line each question costs a round trip, and so does each connection, two or three more with TLS.
"""

from __future__ import annotations

from orthanc_transfers.core.messages_v2 import Capabilities
from orthanc_transfers.jobs.job import RunContext
from orthanc_transfers.pipeline.concurrency import max_requests
from orthanc_transfers.pipeline.link import far
from orthanc_transfers.runtime import threads


class Handshake:
    """Asks for the capabilities of the peer of a stretch, in the background, as soon as it is made."""

    def __init__(self, drive: RunContext) -> None:
        self._drive = drive
        self._answer = threads.Later("transfers-greeting", self._ask)

    def _ask(self) -> Capabilities | None:
        drive = self._drive
        capabilities = drive.environment.negotiation.capabilities(drive.peer)
        drive.facts.protocol = 1 if capabilities is None else 2
        return capabilities

    def capabilities(self) -> Capabilities | None:
        """What ``CapabilitiesCache`` answers and raises; ``Canceled``."""
        return self._answer.result(self._drive.cancellation)

    def open_connections(self) -> None:
        """Let a long line have, in a moment, the connections that its first buckets will take. Does not wait."""
        threads.start("transfers-opening", self._open_first)

    def _open_first(self) -> None:
        transport = self._drive.peer.without_retries
        if transport.round_trip is None:
            transport.prepare()
        if far(transport.round_trip):
            # One has shown that it is.
            for number in range(1, max_requests(self._drive.environment.settings.threads)):
                threads.start(f"transfers-opening-{number}", transport.prepare)
