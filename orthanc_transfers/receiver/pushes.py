"""Pushes as their senders see them, in both versions of the protocol: limits, messages, remembered outcomes.

The lock of this file is held to look a push up, never while one is written, hashed or committed.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from orthanc_transfers.core import checksum, codec
from orthanc_transfers.core.codec import Codec
from orthanc_transfers.core.errors import (
    BadRequest,
    Busy,
    Conflict,
    Corrupted,
    TooLarge,
    UnknownResource,
    UnknownTransaction,
)
from orthanc_transfers.core.messages_v1 import PushCreationV1
from orthanc_transfers.core.messages_v2 import PushCreationV2, PushStatus
from orthanc_transfers.core.model import Chunk, Manifest, PushState
from orthanc_transfers.core.paths import push_v2
from orthanc_transfers.core.ranges import Range, cut
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.receiver.admission import FifoSemaphore
from orthanc_transfers.receiver.incoming import FINISHED, IncomingTransfer
from orthanc_transfers.receiver.metrics import PushMetrics
from orthanc_transfers.receiver.registry import Registry
from orthanc_transfers.runtime import threads

log = logging.getLogger(__name__)

# A sender of version 1 gives up after its PeerCommitTimeout, which we take to be ours.
_HOLD_SHARE = 0.8
_LONGEST_HOLD = 480.0
# Each waiting creation keeps one of Orthanc's HTTP threads (50 by default), which other pushes need.
_MOST_HELD = 16
_RETRY_AFTER = 2.0
_EXPIRY_PERIOD = 15.0

LENT = 60.0
"""Seconds without a request after which the place of a push is given to others, while its bytes stay."""

# Bytes of a bucket of version 1, whose chunks have offsets and sizes of 31 bits on C++ peers.
_LARGEST_BUCKET = 2**31 - 1


@dataclass(eq=False, slots=True)
class _Push:
    """A reception, and what only its sender's version of the protocol needs."""

    reception: IncomingTransfer
    version: int
    codec: Codec
    buckets: Sequence[Sequence[Chunk]]
    placed: bool
    """Whether it has one of the places, which are limited."""
    live: bool
    """Whether its end is still to come, and to be counted."""


