"""Push: this Orthanc sends to a peer."""

from __future__ import annotations

from orthanc_transfers.core.model import Beginning, Manifest
from orthanc_transfers.core.protocol import TransferRequest
from orthanc_transfers.transfer import push_v1, push_v2
from orthanc_transfers.transfer.driving import Drive, TransferJob
from orthanc_transfers.transfer.environment import Environment
from orthanc_transfers.transfer.greeting import Greeting
from orthanc_transfers.transfer.messages import drop, identify
from orthanc_transfers.transfer.ports import Job
from orthanc_transfers.transfer.saved import Continuation, with_identifier
from orthanc_transfers.transfer.schedule import FIRST
from orthanc_transfers.transfer.workers import Later


class PushJob(TransferJob):
    """The job of ``POST /transfers/send``."""

    type = "PushTransfer"
    bytes_key = "UploadedSizeMB"

    def work(self, drive: Drive) -> None:
        drive.facts.phase = "Listing"
        greeting = Greeting(drive)
        resources, store = drive.order.resources, drive.environment.store
        beginning = store.beginning(resources, FIRST, drive.cancellation)
        whole = Later("transfers-listing", lambda: _whole(drive, beginning))
        capabilities = greeting.capabilities()
        greeting.open_connections()
        if capabilities is None:
            push_v1.Push(drive, whole.result(drive.cancellation)).run()
        else:
            push_v2.Push(drive, beginning, whole, capabilities).run()
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


def _whole(drive: Drive, beginning: Beginning) -> Manifest:
    manifest = beginning.manifest
    if not beginning.whole:
        manifest = drive.environment.store.manifest(drive.order.resources, drive.cancellation)
    drive.facts.know(manifest)
    return manifest


def new_push(environment: Environment, request: TransferRequest) -> Job:
    """A job that sends what a user asked for."""
    return PushJob(environment, with_identifier(request))
