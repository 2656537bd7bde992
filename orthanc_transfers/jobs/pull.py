"""Pull: this Orthanc fetches from a peer, into its own staging, and imports from there."""

from __future__ import annotations

from typing import Generic, TypeVar

from orthanc_transfers.core.errors import (
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
from orthanc_transfers.core.messages_v2 import Capabilities
from orthanc_transfers.core.model import Beginning, Manifest, name_missing
from orthanc_transfers.interfaces import Job
from orthanc_transfers.jobs.fetcher import Fetcher
from orthanc_transfers.jobs.handshake import Handshake
from orthanc_transfers.jobs.job import RunContext, TransferJob
from orthanc_transfers.jobs.pull_v1 import Fetcher1
from orthanc_transfers.jobs.pull_v2 import Fetcher2
from orthanc_transfers.jobs.resume import ResumeState, with_identifier
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.pipeline.executor import BucketExecutor, Moved
from orthanc_transfers.pipeline.schedule import FIRST_INSTANCES, MAX_ROUNDS, Listing, Schedule
from orthanc_transfers.receiver.incoming import IncomingTransfer
from orthanc_transfers.receiver.registry import OpenRequest

KIND = "pull"

T = TypeVar("T")


class PullJob(TransferJob):
    """The job of ``POST /transfers/pull``."""

    type = "PullTransfer"
    bytes_key = "DownloadedSizeMB"

    def work(self, drive: RunContext) -> None:
        drive.facts.phase = "Listing"
        greeting = Handshake(drive)
        # Only who speaks version 2 may be asked for the first ones, and answers at once.
        capabilities = greeting.capabilities()
        greeting.open_connections()
        # What was begun is compared with all that the peer lists now.
        begun = drive.environment.receptions.find(KIND, drive.continuation.token) is not None
        growing = capabilities is not None and capabilities.growing and not begun
        beginning = _list(drive, capabilities, FIRST_INSTANCES if growing else None)
        if not len(beginning.manifest):
            return
        try:
            _transfer(drive, beginning, capabilities)
        except (Conflict, UnknownTransaction):
            if beginning.whole:
                raise
            # The peer lists other instances than it did a moment ago.
            _transfer(drive, _list(drive, capabilities), capabilities)

    def undo(self, continuation: ResumeState, *, failed: bool) -> None:
        # What a failed pull has received is there for another attempt.
        reception = self.environment.receptions.find(KIND, continuation.token)
        if reception is not None and not failed:
            reception.discard()


def new_pull(environment: Services, request: TransferRequest) -> Job:
    """A job that fetches what a user, or another Orthanc, asked for."""
    return PullJob(environment, with_identifier(request))


def _list(drive: RunContext, capabilities: Capabilities | None, first: int | None = None) -> Beginning:
    """All that the peer has, or the ``first`` instances of it."""
    order, peer = drive.order, drive.peer.name
    # A C++ peer reads and hashes every file before it answers.
    timeout = drive.environment.settings.peer_commit_timeout if capabilities is None else None
    try:
        answer = drive.client.look_up(order.resources_json, timeout=timeout, first=first)
    except PeerStatus as error:
        if error.peer_status != 404:
            raise
        raise PeerError(
            f"peer {peer} lacks one of the resources, or the transfers accelerator: {error}", peer
        ) from error
    if order.originator is not None and not drive.continuation.originator_verified:
        if answer.originator != order.originator:
            raise PeerMismatch(
                f"peer {peer} is not the Orthanc that asked for this transfer: "
                f"its RemoteSelf for this server names a wrong peer, or it was restarted since",
                peer,
            )
        drive.continuation.originator_verified = True
    try:
        listed = Beginning(Manifest(answer.instances), answer.more)
    except ValueError as error:
        raise PeerInvalidResponse(f"peer {peer} lists instances that make no sense: {error}", peer) from error
    if listed.whole and len(listed.manifest):
        drive.facts.know(listed.manifest)
    return listed


def _open(drive: RunContext, listed: Beginning) -> IncomingTransfer:
    return drive.environment.receptions.open(
        OpenRequest(
            token=drive.continuation.token,
            manifest=listed.manifest,
            kind=KIND,
            check_stored=True,
            more=listed.more,
            peer=drive.order.peer,
            aliases=[drive.order.sender_transfer_id or ""],
        ),
        drive.cancellation,
    )


def _transfer(drive: RunContext, listed: Beginning, capabilities: Capabilities | None) -> None:
    """Raises ``ImportRefused``, ``PeerError``…; ``Conflict`` if what the peer lists changes meanwhile."""
    reception = _open(drive, listed)
    drive.enter(reception.id)
    executor = drive.executor(KIND, capabilities)
    try:
        if capabilities is None:
            _Pull(drive, reception, Fetcher1(drive, listed.manifest), executor, None, 0).run()
        else:
            fetcher = Fetcher2(drive, reception, executor, capabilities.codecs)
            _Pull(drive, reception, fetcher, executor, capabilities, listed.more).run()
    except NoSpace:
        # What was fetched would keep the disk full until the job is tried again, if ever.
        reception.discard()
        raise


class _Pull(Generic[T]):
    """Fetches what is missing, until all can be imported. ``more`` instances are still to be listed."""

    def __init__(
        self,
        drive: RunContext,
        reception: IncomingTransfer,
        fetcher: Fetcher[T],
        executor: BucketExecutor,
        capabilities: Capabilities | None,
        more: int,
    ) -> None:
        self._drive = drive
        self._reception = reception
        self._fetcher = fetcher
        self._executor = executor
        self._capabilities = capabilities
        self._more = more

    def run(self) -> None:
        facts, reception = self._drive.facts, self._reception
        there = reception.size - sum(item.size for item in reception.missing())
        facts.already_stored, stored_size = reception.already_stored
        facts.resumed = max(0, there - stored_size)
        for _ in range(MAX_ROUNDS):
            self._fetch()
            facts.phase = "Importing"
            facts.importing = reception
            try:
                report = reception.commit(self._drive.cancellation)
            except Corrupted:
                continue
            finally:
                facts.imported, facts.importing = reception.imported, None
            facts.report = report.counts()
            return
        peer = self._drive.peer.name
        raise PeerError(
            f"peer {peer} sends {name_missing(reception.manifest, reception.missing())} "
            f"with another MD5 than it announces, {MAX_ROUNDS} times now",
            peer,
        )

    def _fetch(self) -> None:
        drive, reception, fetcher = self._drive, self._reception, self._fetcher
        drive.facts.phase = "Fetching"
        schedule = Schedule(self._executor, fetcher, self._listing(), self._list_all)

        def fetch(bucket: T) -> Moved:
            fetched = fetcher.fetch(bucket)
            reception.write(fetcher.ranges(bucket), fetched.data)
            return Moved(len(fetched.data), fetched.wire, fetched.codec, fetched.encoding)

        schedule.run(fetch)

    def _listing(self) -> Listing:
        reception = self._reception
        return Listing(reception.count, reception.size, reception.missing(), self._more)

    def _list_all(self) -> Listing:
        """Learn of all the instances, while the first are being fetched."""
        drive, reception = self._drive, self._reception
        listed = _list(drive, self._capabilities)
        drive.environment.receptions.grow(reception, listed.manifest, listed.more, drive.cancellation)
        self._more = 0
        drive.facts.already_stored, _ = reception.already_stored
        return self._listing()
