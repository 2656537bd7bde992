"""A small pull as one request: the response has the list of its instances, and all their bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Semaphore

from orthanc_transfers.core.codec import level_for, usable
from orthanc_transfers.core.messages_v2 import Capabilities, WholePull
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.jobs.whole_size import largest, usual_size
from orthanc_transfers.net.bucket_response import Fetched
from orthanc_transfers.pipeline.executor import BucketExecutor
from orthanc_transfers.pipeline.schedule import FIRST_INSTANCES
from orthanc_transfers.receiver.incoming import IncomingTransfer


def whole_pull(
    context: RunContext, capabilities: Capabilities | None, executor: BucketExecutor, room: ExitStack
) -> WholePull | None:
    """What to ask a peer of these capabilities for with the list; ``None`` if the bytes are to be asked for later.

    No byte is to come that is here already. The peer does not know what is here, so its list is needed first,
    unless none of the resources is: then none of their instances can be, for identifiers are hashes of those of the
    patient, the study and the series. ``room`` is to be closed once there are no such bytes, or they are gone.
    Raises ``Canceled``.
    """
    resources, services = context.order.resources, context.services
    if capabilities is None or not capabilities.whole_pulls or len(resources) > FIRST_INSTANCES:
        return None
    free = min(services.registry.memory_free, capabilities.max_bucket_target)
    if not free:
        return None
    if services.store.patients_of((one.id for one in resources), context.cancellation):
        return None
    context.round_trip()
    max_size, usual = min(largest(context, capabilities, sends=False), free), usual_size(context)
    if max_size > usual and not room.enter_context(_taken(services.large_pulls)):
        max_size = usual
    level = level_for(context.progress.speed())
    return WholePull(max_size, usable(), executor.compression.settled(), level)


@contextmanager
def _taken(semaphore: Semaphore) -> Iterator[bool]:
    """Whether it could be taken at once; given back at the end of the block."""
    taken = semaphore.acquire(blocking=False)
    try:
        yield taken
    finally:
        if taken:
            semaphore.release()


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
