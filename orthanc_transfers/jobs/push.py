"""Push: this Orthanc sends to a peer."""

from __future__ import annotations

from orthanc_transfers.core.messages_v1 import TransferRequest
from orthanc_transfers.core.model import Beginning, Manifest
from orthanc_transfers.interfaces import Job
from orthanc_transfers.jobs import push_v1, push_v2
from orthanc_transfers.jobs.handshake import Handshake
from orthanc_transfers.jobs.job import RunContext, TransferJob
from orthanc_transfers.jobs.resume import ResumeState, with_identifier
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.net.peer_client import PeerClient
from orthanc_transfers.pipeline.schedule import FIRST_INSTANCES
from orthanc_transfers.runtime.threads import Later


class PushJob(TransferJob):
    """The job of ``POST /transfers/send``."""

    type = "PushTransfer"
    bytes_key = "UploadedSizeMB"

    def work(self, drive: RunContext) -> None:
        drive.facts.phase = "Listing"
        greeting = Handshake(drive)
        resources, store = drive.order.resources, drive.environment.store
        beginning = store.beginning(resources, FIRST_INSTANCES, drive.cancellation)
        whole = Later("transfers-listing", lambda: _whole(drive, beginning))
        capabilities = greeting.capabilities()
        greeting.open_connections()
        if capabilities is None:
            push_v1.Push(drive, whole.result(drive.cancellation)).run()
        else:
            push_v2.Push(drive, beginning, whole, capabilities).run()
        drive.continuation.end()

    def undo(self, continuation: ResumeState, *, failed: bool) -> None:
        path = continuation.path
        # A failed push of version 2 stays on the receiver for a while: resubmitted, it goes on from there.
        if path is None or (failed and continuation.plan is None):
            return
        transport = self.environment.peers.connect(self.order.peer, 1)
        try:
            PeerClient(transport, self.order.sender_transfer_id, lambda: continuation.cookie).drop(path)
        finally:
            transport.close()
        continuation.end()


def _whole(drive: RunContext, beginning: Beginning) -> Manifest:
    manifest = beginning.manifest
    if not beginning.whole:
        manifest = drive.environment.store.manifest(drive.order.resources, drive.cancellation)
    drive.facts.know(manifest)
    return manifest


def new_push(environment: Services, request: TransferRequest) -> Job:
    """A job that sends what a user asked for."""
    return PushJob(environment, with_identifier(request))
