"""A small pull as one request: the response has the list of its instances, and all their bytes."""

from __future__ import annotations

from dataclasses import dataclass

from orthanc_transfers.core.codec import level_for, usable
from orthanc_transfers.core.messages_v2 import Capabilities, WholePull
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.net.bucket_response import Fetched
from orthanc_transfers.pipeline.bucket_size import MAX_SIZE
from orthanc_transfers.pipeline.executor import BucketExecutor
from orthanc_transfers.pipeline.schedule import FIRST_INSTANCES
from orthanc_transfers.receiver.incoming import IncomingTransfer


def whole_pull(
    context: RunContext, capabilities: Capabilities | None, executor: BucketExecutor
) -> WholePull | None:
    """What to ask a peer of these capabilities for with the list; ``None`` if the bytes are to be asked for later.

    No byte is to come that is here already. The peer does not know what is here, so its list is needed first,
    unless none of the resources is: then none of their instances can be, for identifiers are hashes of those of the
    patient, the study and the series. Raises ``Canceled``.
    """
    resources, services = context.order.resources, context.services
    if capabilities is None or not capabilities.whole_pulls or len(resources) > FIRST_INSTANCES:
        return None
    room = services.registry.memory_free
    max_size = min(services.settings.bucket_size, MAX_SIZE, capabilities.max_bucket_target, room)
    if not max_size:
        return None
    if services.store.patients_of((one.id for one in resources), context.cancellation):
        return None
    context.round_trip()
    level = level_for(context.progress.speed())
    return WholePull(max_size, usable(), executor.compression.settled(), level)


@dataclass(frozen=True, slots=True)
class Carried:
    """The bytes of all the instances, which came with their list; they were asked for at ``began``."""

    fetched: Fetched
    began: float

    def keep(self, context: RunContext, incoming: IncomingTransfer) -> None:
        """Put them into the transfer, and count them. Raises what ``IncomingTransfer.write`` does."""
        fetched, progress = self.fetched, context.progress
        progress.plan(lambda: 1, 0, incoming.size)
        progress.start(self.began)
        try:
            incoming.write([incoming.manifest.area], fetched.data)
            progress.bucket_done(incoming.size, fetched.wire, fetched.codec)
        finally:
            progress.stop()
