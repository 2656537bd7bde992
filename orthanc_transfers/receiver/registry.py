"""Registry of incoming transfers, keyed by token. Reloads them at start and expires idle ones."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from orthanc_transfers.core.errors import Conflict, ReadOnly, TransferError
from orthanc_transfers.core.model import Manifest, PushState
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.interfaces import Capacity, Clock, InstanceStore
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.changed_instances import ChangedInstances
from orthanc_transfers.receiver.extras_commit import ExtrasPolicy
from orthanc_transfers.receiver.fatal_instances import FatalInstances
from orthanc_transfers.receiver.growth import Growth
from orthanc_transfers.receiver.incoming import GROWING, IncomingTransfer, ReceiverServices
from orthanc_transfers.receiver.recycling import Recycling
from orthanc_transfers.receiver.reports import Reports
from orthanc_transfers.receiver.shared_instances import SharedInstances
from orthanc_transfers.receiver.staging import CHANGED, FATAL, UNDOS, Needed, Staging
from orthanc_transfers.receiver.undo_retries import UndoRetries
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

log = logging.getLogger(__name__)

PAUSED_PULL = 7 * 86400.0
"""Seconds that an unfinished pull is kept: its job may be paused, over the weekend say."""

# Seconds that the end of the server waits for commits to stop between two instances.
_CLOSING = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """A transfer to be received, as its client announces it."""

    token: str
    """Chosen by the client: the same token is the same transfer."""
    manifest: Manifest
    kind: str
    """``push`` or ``pull``."""
    check_stored: bool
    """What Orthanc has with the announced MD5 is not missing."""
    resumable: bool = True
    """The sender can send missing bytes again, and understands a refusal (all but pushes of version 1)."""
    in_memory: bool = False
    """All its bytes follow at once: they need no file if there is memory for them."""
    more: int = 0
    """Number of instances to be announced later, behind these: by the same token with all of them. It is not
    committed before."""
    patients: Collection[str] | None = None
    """Identifiers of the patients of all these instances, if known."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """JSON that is kept on disk for the client."""
    peer: str | None = None
    """Who sends, for the commit report."""
    sender_name: str | None = None
    """The name that the sender gives itself."""
    remote_address: str | None = None
    """From where it sends, if known."""
    aliases: Sequence[str] = ()
    """By what else than token and identifier the commit report is found; empty ones are ignored."""

    def area_meta(self, created: float) -> dict[str, Any]:
        """What is kept of it beside the manifest; ``created`` in seconds since the epoch."""
        return {
            "kind": self.kind,
            "token": self.token,
            "resumable": self.resumable,
            GROWING: bool(self.more),
            "peer": self.peer,
            "sender_name": self.sender_name,
            "remote_address": self.remote_address,
            "created": created,
            "aliases": [self.token, *filter(None, self.aliases)],
            "meta": dict(self.meta),
        }


class Registry:
    """All transfers that this server is receiving, or has received lately. Thread-safe.

    Opens what an earlier process left in ``staging``; nothing is imported before ``recover``.
    ``read_only``: nothing is received, and what was being received is kept as it is until a start without it.
    ``capacity``: of Orthanc, whose limits are without effect here if there is none. ``extras``: what is taken beside
    DICOM.
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
        extras: ExtrasPolicy | None = None,
    ) -> None:
        self._staging = staging
        self._read_only = read_only
        self._settings = settings
        self._clock = clock
        self._closing = Cancellation()
        self._recycling = Recycling(capacity, store) if capacity is not None and capacity.limits else None
        changed = ChangedInstances(staging.root / CHANGED)
        shared = SharedInstances()
        self._undo_retries = UndoRetries(
            staging.root / UNDOS, store, reports, shared, self._closing, self._correct
        )
        fatal = FatalInstances(staging.root / FATAL, settings.fatal_instance_retention, clock)
        self._growth = Growth(
            staging, store, changed, settings.max_manifest_instances, fatal, self._recycling
        )
        self._services = ReceiverServices(
            store,
            reports,
            clock,
            settings.commit_threads_count,
            self._closing,
            shared,
            changed,
            settings.accept_changed_identifiers,
            self._undo_retries,
            fatal,
            self._ended,
            self._recycling,
            extras,
            staging.promise,
        )
        self._lock = threading.Lock()
        self._transfers: dict[str, IncomingTransfer] = {}
        self._tokens: dict[tuple[str, str], IncomingTransfer] = {}
        self._opening: dict[tuple[str, str], Future[IncomingTransfer]] = {}
        self._listeners: list[Callable[[IncomingTransfer], None]] = []
        self._correctors: list[Callable[[str, str], None]] = []
        self._lost: Collection[str] = ()
        """Tokens of pulls whose jobs do not come back, and whose imports had begun."""
        for area in staging.reopen():
            self._reopen(area)

    def _reopen(self, area: Area) -> None:
        try:
            transfer = IncomingTransfer(area, self._services)
            self._tokens[transfer.kind, transfer.token] = transfer
        except (KeyError, TypeError, ValueError) as error:
            self._staging.forget(area.id)
            self._staging.set_aside(area.directory, f"its saved state is invalid: {error!r}")
        else:
            self._transfers[transfer.id] = transfer

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
        self.check_writable()
        key = (request.kind, request.token)
        cancellation = cancellation or self._closing
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
                    self._growth.grow(known, request.manifest, request.more, cancellation)
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
            self._transfers[transfer.id] = transfer
            self._tokens[key] = transfer
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
        manifest = request.manifest
        self._growth.check_count(len(manifest) + request.more)
        self._growth.check_capacity(manifest, request.patients, cancellation)
        stored, needed = frozenset[int](), Needed(manifest.size, len(manifest))
        if request.check_stored:
            stored, needed = self._growth.look_up(manifest, 0, cancellation)
        self._growth.check_fatal(manifest, 0, stored)
        area = self._staging.create(
            manifest, request.area_meta(self._clock.now()), needed, in_memory=request.in_memory
        )
        try:
            transfer = IncomingTransfer(area, self._services)
            transfer.take_meta()  # its client has it
            transfer.skip(stored)
        except BaseException:
            area.discard()
            self._staging.forget(area.id)
            raise
        return transfer

    def grow(
        self, known: IncomingTransfer, manifest: Manifest, more: int, cancellation: Cancellation
    ) -> None:
        """See ``Growth.grow``."""
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
        for transfer in self.all():
            if (
                transfer.kind == "pull"
                and transfer.state is PushState.RECEIVING
                and transfer.token not in tokens
            ):
                log.warning(
                    "pull %s is dropped with what it had received: its job was not saved", transfer.id
                )
                with suppress(Conflict):
                    transfer.discard()

    def recover(self) -> None:
        """Roll interrupted commits and undos forward, in the background. To be called once Orthanc has started."""
        if not self._read_only:
            self._undo_retries.start()
        interrupted = [one for one in self.all() if one.state is PushState.COMMITTING]
        if interrupted and self._read_only:
            log.warning(
                "%d interrupted commits are resumed once this Orthanc is started without ReadOnly",
                len(interrupted),
            )
        elif interrupted:
            threads.start("transfers-recover", lambda: self._recover(interrupted))

    def _recover(self, interrupted: Iterable[IncomingTransfer]) -> None:
        for transfer in interrupted:
            log.warning("the commit of transfer %s was interrupted, it is resumed now", transfer.id)
            try:
                transfer.commit()
            except TransferError as error:
                log.warning("the interrupted commit of transfer %s did not succeed: %s", transfer.id, error)

    def expire(self) -> None:
        """Drop idle transfers; never one that is being committed."""
        now = self._clock.monotonic()
        for transfer in self.all():
            idle: float = self._settings.push_idle_timeout
            if transfer.kind == "pull" and transfer.state is PushState.RECEIVING:
                # Its job may be paused; what it has must not be fetched again.
                idle = max(idle, PAUSED_PULL)
            if transfer.state is not PushState.COMMITTING and now - transfer.last_used > idle:
                log.info("transfer %s expired: it was idle for %d s", transfer.id, idle)
                with suppress(Conflict):
                    transfer.discard()

    def close(self) -> None:
        """Stop commits between two instances; all stays on disk. Waits a second or so for them at most."""
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
            with self._lock:
                self._transfers.pop(transfer.id, None)
                if self._tokens.get((transfer.kind, transfer.token)) is transfer:
                    del self._tokens[transfer.kind, transfer.token]
        for listener in self._listeners:
            listener(transfer)
