"""Pull: this Orthanc fetches from a peer, into its own staging, and imports from there."""

from __future__ import annotations

import itertools
from contextlib import ExitStack, suppress
from typing import Generic, TypeVar

from orthanc_transfers.core.errors import (
    Busy,
    Canceled,
    Conflict,
    Corrupted,
    NoSpace,
    PeerError,
    PeerInvalidResponse,
    PeerMismatch,
    PeerStatus,
    UnknownTransaction,
)
from orthanc_transfers.core.messages_v1 import TransferRequest
from orthanc_transfers.core.messages_v2 import Capabilities, WholePull
from orthanc_transfers.core.model import Beginning, Manifest, PushState, name_missing
from orthanc_transfers.interfaces import Job
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.jobs.extras import kinds, say_untransferable
from orthanc_transfers.jobs.extras_pull import fetch_extras
from orthanc_transfers.jobs.fetcher import Fetcher
from orthanc_transfers.jobs.handshake import Handshake
from orthanc_transfers.jobs.job import TransferJob
from orthanc_transfers.jobs.one_server import check_one_server
from orthanc_transfers.jobs.pull_receiver import KIND, is_lost, open_incoming
from orthanc_transfers.jobs.pull_transcoded import as_transcoded, check_transcodes
from orthanc_transfers.jobs.pull_v1 import Fetcher1
from orthanc_transfers.jobs.pull_v2 import Fetcher2
from orthanc_transfers.jobs.pull_whole import Carried, whole_pull
from orthanc_transfers.jobs.resume import ResumeState, with_identifier
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.net.bucket_response import Fetched
from orthanc_transfers.pipeline.executor import BucketExecutor, Moved
from orthanc_transfers.pipeline.schedule import FIRST_INSTANCES, MAX_ROUNDS, Listing, Schedule
from orthanc_transfers.receiver.incoming import IncomingTransfer

T = TypeVar("T")


class PullJob(TransferJob):
    """The job of ``POST /transfers/pull``."""

    type = "PullTransfer"
    bytes_key = "DownloadedSizeMB"

    def work(self, context: RunContext) -> None:
        # A job of an earlier start, before the peer lists all for nothing.
        context.services.registry.check_writable()
        context.status.phase = "Listing"
        handshake = Handshake(context)
        # Only a peer of version 2 can be asked for the first instances, and responds at once.
        capabilities = handshake.capabilities()
        check_transcodes(context, capabilities)
        transcode = context.order.transcode is not None
        # A transfer that was begun before is compared with all that the peer lists now.
        begun = context.services.registry.find(KIND, context.resume.token) is not None
        # Where Orthanc has limits, what does not fit is refused before a byte is kept.
        limited = context.services.registry.limited
        growing = capabilities is not None and capabilities.growing and not (begun or limited or transcode)
        executor = context.executor(KIND, capabilities, sends=False)
        # What travels beside DICOM needs a folder.
        beside = kinds(context, capabilities, sends=False)
        with ExitStack() as room:
            whole = None
            if not (begun or beside or transcode):
                whole = whole_pull(context, capabilities, executor, room)
            handshake.open_connections()
            first = FIRST_INSTANCES if growing else None
            beginning, carried = _list(context, capabilities, first, whole)
            if carried is None:
                room.close()
            if len(beginning.manifest):
                self._bring(context, beginning, capabilities, executor, carried)

    def _bring(
        self,
        context: RunContext,
        beginning: Beginning,
        capabilities: Capabilities | None,
        executor: BucketExecutor,
        carried: Carried | None,
    ) -> None:
        """Fetch and import what was listed, and is not ``carried`` already. Raises what ``work`` does."""
        say_untransferable(context, capabilities, sends=False)
        for begun_anew in itertools.count():
            try:
                _transfer(context, beginning, capabilities, executor, carried)
                return
            except (Conflict, UnknownTransaction, Busy, Canceled) as error:
                # The peer lists other instances than it did a moment ago; or another node of the cluster took over what
                # was received, while this one was silent.
                changed = isinstance(error, Conflict | UnknownTransaction)
                if (changed and begun_anew) or not (
                    (changed and not beginning.whole) or is_lost(context, error)
                ):
                    raise
            (beginning, _), carried = _list(context, capabilities), None

    def reset(self) -> None:
        # Only who resubmits the job begins anew. One that Orthanc reloads is told of the failure: its import may be
        # what Orthanc died of.
        failed = self.services.registry.find(KIND, self.token)
        if failed is not None and failed.state is PushState.FAILED:
            failed.discard()
        super().reset()

    def undo(self, resume: ResumeState, *, failed: bool) -> None:
        # What a failed pull has received is kept for another attempt.
        incoming = self.services.registry.find(KIND, resume.token)
        if incoming is not None and not failed:
            incoming.discard()


def new_pull(services: Services, request: TransferRequest) -> Job:
    """A job that fetches what a user, or another Orthanc, ordered."""
    return PullJob(services, with_identifier(request))


