"""Pull: this Orthanc fetches from a peer, into its own staging, and imports from there."""

from __future__ import annotations

from typing import TypeVar

from orthanc_transfers.core.errors import (
    Corrupted,
    NoSpace,
    PeerAnswer,
    PeerError,
    PeerMismatch,
    PeerStatus,
)
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.core.protocol import TransferRequest
from orthanc_transfers.core.ranges import Range, RangeSet
from orthanc_transfers.transfer.carrying import Carried, Carrier
from orthanc_transfers.transfer.driving import Drive, TransferJob
from orthanc_transfers.transfer.environment import Environment
from orthanc_transfers.transfer.fetching import Fetcher
from orthanc_transfers.transfer.greeting import Greeting
from orthanc_transfers.transfer.insisting import insist
from orthanc_transfers.transfer.messages import look_up
from orthanc_transfers.transfer.missing import name_missing
from orthanc_transfers.transfer.ports import Job
from orthanc_transfers.transfer.pull_v1 import Fetcher1
from orthanc_transfers.transfer.pull_v2 import Fetcher2
from orthanc_transfers.transfer.reception import Reception
from orthanc_transfers.transfer.saved import Continuation, with_identifier

MOST_ROUNDS = 4
"""Times that bytes are fetched: once, and again if an instance turns out to be another than announced."""

KIND = "pull"

T = TypeVar("T")


class PullJob(TransferJob):
    """The job of ``POST /transfers/pull``."""

    type = "PullTransfer"
    bytes_key = "DownloadedSizeMB"

    def work(self, drive: Drive) -> None:
        facts = drive.facts
        facts.phase = "Listing"
        greeting = Greeting(drive)
        manifest = _list(drive)
        capabilities = greeting.capabilities()
        if not len(manifest):
            return
        facts.total_size, facts.total_instances = manifest.size, len(manifest)
        greeting.open_connections()
        reception = drive.environment.receptions.open(
            drive.continuation.token,
            manifest,
            kind=KIND,
            check_stored=True,
            peer=drive.order.peer,
            aliases=[drive.order.sender_transfer_id or ""],
            cancellation=drive.cancellation,
        )
        try:
            if capabilities is None:
                carrier = drive.carrier(KIND)
                _receive(drive, reception, Fetcher1(drive, manifest), carrier)
            else:
                # A bucket may be larger than its target.
                carrier = drive.carrier(KIND, max(1, capabilities.max_body_size // 2))
                _receive(drive, reception, Fetcher2(drive, manifest, carrier, capabilities.codecs), carrier)
        except NoSpace:
            # What was fetched would keep the disk full until the job is tried again, if ever.
            reception.discard()
            raise

    def undo(self, continuation: Continuation, *, failed: bool) -> None:
        # What a failed pull has received is there for another attempt.
        reception = self.environment.receptions.find(KIND, continuation.token)
        if reception is not None and not failed:
            reception.discard()


def new_pull(environment: Environment, request: TransferRequest) -> Job:
    """A job that fetches what a user, or another Orthanc, asked for."""
    return PullJob(environment, with_identifier(request))


def _list(drive: Drive) -> Manifest:
    order, peer = drive.order, drive.peer.peer
    # A C++ peer reads and hashes every file before it answers.
    settings, negotiation = drive.environment.settings, drive.environment.negotiation
    timeout = None if negotiation.remembers_2(drive.peer) else settings.peer_commit_timeout
    try:
        answer = insist(drive, lambda: look_up(drive.peer, order.resources_json, order, timeout))
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
        return Manifest(answer.instances)
    except ValueError as error:
        raise PeerAnswer(f"peer {peer} lists instances that make no sense: {error}", peer) from error


def _receive(drive: Drive, reception: Reception, fetcher: Fetcher[T], carrier: Carrier) -> None:
    """Fetch what is missing, until all can be imported. Raises ``ImportRefused``, ``PeerError``…"""
    facts = drive.facts
    drive.enter(reception.id)
    missing = reception.missing()
    facts.already_stored, stored_size = reception.already_stored
    there = reception.size - sum(item.size for item in missing)
    facts.resumed = max(0, there - stored_size)
    for _ in range(MOST_ROUNDS):
        _fetch(drive, reception, fetcher, carrier)
        facts.phase = "Importing"
        facts.importing = reception
        try:
            report = reception.commit(drive.cancellation)
        except Corrupted:
            continue
        finally:
            facts.imported, facts.importing = reception.imported, None
        facts.report = report.counts()
        return
    peer = drive.peer.peer
    raise PeerError(
        f"peer {peer} sends {name_missing(reception.manifest, reception.missing())} "
        f"with another MD5 than it announces, {MOST_ROUNDS} times now",
        peer,
    )


def _fetch(drive: Drive, reception: Reception, fetcher: Fetcher[T], carrier: Carrier) -> None:
    drive.facts.phase = "Fetching"
    missing = RangeSet(reception.missing())
    plan = fetcher.plan(missing)
    settled = fetcher.plan(missing.missing(Range(0, reception.size))).total()
    drive.progress.plan(lambda: settled + plan.total(), settled, missing.size)

    def fetch(item: T) -> Carried:
        fetched = insist(drive, lambda: fetcher.fetch(item))
        reception.write(fetcher.ranges(item), fetched.data)
        return Carried(len(fetched.data), fetched.wire, fetched.codec, fetched.encoding)

    carrier.carry(plan.items, fetch)
