"""Everything that this server is receiving: found by token, also after a restart; expiry; the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from orthanc_transfers.core.errors import Conflict, NoSpace, TooLarge, TransferError
from orthanc_transfers.core.model import Manifest, PushState
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.interfaces import Clock, InstanceStore
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.commit import same_places
from orthanc_transfers.receiver.incoming import GROWING, IncomingTransfer, Surroundings
from orthanc_transfers.receiver.reports import Reports
from orthanc_transfers.receiver.shared_instances import SharedInstances
from orthanc_transfers.receiver.staging import Staging
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

log = logging.getLogger(__name__)

PAUSED_PULL = 7 * 86400.0
"""Seconds that an unfinished pull is kept: its job may be paused, over the weekend say."""

# Seconds that the end of the server waits for commits to stop between two instances.
_CLOSING = 1.5


class Registry:
    """Everything that this server is receiving, or has received lately.

    Opens what an earlier process left in ``staging``; nothing is imported before ``recover``.
    """

    def __init__(
        self, staging: Staging, store: InstanceStore, reports: Reports, settings: Settings, clock: Clock
    ) -> None:
        self._staging = staging
        self._settings = settings
        self._clock = clock
        self._closing = Cancellation()
        self._surroundings = Surroundings(
            store,
            reports,
            clock,
            settings.commit_threads_count,
            self._closing,
            SharedInstances(),
            self._ended,
        )
        self._lock = threading.Lock()
        self._receptions: dict[str, IncomingTransfer] = {}
        self._tokens: dict[tuple[str, str], IncomingTransfer] = {}
        self._opening: dict[tuple[str, str], Future[IncomingTransfer]] = {}
        self._listeners: list[Callable[[IncomingTransfer], None]] = []
        for area in staging.reopen():
            self._reopen(area)

    def _reopen(self, area: Area) -> None:
        try:
            reception = IncomingTransfer(area, self._surroundings)
            self._tokens[reception.kind, reception.token] = reception
        except (KeyError, TypeError, ValueError) as error:
            self._staging.forget(area.id)
            self._staging.set_aside(area.directory, f"its state makes no sense: {error!r}")
        else:
            self._receptions[reception.id] = reception

    def on_end(self, listener: Callable[[IncomingTransfer], None]) -> None:
        """Be told of every reception that is committed, fails or is discarded."""
        self._listeners.append(listener)

    def open(
        self,
        token: str,
        manifest: Manifest,
        *,
        kind: str,
        check_stored: bool,
        resumable: bool = True,
        more: int = 0,
        meta: Mapping[str, Any] | None = None,
        peer: str | None = None,
        aliases: Sequence[str] = (),
        cancellation: Cancellation | None = None,
    ) -> IncomingTransfer:
        """The reception of that token, also after a restart; a new one if there is none.

        ``check_stored``: what Orthanc has with the same MD5 is not missing. ``meta`` (JSON) is kept on disk.
        ``more`` instances come behind these: the same token with all of them lets it grow, and it is not
        committed before.
        ``cancellation`` ends the look for what Orthanc has, as the end of the server does: ``Canceled``.
        ``peer`` and ``aliases`` go to the commit report: who sends, and by what else it can be found.
        Raises ``TooLarge``, ``NoSpace``; ``Conflict`` if the token is known with another manifest (a pull
        starts over then, unless it is being committed).
        """
        key = (kind, token)
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
                right = self._still_right(known, manifest, more)
            if right:
                known.touch()
                if known.growing:
                    self.grow(known, manifest, more, cancellation or self._closing)
                return known
        assert opening is not None
        try:
            reception = self._create(
                manifest,
                {
                    "kind": kind,
                    "token": token,
                    "resumable": resumable,
                    GROWING: bool(more),
                    "peer": peer,
                    "created": self._clock.now(),
                    "aliases": [token, *filter(None, aliases)],
                    "meta": dict(meta or {}),
                },
                more,
                check_stored,
                cancellation or self._closing,
            )
        except BaseException as error:
            with self._lock:
                del self._opening[key]
            opening.set_exception(error)
            raise
        with self._lock:
            del self._opening[key]
            self._receptions[reception.id] = reception
            self._tokens[key] = reception
        opening.set_result(reception)
        return reception

    def _still_right(self, known: IncomingTransfer, manifest: Manifest, more: int) -> bool:
        same = (
            known.fingerprint == manifest.fingerprint()
            or (known.growing and manifest.starts_with(known.manifest))
            # Whoever announces the beginning once more does not know that the rest was heard.
            or (more > 0 and len(manifest) > 0 and known.manifest.starts_with(manifest))
        )
        fresh_start = known.kind == "pull" and (not same or known.state is PushState.FAILED)
        if fresh_start:
            known.discard()
            return False
        if not same:
            raise Conflict("this token belongs to another transfer")
        return not known.dropped

    def grow(
        self, known: IncomingTransfer, manifest: Manifest, more: int, cancellation: Cancellation
    ) -> None:
        """Let a reception have the instances that ``manifest`` has behind its own; ``more`` are still to come.

        Raises ``Conflict`` if it does not begin with those; ``NoSpace``, ``TooLarge``: it is dropped then.
        ``UnknownTransaction``: it was dropped before.
        """
        with known.growth:
            if not known.growing or (more and len(manifest) <= known.count):
                return  # somebody else was faster
            if not manifest.starts_with(known.manifest):
                raise Conflict(f"the instances of transfer {known.id} are others now")
            try:
                self._check_count(len(manifest) + more)
                stored, needed = self._look(manifest, known.count, cancellation)
                self._staging.promise(known.id, needed)
                known.grow(manifest, stored, growing=more > 0)
            except TransferError as error:
                if known.dropped:
                    self._staging.forget(known.id)
                elif isinstance(error, (NoSpace, TooLarge)):
                    # It will never be whole, and takes room.
                    known.discard()
                raise

    def _look(self, manifest: Manifest, first: int, cancellation: Cancellation) -> tuple[frozenset[int], int]:
        """Places, from ``first`` on, of the instances that Orthanc has with the same MD5; bytes of the others."""
        new = manifest.instances[first:]
        stored = self._surroundings.store.md5s([instance.id for instance in new], cancellation)
        same = same_places(new, stored, first)
        return same, sum(instance.size for place, instance in enumerate(new, first) if place not in same)

    def _check_count(self, count: int) -> None:
        most = self._settings.max_manifest_instances
        if count > most:
            raise TooLarge(f"{count} instances are more than MaxManifestInstances, {most}")

    def _create(
        self,
        manifest: Manifest,
        meta: dict[str, Any],
        more: int,
        check_stored: bool,
        cancellation: Cancellation,
    ) -> IncomingTransfer:
        self._check_count(len(manifest) + more)
        same, needed = frozenset[int](), manifest.size
        if check_stored:
            same, needed = self._look(manifest, 0, cancellation)
        area = self._staging.create(manifest, meta, needed)
        try:
            reception = IncomingTransfer(area, self._surroundings)
            reception.take_meta()  # its opener has it
            reception.skip(same)
        except BaseException:
            area.discard()
            self._staging.forget(area.id)
            raise
        return reception

    def find(self, kind: str, token: str) -> IncomingTransfer | None:
        """The reception of a token, if there is one."""
        with self._lock:
            return self._tokens.get((kind, token))

    def all(self) -> list[IncomingTransfer]:
        """All that are known, finished ones included."""
        with self._lock:
            return list(self._receptions.values())

    def drop_lost_pulls(self, tokens: Collection[str]) -> None:
        """Drop the unfinished pulls but those of ``tokens``, whose jobs Orthanc has reloaded.

        A job that was killed before Orthanc had saved it does not come back. An import that has begun goes on.
        """
        for reception in self.all():
            if (
                reception.kind == "pull"
                and reception.state is PushState.RECEIVING
                and reception.token not in tokens
            ):
                log.warning(
                    "what was received of transfer %s is dropped: its job was not saved", reception.id
                )
                with suppress(Conflict):
                    reception.discard()

    def recover(self) -> None:
        """Roll interrupted commits forward, in the background. To be called once Orthanc has started."""
        interrupted = [one for one in self.all() if one.state is PushState.COMMITTING]
        if interrupted:
            threads.start("transfers-recover", lambda: self._recover(interrupted))

    def _recover(self, interrupted: Iterable[IncomingTransfer]) -> None:
        for reception in interrupted:
            log.warning("the commit of transfer %s was interrupted, it goes on now", reception.id)
            try:
                reception.commit()
            except TransferError as error:
                log.warning("the interrupted commit of transfer %s: %s", reception.id, error)

    def expire(self) -> None:
        """Drop what nobody asked for during a long time; a commit under way is none of it."""
        now = self._clock.monotonic()
        for reception in self.all():
            idle: float = self._settings.push_idle_timeout
            if reception.kind == "pull" and reception.state is PushState.RECEIVING:
                # Its job may be paused; what it has must not be fetched again.
                idle = max(idle, PAUSED_PULL)
            if reception.state is not PushState.COMMITTING and now - reception.last_used > idle:
                log.info("transfer %s is dropped: nobody used it for %d s", reception.id, idle)
                with suppress(Conflict):
                    reception.discard()

    def close(self) -> None:
        """Stop commits between two instances; all stays on disk. Waits a second or so for them at most."""
        self._closing.cancel()
        deadline = time.monotonic() + _CLOSING
        for reception in self.all():
            reception.close(deadline)
        self._staging.close()

    def _ended(self, reception: IncomingTransfer) -> None:
        self._staging.forget(reception.id)
        if reception.dropped:
            with self._lock:
                self._receptions.pop(reception.id, None)
                if self._tokens.get((reception.kind, reception.token)) is reception:
                    del self._tokens[reception.kind, reception.token]
        for listener in self._listeners:
            listener(reception)
