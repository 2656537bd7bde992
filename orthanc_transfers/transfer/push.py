"""Push: this Orthanc sends to a peer."""

from __future__ import annotations

from orthanc_transfers.core.protocol import TransferRequest
from orthanc_transfers.transfer import push_v1, push_v2
from orthanc_transfers.transfer.driving import Drive, TransferJob
from orthanc_transfers.transfer.environment import Environment
from orthanc_transfers.transfer.greeting import Greeting
from orthanc_transfers.transfer.messages import drop, identify
from orthanc_transfers.transfer.ports import Job
from orthanc_transfers.transfer.saved import Continuation, with_identifier


class PushJob(TransferJob):
    """The job of ``POST /transfers/send``."""

    type = "PushTransfer"
    bytes_key = "UploadedSizeMB"

    def work(self, drive: Drive) -> None:
        facts = drive.facts
        facts.phase = "Listing"
        greeting = Greeting(drive)
        manifest = drive.environment.store.manifest(drive.order.resources, drive.cancellation)
        facts.total_size, facts.total_instances = manifest.size, len(manifest)
        capabilities = greeting.capabilities()
        greeting.open_connections()
        if capabilities is None:
            push_v1.Push(drive, manifest).run()
        else:
            push_v2.Push(drive, manifest, capabilities).run()
        drive.continuation.end()

    def undo(self, continuation: Continuation, *, failed: bool) -> None:
        path = continuation.path
        # A failed push of version 2 stays on the receiver for a while: resubmitted, it goes on from there.
        if path is None or (failed and continuation.plan is None):
            return
        transport = self.environment.peers.connect(self.order.peer, 1)
        try:
            drop(transport, path, identify(self.order, continuation.cookie))
        finally:
            transport.close()
        continuation.end()


def new_push(environment: Environment, request: TransferRequest) -> Job:
    """A job that sends what a user asked for."""
    return PushJob(environment, with_identifier(request))
