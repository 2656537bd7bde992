"""Push service: the registry of pushes, their slots and outcomes, for ``protocol_v1.py`` and ``protocol_v2.py``.

The lock of this file is held to look a push up, never while one is written, hashed or committed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orthanc_transfers.core.codec import Codec
from orthanc_transfers.core.errors import Conflict, UnknownTransaction
from orthanc_transfers.core.model import Chunk, PushState
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.receiver.admission import Admission
from orthanc_transfers.receiver.incoming import IncomingTransfer
from orthanc_transfers.receiver.metrics import PushMetrics
from orthanc_transfers.receiver.registry import Registry
from orthanc_transfers.receiver.states import FINISHED
from orthanc_transfers.runtime import threads

log = logging.getLogger(__name__)

# Each waiting creation keeps one of Orthanc's HTTP threads (50 by default), which other pushes need.
_MAX_QUEUED = 16
_EXPIRY_PERIOD = 15.0
_PAUSE = 0.02
_LAST = 4.0

LONGEST_END = 14.0
"""Seconds that a server about to stop waits for commits, where nobody could finish them."""

LENT = 60.0
"""Seconds without a request after which the slot of a push is given to others, while its bytes stay."""


@dataclass(eq=False, slots=True)
class Push:
    """An incoming transfer, and what only its protocol version needs."""

    transfer: IncomingTransfer
    version: int
    codec: Codec
    """Of the buckets of version 1."""
    buckets: Sequence[Sequence[Chunk]]
    """Of version 1, as its sender planned them; empty once it is over."""
    has_slot: bool
    """Whether it has one of the slots, which are limited."""
    live: bool
    """Whether its end is still to come, and to be counted."""


class PushService:
    """The pushes that this server receives. Thread-safe."""

    def __init__(self, registry: Registry, settings: Settings, clock: Clock, metrics: PushMetrics) -> None:
        self.registry = registry
        self.settings = settings
        self.metrics = metrics
        self._clock = clock
        self.ending = False
        """Whether no commit of version 1 is to begin."""
        self.slots = Admission(settings.max_push_transactions, _MAX_QUEUED, self._show_available)
        self._lock = threading.Lock()
        self._pushes: dict[str, Push] = {}
        self._expiry = threads.Periodic("transfers-expiry", self._expiry_period, self.expire)
        registry.on_end(self._ended)
        self.take_in(registry.all())
        self._expiry.start()

    def take_in(self, transfers: Iterable[IncomingTransfer]) -> None:
        """Go on with pushes that an earlier process, or another node of the cluster, was receiving."""
        for transfer in transfers:
            if transfer.kind == "push":
                self._reopen(transfer)

    def abandon(self, transfers: Iterable[IncomingTransfer]) -> None:
        """Forget pushes that another node of the cluster has now."""
        for transfer in transfers:
            with self._lock:
                push = self._pushes.pop(transfer.id, None)
            if push is not None:
                self.slots.end(push)

    def _reopen(self, transfer: IncomingTransfer) -> None:
        live = transfer.state not in FINISHED
        try:
            meta = transfer.take_meta()
            planned = meta.get("buckets", ()) if live else ()
            buckets = [[Chunk(*chunk) for chunk in bucket] for bucket in planned]
            push = Push(transfer, meta["version"], Codec(meta["codec"]), buckets, has_slot=live, live=live)
        except (KeyError, TypeError, ValueError) as error:
            log.warning(
                "push %s cannot go on after the restart, its sender has to start over: %r", transfer.id, error
            )
            return
        if live:
            self.slots.occupy()
        with self._lock:
            self._pushes[transfer.id] = push

    def _show_available(self, count: int) -> None:
        self.metrics.available = count

    # --- for the two protocol versions

    def find(self, identifier: str, version: int | None = None) -> Push:
        """A push by its identifier, of that version only.

        Raises ``UnknownTransaction``; ``OwnedElsewhere``; ``ReadOnly`` where Orthanc may not store what the push
        still brings.
        """
        with self._lock:
            push = self._pushes.get(identifier)
        if push is None:
            self.registry.ownership.locate(identifier=identifier)
            with self._lock:
                push = self._pushes.get(identifier)  # it may just have been taken over
        if push is None or version not in (None, push.version):
            raise UnknownTransaction(
                f"there is no push {identifier}: it was never created, or was dropped or expired; start over"
            )
        if version is not None and push.transfer.state not in FINISHED:
            self.registry.check_writable()
        return push

    def register(self, push: Push) -> bool:
        """Make a push known. Returns whether it was not yet."""
        with self._lock:
            if push.transfer.id in self._pushes:
                return False
            self._pushes[push.transfer.id] = push
        self.metrics.add(created=1)
        return True

    def refuse_if_over(self, push: Push) -> None:
        """Raise ``Conflict`` unless it is receiving, before the work of decoding; the transfer looks again."""
        transfer = push.transfer
        if transfer.state is not PushState.RECEIVING:
            raise Conflict(f"push {transfer.id} is {transfer.state.value}, it takes no more bytes")

    def in_use(self, push: Push, received_bytes: int = 0) -> None:
        """Give a push the slot back that it may have lent, and count what it brings, as it was on the wire."""
        self.slots.reclaim(push)
        self.metrics.add(received_bytes=received_bytes)

    # --- both

    def drop(self, identifier: str) -> None:
        """Forget a push; one that has ended keeps its outcome.

        Raises ``UnknownTransaction``; ``Conflict`` while a push of version 1 is being committed (version 2
        ignores the request then).
        """
        push = self.find(identifier)
        if push.transfer.state in FINISHED:
            return
        try:
            push.transfer.discard()
        except Conflict:
            if push.version == 1:
                raise

    def recover(self) -> None:
        """Roll interrupted commits forward; to be called once Orthanc has started."""
        self.registry.recover()

    def expire(self) -> None:
        """Drop transfers that were idle for long, and lend the slots of pushes that were for a while.

        Called by a thread every few seconds.
        """
        self.registry.expire()
        # A sender that died, or is paused, would keep others waiting for as long as its bytes are kept.
        now = self._clock.monotonic()
        with self._lock:
            idle = [
                push
                for push in self._pushes.values()
                if push.transfer.state is PushState.RECEIVING and now - push.transfer.last_used > LENT
            ]
        for push in idle:
            self.slots.lend(push)

    def _expiry_period(self) -> float:
        return min(_EXPIRY_PERIOD, self.settings.push_idle_timeout / 4)

    def end_commits(self) -> None:
        """Let those of version 1 end before ``close``, whose senders cannot start over: for ``LONGEST_END`` at most.

        None is begun for the last few seconds of these, if there still is one: who asks for one has to wait.
        """
        deadline = time.monotonic() + LONGEST_END
        self._await_commits(deadline - _LAST)
        self.ending = True
        time.sleep(_PAUSE)  # for one that is about to begin
        self._await_commits(deadline)

    def _await_commits(self, deadline: float) -> None:
        while (left := deadline - time.monotonic()) > 0:
            with self._lock:
                pushes = [push for push in self._pushes.values() if push.version == 1]
            committing = [push for push in pushes if push.transfer.state is PushState.COMMITTING]
            if not committing:
                return
            committing[0].transfer.await_commit(left)
            # Should it have failed for now, it is as it was.
            time.sleep(_PAUSE)

    def close(self) -> None:
        """Stop, within two seconds; what was received stays on disk."""
        self._expiry.close()
        self.slots.close()
        self.registry.close()

    def _ended(self, transfer: IncomingTransfer) -> None:
        with self._lock:
            push = self._pushes.get(transfer.id)
            if push is None:
                return
            if transfer.dropped:
                del self._pushes[transfer.id]
            push.buckets = ()
        if not self.slots.end(push):
            return
        committed = transfer.state is PushState.COMMITTED
        self.metrics.add(
            committed=int(committed),
            aborted=int(not committed),
            reception_ms=round(1000 * transfer.reception_seconds),
            commit_ms=round(1000 * transfer.commit_seconds),
        )