class PushService:
    """The pushes that this server receives. Thread-safe."""

    def __init__(self, receptions: Registry, settings: Settings, clock: Clock, counters: PushMetrics) -> None:
        self._receptions = receptions
        self._settings = settings
        self._clock = clock
        self._counters = counters
        self._places = FifoSemaphore(settings.max_push_transactions, _MOST_HELD)
        self._lock = threading.Lock()
        self._pushes: dict[str, _Push] = {}
        self._expiry = threads.Periodic("transfers-expiry", self._expiry_period, self.expire)
        receptions.on_end(self._ended)
        for reception in receptions.all():
            if reception.kind == "push":
                self._reopen(reception)
        self._count_places()
        self._expiry.start()

    def _reopen(self, reception: IncomingTransfer) -> None:
        try:
            meta = reception.take_meta()
            buckets = [[Chunk(*chunk) for chunk in bucket] for bucket in meta["buckets"]]
            if reception.state in FINISHED:
                buckets = []
            push = _Push(reception, meta["version"], Codec(meta["codec"]), buckets, False, False)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("push %s cannot go on after the restart: %r", reception.id, error)
            return
        if reception.state not in FINISHED:
            self._places.occupy()
            push.placed = push.live = True
        self._pushes[reception.id] = push

    @property
    def held(self) -> int:
        """Creations that wait for a place."""
        return self._places.queued

    @property
    def max_values(self) -> int:
        """See ``Settings``."""
        return self._settings.max_values

    # --- version 1

    def create_v1(self, creation: PushCreationV1, sender: str | None = None) -> str:
        """A new push; answers its identifier. Waits for a place if there is none.

        ``sender`` is the transfer's identifier, as its sender says.
        Raises ``TooLarge``, ``NoSpace``, ``Busy``.
        """
        self._check_size(len(creation.manifest))
        self._take_place(self._patience())
        buckets = [[[chunk.id, chunk.offset, chunk.size] for chunk in bucket] for bucket in creation.buckets]
        meta = {"version": 1, "codec": creation.compression.value, "buckets": buckets}
        try:
            reception = self._receptions.open(
                uuid.uuid4().hex,
                creation.manifest,
                kind="push",
                check_stored=False,
                resumable=False,
                meta=meta,
                peer=sender,
                aliases=[sender] if sender else [],
            )
        except BaseException:
            self._free_place()
            raise
        self._register(_Push(reception, 1, Codec(creation.compression.value), creation.buckets, True, True))
        return reception.id

    def put_v1(self, identifier: str, index: int, body: memoryview) -> None:
        """One bucket, as it was on the wire.

        Raises ``UnknownTransaction``, ``UnknownResource``, ``BadRequest``, ``BadFile``, ``WrongSize``,
        ``Conflict``.
        """
        push = self._find(identifier, 1)
        push.reception.touch()
        # Both are empty once it is over.
        buckets, manifest = push.buckets, push.reception.manifest
        self._refuse_if_over(push.reception)
        if not 0 <= index < len(buckets):
            raise BadRequest(f"push {identifier} has {len(buckets)} buckets, none has index {index}")
        ranges = [_range(manifest, chunk) for chunk in buckets[index]]
        size = sum(item.size for item in ranges)
        if size > _LARGEST_BUCKET:
            raise TooLarge(
                f"bucket {index} of push {identifier} has {size} bytes, {_LARGEST_BUCKET} at most may be"
            )
        self._return_place(push)
        self._counters.add(received_bytes=len(body))
        if push.codec is Codec.GZIP and size > codec.MAX_PART_SIZE:
            # A few bytes may announce gigabytes: never more of them in memory than a part. All is looked at
            # before the first byte is believed, for what is damaged can be sent again.
            codec.check_gzip(body, size)
            rest = ranges
            for part in codec.gunzip_parts(body, codec.MAX_PART_SIZE):
                here, rest = cut(rest, part.nbytes)
                push.reception.write(here, part)
            return
        push.reception.write(ranges, codec.decode(body, push.codec, size))

    def commit_v1(self, identifier: str) -> None:
        """Verify and import; answers when done, and the same again if asked again.

        Raises ``UnknownTransaction``; ``Corrupted``, naming an instance: the push stays, and buckets may be
        sent again; ``ImportRefused``: nothing was kept.
        """
        push = self._find(identifier, 1)
        self._return_place(push)
        push.reception.commit()

    # --- version 2

    def create(self, creation: PushCreationV2, sender: str | None = None) -> PushStatus:
        """A new push, or the one of the same token.

        Raises ``Conflict`` (the token has another manifest), ``TooLarge``, ``NoSpace``; ``Busy``, at once.
        """
        self._check_size(len(creation.manifest) + creation.more)
        known = self._receptions.find("push", creation.token)
        if known is None:
            self._take_place(0)
        try:
            reception = self._receptions.open(
                creation.token,
                creation.manifest,
                kind="push",
                check_stored=True,
                more=creation.more,
                meta={"version": 2, "codec": Codec.NONE.value, "buckets": []},
                peer=sender,
                aliases=[sender] if sender else [],
            )
        except BaseException:
            if known is None:
                self._free_place()
            raise
        new = self._register(_Push(reception, 2, Codec.NONE, (), True, True))
        if known is None and not new:
            self._free_place()  # the same creation, twice at once: one place is enough
        elif known is not None and new:
            self._places.occupy()  # the known one expired meanwhile
        return self._status(reception)

    def put(
        self,
        identifier: str,
        places: Sequence[tuple[int, int]],
        encoding: Codec,
        xxh3: str | None,
        body: memoryview,
    ) -> None:
        """One bucket: ranges of the area, each an offset and a size, end to end as they were on the wire in ``body``.

        ``xxh3`` is the checksum of the body, if its sender computed one. Raises ``UnknownTransaction``,
        ``BadRequest``, ``BadFile``, ``WrongSize``, ``Corrupted``, ``Conflict``.
        """
        push = self._find(identifier, 2)
        reception = push.reception
        reception.touch()
        for offset, size in places:
            if offset < 0 or size < 0 or offset + size > reception.size:
                raise BadRequest(
                    f"bytes {offset} to {offset + size} lie beyond the area of push {identifier}"
                )
        self._refuse_if_over(reception)
        self._return_place(push)
        self._counters.add(received_bytes=len(body))
        if xxh3 is not None and checksum.xxh3([body]) != xxh3.lower():
            raise Corrupted(f"the bytes from {places[0][0]} on were damaged on their way; send them again")
        ranges = [Range(offset, offset + size) for offset, size in places]
        reception.write(ranges, codec.decode(body, encoding, sum(item.size for item in ranges)))

    def status(self, identifier: str, wait: float = 0.0) -> PushStatus:
        """How far it is; while it is being committed, only after its end or after ``wait`` seconds.

        Raises ``UnknownTransaction``.
        """
        reception = self._find(identifier, 2).reception
        reception.await_commit(wait)
        return self._status(reception)

    def commit(self, identifier: str) -> PushStatus:
        """Let the commit begin, once, unless bytes are missing; answers at once.

        Raises ``UnknownTransaction``; ``Conflict`` while instances are still to be announced.
        """
        push = self._find(identifier, 2)
        self._return_place(push)
        reception = push.reception
        if reception.growing or (not reception.missing() and reception.state not in FINISHED):
            reception.commit_in_background()
        return self._status(reception)

    def _status(self, reception: IncomingTransfer) -> PushStatus:
        reception.touch()
        state = reception.state
        stored, stored_size = reception.already_stored
        return PushStatus(
            id=reception.id,
            path=push_v2(reception.id),
            state=state,
            missing=tuple(reception.missing()),
            imported=reception.imported,
            total=reception.count,
            already_stored=stored,
            already_stored_size=stored_size,
            error=reception.error if state is PushState.FAILED else None,
            report=reception.report.counts() if reception.report is not None else None,
        )

    # --- both

    def drop(self, identifier: str) -> None:
        """Forget a push; one that has ended keeps its outcome.

        Raises ``UnknownTransaction``; ``Conflict`` while a push of version 1 is being committed (version 2
        ignores the request then).
        """
        push = self._find(identifier, None)
        if push.reception.state in FINISHED:
            return
        try:
            push.reception.discard()
        except Conflict:
            if push.version == 1:
                raise

    def recover(self) -> None:
        """Roll interrupted commits forward; to be called once Orthanc has started."""
        self._receptions.recover()

    def expire(self) -> None:
        """Drop pushes that nobody used for long, and lend the places of those nobody used for a while.

        Called by itself every few seconds.
        """
        self._receptions.expire()
        self._lend_places()

    def close(self) -> None:
        """Stop, within two seconds; what was received stays on disk."""
        self._expiry.close()
        self._places.close()
        self._receptions.close()

    # --- inside

    def _find(self, identifier: str, version: int | None) -> _Push:
        with self._lock:
            push = self._pushes.get(identifier)
        if push is None or version not in (None, push.version):
            raise UnknownTransaction(
                f"there is no push {identifier}: it was never created, dropped or expired"
            )
        return push

    def _refuse_if_over(self, reception: IncomingTransfer) -> None:
        # Said before the work of decoding; ``write`` looks again.
        if reception.state is not PushState.RECEIVING:
            raise Conflict(f"push {reception.id} is {reception.state.value}, it takes no more bytes")

    def _check_size(self, count: int) -> None:
        if count > self._settings.max_manifest_instances:
            raise TooLarge(
                f"{count} instances in one push are more than MaxManifestInstances,"
                f" {self._settings.max_manifest_instances}"
            )

    def _register(self, push: _Push) -> bool:
        with self._lock:
            if push.reception.id in self._pushes:
                return False
            self._pushes[push.reception.id] = push
        self._counters.add(created=1)
        return True

    def _ended(self, reception: IncomingTransfer) -> None:
        with self._lock:
            push = self._pushes.get(reception.id)
            if push is None:
                return
            if reception.dropped:
                del self._pushes[reception.id]
            placed, push.placed = push.placed, False
            live, push.live = push.live, False
            push.buckets = ()
        if placed:
            self._free_place()
        if not live:
            return
        committed = reception.state is PushState.COMMITTED
        self._counters.add(
            committed=int(committed),
            aborted=int(not committed),
            reception_ms=round(1000 * reception.reception_seconds),
            commit_ms=round(1000 * reception.commit_seconds),
        )

    def _patience(self) -> float:
        # 0 stands for Orthanc's own HttpTimeout, which is 60 seconds unless configured.
        return min((self._settings.peer_commit_timeout or 60) * _HOLD_SHARE, _LONGEST_HOLD)

    def _take_place(self, patience: float) -> None:
        if not self._places.take(patience):
            limit = self._settings.max_push_transactions
            raise Busy(f"{limit} pushes are being received (MaxPushTransactions), try later", _RETRY_AFTER)
        self._count_places()

    def _lend_places(self) -> None:
        # A sender that died, or is paused, would keep others waiting for as long as its bytes are kept.
        now = self._clock.monotonic()
        with self._lock:
            idle = [
                push
                for push in self._pushes.values()
                if push.placed
                and push.reception.state is PushState.RECEIVING
                and now - push.reception.last_used > LENT
            ]
            for push in idle:
                push.placed = False
        for _ in idle:
            self._free_place()

    def _return_place(self, push: _Push) -> None:
        # At once, even if there is one too many then: its bytes are here already.
        with self._lock:
            if push.placed or not push.live:
                return
            push.placed = True
        self._places.occupy()
        self._count_places()

    def _free_place(self) -> None:
        self._places.free()
        self._count_places()

    def _count_places(self) -> None:
        self._counters.available = self._places.available

    def _expiry_period(self) -> float:
        return min(_EXPIRY_PERIOD, self._settings.push_idle_timeout / 4)


def _range(manifest: Manifest, chunk: Chunk) -> Range:
    try:
        return manifest.range_of_chunk(chunk)
    except KeyError:
        raise UnknownResource(f"a bucket names instance {chunk.id}, which is not in the push") from None
    except ValueError as error:
        raise BadRequest(str(error)) from None
