"""First requests to a peer: its capabilities and early connections, while instances are still being listed.

On a long link each request costs a round trip, and so does each connection, two or three more with TLS.
"""

from __future__ import annotations

from orthanc_transfers.core.messages_v2 import Capabilities
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.pipeline.concurrency import max_requests
from orthanc_transfers.pipeline.link import far
from orthanc_transfers.runtime import threads


class Handshake:
    """Asks for the capabilities of the peer of a run, in the background, as soon as it is made; not if known."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        known = context.services.capabilities.recall(context.transport)
        self._capabilities = (
            threads.Later("transfers-handshake", self._ask)
            if known is None
            else threads.Later.of(self._take(known[0]))
        )

    def _ask(self) -> Capabilities | None:
        context = self._context
        return self._take(context.services.capabilities.capabilities(context.transport))

    def _take(self, capabilities: Capabilities | None) -> Capabilities | None:
        context = self._context
        context.status.protocol = 1 if capabilities is None else 2
        if capabilities is not None:
            context.peer.connections = capabilities.max_connections
        return capabilities

    def capabilities(self) -> Capabilities | None:
        """Returns and raises what ``CapabilitiesCache`` does; ``Canceled``."""
        return self._capabilities.result(self._context.cancellation)

    def open_connections(self) -> None:
        """If the link is long, open the connections that the first buckets will take. Does not wait for them."""
        round_trip = self._context.transport.without_retries.round_trip
        if round_trip is not None and not far(round_trip):
            return
        threads.start("transfers-opening", self._open_early)

    def _open_early(self) -> None:
        wanted = max_requests(self._context.services.settings.threads)
        capabilities = self.capabilities()
        if capabilities is not None and capabilities.max_connections is not None:
            announced = capabilities.max_connections
            # Before the peer knows of the transfer, and has a share for it: one with few threads is spared that.
            share = announced // self._context.transport.users
            wanted = min(wanted, share) if announced >= wanted else 0
        if wanted:
            self._open(wanted)

    def _open(self, wanted: int) -> None:
        transport = self._context.transport.without_retries
        if transport.round_trip is None:
            transport.prepare()
        if far(transport.round_trip):
            # One is open, which has shown it.
            for number in range(1, wanted):
                threads.start(f"transfers-opening-{number}", transport.prepare)
