"""Registry of incoming transfers, keyed by token. Reloads them at start and expires idle ones."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from orthanc_transfers.core.errors import Conflict, ReadOnly, TransferError
from orthanc_transfers.core.model import Manifest, PushState
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.interfaces import Capacity, Clock, InstanceStore
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.changed_instances import ChangedInstances
from orthanc_transfers.receiver.disk_errors import lost_with_lease
from orthanc_transfers.receiver.expiry import drop_idle, drop_lost_pulls, drop_oldest_outcomes
from orthanc_transfers.receiver.extras_commit import ExtrasPolicy
from orthanc_transfers.receiver.fatal_instances import FatalInstances
from orthanc_transfers.receiver.growth import Growth
from orthanc_transfers.receiver.incoming import IncomingTransfer
from orthanc_transfers.receiver.open_request import OpenRequest
from orthanc_transfers.receiver.ownership import Fenced, Ownership, TakenOver
from orthanc_transfers.receiver.receiver_services import ReceiverServices
from orthanc_transfers.receiver.recycling import Recycling
from orthanc_transfers.receiver.reports import Reports
from orthanc_transfers.receiver.shared_instances import SharedInstances
from orthanc_transfers.receiver.single_server import SingleServer
from orthanc_transfers.receiver.staging import CHANGED, FATAL, UNDOS, Needed, Staging
from orthanc_transfers.receiver.undo_retries import UndoRetries
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

log = logging.getLogger(__name__)

# Seconds that the end of the server waits for commits to stop between two instances.
_CLOSING = 1.5


class Registry:
    """All transfers that this server is receiving, or has received lately. Thread-safe.

    Opens what an earlier process left in ``staging``; nothing is imported before ``recover``.
    ``read_only``: nothing is received, and what was being received is kept as it is until a start without it.
    ``capacity``: of Orthanc, whose limits are without effect here if there is none. ``extras``: what is taken beside
    DICOM. ``ownership``: of the cluster that this server is in, if it is in one.
    """

    def __init__(
        self,
        staging: Staging,
        store: InstanceStore,
        reports: Reports,
        settings: Settings,
        clock: Clock,
        *,
        read_only: bool = False,
        capacity: Capacity | None = None,
        ownership: Ownership | None = None,
        extras: ExtrasPolicy | None = None,
    ) -> None:
        self.ownership: Ownership = ownership or SingleServer()
        self._staging = staging
        self._store = store
        self._reports = reports
        self._read_only = read_only
        self._settings = settings
        self._clock = clock
        self._recycling = Recycling(capacity, store) if capacity is not None and capacity.limits else None
        self._extras = extras
        self._ending = Cancellation()
        # One for all times: no two may have its file open.
        self._changed = ChangedInstances(staging.home / CHANGED, shared=staging.shared)
        self._set_up()
        self._lock = threading.Lock()
        self._transfers: dict[str, IncomingTransfer] = {}
        self._tokens: dict[tuple[str, str], IncomingTransfer] = {}
        self._opening: dict[tuple[str, str], Future[IncomingTransfer]] = {}
        self._listeners: list[Callable[[IncomingTransfer], None]] = []
        self._correctors: list[Callable[[str, str], None]] = []
        self._generation = 0
        """Another one each time when all is lost: what was claimed before is not this node's."""
        for area in staging.reopen():
            self._reopen(area)

    def _set_up(self) -> None:
        """Build what all transfers in this staging folder share."""
        self._closing = Cancellation()
        store, reports, clock = self._store, self._reports, self._clock
        home, settings = self._staging.home, self._settings
        changed = self._changed
        shared, closing, leftovers = SharedInstances(), self._closing, self.ownership.leftovers
        beside = None if self._extras is None else self._extras.store
        self._undo_retries = UndoRetries(
            self._staging.root / UNDOS, store, reports, shared, closing, leftovers, self._correct, beside
        )
        fatal = FatalInstances(home / FATAL, settings.fatal_instance_retention, clock)
        self._growth = Growth(
            self._staging, store, changed, settings.max_manifest_instances, fatal, self._recycling
        )
        self._services = ReceiverServices(
            store,
            reports,
            clock,
            settings.commit_threads_count,
            self._closing,
            self._ending,
            shared,
            changed,
            settings.accept_changed_identifiers,
            self._undo_retries,
            fatal,
            self._ended,
            self.ownership,
            self._recycling,
            self._extras,
            self._staging.promise,
        )

    def _reopen(self, area: Area) -> IncomingTransfer | None:
        try:
            transfer = IncomingTransfer(area, self._services)
            self._tokens[transfer.kind, transfer.token] = transfer
        except (KeyError, TypeError, ValueError) as error:
            self._staging.forget(area.id)
            self._staging.set_aside(area.directory, f"its saved state is invalid: {error!r}")
            return None
        self._transfers[transfer.id] = transfer
        return transfer

    # --- the cluster

    def take_in(self, area: Area) -> IncomingTransfer | None:
        """Own what another node of the cluster was receiving; ``None``: it is known, or dropped.

        Pulls are, unless their import has begun: their jobs are of that node, and fetch again what is missing.
        """
        with self._lock:
            transfer = None if area.id in self._transfers else self._reopen(area)
        if transfer is not None and transfer.kind == "pull" and transfer.state is PushState.RECEIVING:
            transfer.discard()
            return None
        return transfer

    def keep_only(self, identifiers: Collection[str]) -> list[IncomingTransfer]:
        """Forget the others, which another node of the cluster has, with their bytes. Returns them."""
        gone = [transfer for transfer in self.all() if transfer.id not in identifiers]
        for transfer in gone:
            with self._lock:
                del self._transfers[transfer.id]
                del self._tokens[transfer.kind, transfer.token]
            self._staging.forget(transfer.id)
            transfer.delete_bytes()
        return gone

    def adopt_undos(self, folder: Path) -> None:
        """Take over what another node could not delete yet."""
        self._undo_retries.adopt(folder)

    def abandon(self) -> list[IncomingTransfer]:
        """Let go of all transfers, which another node of the cluster has now. Returns them.

        Commits stop as they do when the server stops; what they had begun is the other node's.
        """
        self._closing.cancel()
        with self._lock:
            self._generation += 1
            transfers = list(self._transfers.values())
            self._transfers.clear()
            self._tokens.clear()
        deadline = time.monotonic() + _CLOSING
        for transfer in transfers:
            transfer.close(deadline)
            self._staging.forget(transfer.id)
        self._undo_retries.close(deadline)
        self._staging.start_over()
        self._set_up()
        return transfers

    def on_end(self, listener: Callable[[IncomingTransfer], None]) -> None:
        """Call ``listener`` with every transfer that is committed, fails or is discarded."""
        self._listeners.append(listener)

    def on_correction(self, listener: Callable[[str, str], None]) -> None:
        """Call ``listener`` with the identifier of a transfer that has failed, and what its error is from now on."""
        self._correctors.append(listener)

    def check_writable(self) -> None:
        """Raise ``ReadOnly`` if Orthanc may not store anything; ``open`` does so too."""
        if self._read_only:
            raise ReadOnly

    @property
    def limited(self) -> bool:
        """Whether Orthanc has limits: then a transfer is announced as a whole, with its patients."""
        return self._recycling is not None

    @property
    def memory_free(self) -> int:
        """Bytes that a transfer opened ``in_memory`` may have now, as far as memory and ``MaxStagingSize`` go."""
        return self._staging.memory_free

    def check_count(self, count: int) -> None:
        """Raise ``TooLarge`` if no transfer may have so many instances; ``open`` and ``grow`` do so too."""
        self._growth.check_count(count)

    def open(self, request: OpenRequest, cancellation: Cancellation | None = None) -> IncomingTransfer:
        """The transfer of that token, also after a restart; a new one if there is none.

        ``cancellation`` stops the look-up of what Orthanc has, as the end of the server does: ``Canceled``.
        Raises ``ReadOnly``, ``FatalInstance``, ``TooLarge``, ``NoSpace``; ``Conflict`` if the token is known with
        another manifest (a pull starts over then, unless it is being committed).
        """
        while True:
            try:
                return self._open(request, cancellation or self._closing)
            except TakenOver as taken:
                with self._lock:
                    expired = taken.identifier not in self._transfers
                if expired:
                    self.ownership.forget(taken.identifier)

    def _open(self, request: OpenRequest, cancellation: Cancellation) -> IncomingTransfer:
        self.check_writable()
        key = (request.kind, request.token)
        while True:
            with self._lock:
                known = self._tokens.get(key)
                opening = self._opening.get(key)
                mine = known is None and opening is None
                if mine:
                    opening = self._opening[key] = Future()
            if known is None and not mine:
                assert opening is not None
                known = opening.result()
            if known is None:
                break
            with known.growth:  # or it would be compared while it changes
                usable = self._still_usable(known, request)
            if usable:
                known.touch()
                if known.growing:
                    self.grow(known, request.manifest, request.more, cancellation)
                return known
        assert opening is not None
        try:
            transfer = self._create(request, cancellation)
        except BaseException as error:
            with self._lock:
                del self._opening[key]
            opening.set_exception(error)
            raise
        with self._lock:
            del self._opening[key]
        opening.set_result(transfer)
        return transfer

    def _still_usable(self, known: IncomingTransfer, request: OpenRequest) -> bool:
        manifest = request.manifest
        same = (
            known.fingerprint == manifest.fingerprint()
            or (known.growing and manifest.starts_with(known.manifest))
            # A client that announces the beginning once more does not know that the rest has arrived.
            or (request.more > 0 and len(manifest) > 0 and known.manifest.starts_with(manifest))
        )
        if known.kind == "pull" and not same:
            known.discard()
            return False
        if not same:
            raise Conflict("this token belongs to a transfer of other instances: choose another token")
        return not known.dropped

    def _create(self, request: OpenRequest, cancellation: Cancellation) -> IncomingTransfer:
        manifest, generation = request.manifest, self._generation
        self._growth.check_count(len(manifest) + request.more)
        self._growth.check_capacity(manifest, request.patients, cancellation)
        stored, needed = frozenset[int](), Needed(manifest.size, len(manifest))
        losses = self.ownership.losses
        if request.check_stored:
            stored, needed = self._growth.look_up(manifest, 0, cancellation)
        else:
            self._growth.check_fatal(manifest, 0, stored)
        identifier, meta = secrets.token_hex(16), request.area_meta(self._clock.now())
        limit = self._settings.max_push_transactions if request.kind == "push" else 0
        told, patience = request.told(meta), request.patience
        self.ownership.claim(identifier, request.kind, request.token, told, limit=limit, patience=patience)
        try:
            if request.check_stored and self.ownership.losses != losses:
                # What was not found may be there. (Here, so that it costs no request to know.)
                stored, needed = self._growth.look_up(manifest, 0, cancellation, sure=True)
            with lost_with_lease(self.ownership):
                area = self._staging.create(identifier, manifest, meta, needed, in_memory=request.in_memory)
            try:
                self.ownership.check()  # who was stopped since the claim has lost it: nobody would find it
                transfer = IncomingTransfer(area, self._services)
                transfer.take_meta()  # its client has it
                transfer.skip(stored)
                with self._lock:
                    if generation != self._generation:
                        raise Fenced
                    self._transfers[identifier] = self._tokens[request.kind, request.token] = transfer
            except BaseException:
                area.discard()
                self._staging.forget(area.id)
                raise
        except BaseException:
            self.ownership.forget(identifier)
            raise
        return transfer

    def grow(
        self, known: IncomingTransfer, manifest: Manifest, more: int, cancellation: Cancellation
    ) -> None:
        """See ``Growth.grow``."""
        with lost_with_lease(self.ownership):
            self._growth.grow(known, manifest, more, cancellation)

    def find(self, kind: str, token: str) -> IncomingTransfer | None:
        """The transfer of a token, if there is one."""
        with self._lock:
            return self._tokens.get((kind, token))

    def all(self) -> list[IncomingTransfer]:
        """All that are known, finished ones included."""
        with self._lock:
            return list(self._transfers.values())

    def drop_lost_pulls(self, tokens: Collection[str]) -> None:
        """Drop the unfinished pulls except those of ``tokens``, whose jobs Orthanc has reloaded.

        A job that was killed before Orthanc had saved it does not come back. An import that has begun goes on.
        """
        drop_lost_pulls(self.all(), tokens)

    def recover(self) -> None:
        """Roll interrupted commits and undos forward, in the background. To be called once Orthanc has started."""
        if not self._read_only:
            self._undo_retries.start()
        self.resume(self.all())

    def resume(self, transfers: Iterable[IncomingTransfer], *, adopted: bool = False) -> None:
        """Go on with interrupted commits, in the background; ``adopted``: of a node that has the jobs of the pulls."""
        interrupted = [one for one in transfers if one.state is PushState.COMMITTING]
        if interrupted and self._read_only:
            log.warning(
                "%d interrupted commits are resumed once this Orthanc is started without ReadOnly",
                len(interrupted),
            )
        elif interrupted:
            threads.start("transfers-recover", lambda: self._recover(interrupted, adopted))

    def _recover(self, interrupted: Iterable[IncomingTransfer], adopted: bool) -> None:
        for transfer in interrupted:
            log.warning("the commit of transfer %s was interrupted, it is resumed now", transfer.id)
            try:
                transfer.commit()
            except TransferError as error:
                log.warning("the interrupted commit of transfer %s did not succeed: %s", transfer.id, error)
                if adopted and transfer.kind == "pull" and transfer.state is PushState.RECEIVING:
                    transfer.discard()  # nobody fetches the rest here, and its job waits for that

    def expire(self) -> None:
        """Drop idle transfers, never one that is being committed; and the oldest outcomes, if they are many."""
        drop_idle(self.all(), self._settings.push_idle_timeout, self._clock.monotonic())
        drop_oldest_outcomes(self.all())

    def close(self) -> None:
        """Stop commits between two instances; all stays on disk. Waits a second or so for them at most."""
        self._ending.cancel()
        self._closing.cancel()
        deadline = time.monotonic() + _CLOSING
        for transfer in self.all():
            transfer.close(deadline)
        self._undo_retries.close(deadline)
        self._staging.close()

    def _correct(self, report: Mapping[str, Any]) -> None:
        """An undo has got further: let all who tell of that transfer tell so."""
        with self._lock:
            transfer = self._transfers.get(report["ID"])
        if transfer is not None:
            transfer.correct(report["Error"], report["Finished"])
        for listener in self._correctors:
            listener(report["ID"], report["Error"])

    def _ended(self, transfer: IncomingTransfer) -> None:
        self._staging.forget(transfer.id)
        if transfer.dropped:
            self.ownership.forget(transfer.id)
            with self._lock:
                self._transfers.pop(transfer.id, None)
                if self._tokens.get((transfer.kind, transfer.token)) is transfer:
                    del self._tokens[transfer.kind, transfer.token]
        for listener in self._listeners:
            listener(transfer)
