"""Push: this Orthanc sends to a peer."""

from __future__ import annotations

from orthanc_transfers.core.messages_v1 import TransferRequest
from orthanc_transfers.core.model import Beginning, Manifest
from orthanc_transfers.core.storage_limits import check_sizes
from orthanc_transfers.interfaces import Job
from orthanc_transfers.jobs import push_v1, push_v2
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.jobs.extras import say_untransferable
from orthanc_transfers.jobs.handshake import Handshake
from orthanc_transfers.jobs.job import TransferJob
from orthanc_transfers.jobs.push_whole import fits
from orthanc_transfers.jobs.resume import ResumeState, with_identifier
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.jobs.transcoding import transcoding
from orthanc_transfers.net.peer_client import PeerClient
from orthanc_transfers.pipeline.schedule import FIRST_INSTANCES
from orthanc_transfers.runtime.threads import Later


class PushJob(TransferJob):
    """The job of ``POST /transfers/send``."""

    type = "PushTransfer"
    bytes_key = "UploadedSizeMB"

    def work(self, context: RunContext) -> None:
        context = transcoding(context)
        context.status.phase = "Listing"
        handshake = Handshake(context)
        resources, store = context.order.resources, context.services.store
        beginning = store.beginning(resources, FIRST_INSTANCES, context.cancellation)
        check_sizes(beginning.manifest)
        whole = (
            Later.of(_list_all(context, beginning))
            if beginning.whole
            else Later("transfers-listing", lambda: _list_all(context, beginning))
        )
        capabilities = handshake.capabilities()
        if capabilities is None or not (beginning.whole and fits(context, beginning.manifest, capabilities)):
            handshake.open_connections()
        if capabilities is None:
            say_untransferable(context, None, sends=True)
            push_v1.Push(context, whole.result(context.cancellation)).run()
        else:
            push_v2.Push(context, beginning, whole, capabilities).run()
        context.resume.end()

    def undo(self, resume: ResumeState, *, failed: bool) -> None:
        path = resume.path
        # A failed push of version 2 stays on the receiver for a while: resubmitted, it goes on from there.
        if path is None or (failed and resume.plan is None):
            return
        transport = self.services.peers.connect(self.order.peer, 1)
        try:
            PeerClient(transport, self.order.sender_transfer_id, lambda: resume.cookie).drop(path)
        finally:
            transport.close()
        resume.end()


def _list_all(context: RunContext, beginning: Beginning) -> Manifest:
    manifest = beginning.manifest
    if not beginning.whole:
        manifest = context.services.store.manifest(context.order.resources, context.cancellation)
        check_sizes(manifest)
    context.status.set_totals(manifest)
    return manifest


def new_push(services: Services, request: TransferRequest) -> Job:
    """A job that sends what a user ordered."""
    return PushJob(services, with_identifier(request))