def _list(
    context: RunContext,
    capabilities: Capabilities | None,
    first: int | None = None,
    whole: WholePull | None = None,
) -> tuple[Beginning, Carried | None]:
    """All the instances that the peer has of the order, or the ``first`` of them.

    And all their bytes if they are wanted (``whole``), and few.
    """
    order, peer = context.order, context.peer.name
    patients = capabilities is not None and context.services.registry.limited
    began = context.services.clock.monotonic()
    fetched: Fetched | None = None
    try:
        if whole is not None:
            answer, fetched = context.peer.look_up_whole(
                order.resources_json, whole, first=first, patients=patients
            )
        else:
            # A C++ peer reads and hashes every file before it responds.
            timeout = context.services.settings.peer_commit_timeout if capabilities is None else None
            answer = context.peer.look_up(
                order.resources_json, timeout=timeout, first=first, patients=patients
            )
    except PeerStatus as error:
        if error.peer_status != 404:
            raise
        raise PeerError(
            f"peer {peer} lacks one of the resources, or the transfers accelerator: {error}", peer
        ) from error
    if order.originator is not None and not context.resume.originator_verified:
        if answer.originator != order.originator:
            raise PeerMismatch(
                f"peer {peer} is not the Orthanc that asked for this transfer: "
                f"its RemoteSelf for this server names a wrong peer, or it was restarted since",
                peer,
            )
        context.resume.originator_verified = True
    try:
        listed = Beginning(Manifest(answer.instances), answer.more, answer.patients)
        listed = as_transcoded(context, listed)
    except ValueError as error:
        raise PeerInvalidResponse(f"peer {peer} sent an invalid list of instances: {error}", peer) from error
    if listed.whole and len(listed.manifest):
        context.status.set_totals(listed.manifest)
    return listed, None if fetched is None else Carried(fetched, began)


def _transfer(
    context: RunContext,
    listed: Beginning,
    capabilities: Capabilities | None,
    executor: BucketExecutor,
    carried: Carried | None = None,
) -> None:
    """Raises ``ImportRefused``, ``PeerError``…; ``Conflict`` if what the peer lists changes meanwhile."""
    incoming = open_incoming(context, listed, capabilities, in_memory=carried is not None)
    context.on_transaction(incoming.id)
    try:
        if capabilities is None:
            _Pull(context, incoming, Fetcher1(context, listed.manifest), executor, None, 0).run()
        else:
            fetcher = Fetcher2(context, incoming, executor, capabilities.codecs)
            _Pull(context, incoming, fetcher, executor, capabilities, listed.more, carried).run()
    except NoSpace:
        # What was fetched would keep the disk full until the job is tried again, if ever.
        incoming.discard()
        raise
    finally:
        if incoming.in_memory and incoming.state is PushState.RECEIVING:
            # Memory is not kept for another attempt: that one begins anew.
            with suppress(Conflict):
                incoming.discard()


class _Pull(Generic[T]):
    """Fetches what is missing and imports it. ``more`` instances are still to be listed.

    ``carried``: all the bytes, if they came with the list.
    """

    def __init__(
        self,
        context: RunContext,
        incoming: IncomingTransfer,
        fetcher: Fetcher[T],
        executor: BucketExecutor,
        capabilities: Capabilities | None,
        more: int,
        carried: Carried | None = None,
    ) -> None:
        self._context = context
        self._incoming = incoming
        self._fetcher = fetcher
        self._executor = executor
        self._capabilities = capabilities
        self._more = more
        self._carried = carried
        self._looked_up = carried is None
        """Whether it was looked up what is stored here."""

    def run(self) -> None:
        status, incoming = self._context.status, self._incoming
        there = incoming.size - sum(item.size for item in incoming.missing())
        status.already_stored, stored_size = incoming.already_stored
        status.resumed = max(0, there - stored_size)
        for _ in range(MAX_ROUNDS):
            try:
                self._fetch()
            except PeerStatus as error:
                if error.peer_status == 404:
                    check_one_server(self._context.peer)
                raise
            if self._capabilities is not None:
                fetch_extras(self._context, self._capabilities, incoming)
            status.phase = "Importing"
            status.importing = incoming
            try:
                report = incoming.commit(self._context.cancellation)
            except Corrupted:
                continue
            finally:
                status.imported, status.importing = incoming.imported, None
            status.report = counts = report.counts()
            if not self._looked_up:
                status.already_stored = counts["AlreadyStored"]
            return
        peer = self._context.peer.name
        raise PeerError(
            f"after {MAX_ROUNDS} attempts, what peer {peer} sent of "
            f"{name_missing(incoming.manifest, incoming.missing())} does not have the MD5 that it announced: the file"
            " is damaged there, or was overwritten meanwhile;"
            " see POST /instances/…/attachments/dicom/verify-md5 on that peer",
            peer,
        )

    def _fetch(self) -> None:
        context, incoming, fetcher = self._context, self._incoming, self._fetcher
        context.status.phase = "Fetching"
        carried, self._carried = self._carried, None
        # Else an earlier process, or another node of the cluster, began the commit: it tells whether they are needed.
        if carried is not None and incoming.state is PushState.RECEIVING:
            carried.keep(context, incoming)
            return
        schedule = Schedule(self._executor, fetcher, self._listing(), self._list_all)

        def fetch(bucket: T) -> Moved:
            fetched = fetcher.fetch(bucket)
            incoming.write(fetcher.ranges(bucket), fetched.data)
            return Moved(len(fetched.data), fetched.wire, fetched.codec, fetched.encoding)

        schedule.run(fetch)

    def _listing(self) -> Listing:
        incoming = self._incoming
        return Listing(incoming.count, incoming.size, incoming.missing(), self._more)

    def _list_all(self) -> Listing:
        """Ask the peer for all the instances, while the first are being fetched."""
        context, incoming = self._context, self._incoming
        listed, _ = _list(context, self._capabilities)
        context.services.registry.grow(incoming, listed.manifest, listed.more, context.cancellation)
        self._more = 0
        context.status.already_stored, _ = incoming.already_stored
        return self._listing()
