"""Receives pushes of protocol version 2: create by token, PUT any ranges, status, commit in the background.

Or all of that in one request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from orthanc_transfers.core import checksum, codec
from orthanc_transfers.core.codec import Codec
from orthanc_transfers.core.errors import BadRequest, Conflict, Corrupted, UnknownTransaction
from orthanc_transfers.core.extras import ExtrasMessage
from orthanc_transfers.core.messages_v2 import PushCreationV2, PushStatus
from orthanc_transfers.core.model import Manifest, PushState
from orthanc_transfers.core.ranges import Range
from orthanc_transfers.receiver.incoming import IncomingTransfer
from orthanc_transfers.receiver.open_request import OpenRequest
from orthanc_transfers.receiver.pushes import Push, PushService
from orthanc_transfers.receiver.states import FINISHED

PATH = "/transfers/v2/push/"


class PushV2:
    """The requests of version 2. Thread-safe."""

    def __init__(self, pushes: PushService) -> None:
        self._pushes = pushes

    def create(
        self, creation: PushCreationV2, sender: str | None = None, address: str | None = None
    ) -> PushStatus:
        """A new push, or the one of the same token.

        ``sender`` is the transfer's identifier, as its sender says; ``address``, where that is, if known.

        Raises ``ReadOnly``, ``Conflict`` (the token has another manifest), ``TooLarge``, ``NoSpace``; ``Busy``, at
        once; ``UnknownTransaction`` if it is said to have instances, and is unknown.
        """
        return _status(self._open(creation, sender, address).transfer)

    def carry(
        self,
        creation: PushCreationV2,
        sender: str | None,
        encoding: Codec,
        body: memoryview,
        *,
        received: int,
        wait: float,
        address: str | None = None,
    ) -> PushStatus:
        """A whole push in one request: created, all its bytes received, committed. The same token asks again for it.

        ``body`` are the bytes of all instances, encoded, and valid only until this returns; ``received``, those on
        the wire, to be counted. Returns the status when the commit ends, or after ``wait`` seconds. If bytes turn out
        to be wrong, they are missing.
        Raises what ``create`` and ``put`` do.
        """
        self._pushes.registry.check_writable()
        data = codec.decode(body, encoding, creation.manifest.size)
        push = self._open(creation, sender, address, in_memory=True)
        transfer = push.transfer
        self._pushes.in_use(push, received_bytes=received)
        if transfer.state is PushState.COMMITTING:
            # An earlier process began it, or the same request came before.
            transfer.commit_in_background()
            transfer.await_commit(wait)
        if transfer.state is PushState.RECEIVING:
            # What was not encoded lies in the memory of the request.
            with transfer.lending(data):
                # The same request may be just as far.
                with contextlib.suppress(Conflict):
                    transfer.write([Range(0, creation.manifest.size)], data)
                    transfer.carried(encoding.value, received)
                self._commit_if_complete(transfer)
                transfer.await_commit(wait)
        return _status(transfer)

    def _open(
        self, creation: PushCreationV2, sender: str | None, address: str | None, *, in_memory: bool = False
    ) -> Push:
        registry, slots = self._pushes.registry, self._pushes.slots
        # Before it asks for a slot.
        registry.check_writable()
        registry.check_count(creation.before + len(creation.manifest) + creation.more)
        known = registry.find("push", creation.token)
        if known is None and creation.before:
            registry.ownership.locate(kind="push", token=creation.token)
            known = registry.find("push", creation.token)
        manifest = _announced(creation, known)
        if known is None:
            slots.take(0)
        try:
            transfer = registry.open(
                OpenRequest(
                    token=creation.token,
                    manifest=manifest,
                    kind="push",
                    # Sending is cheaper than asking where all is sent at once: the commit looks.
                    check_stored=not in_memory,
                    in_memory=in_memory,
                    more=creation.more,
                    patients=creation.patients,
                    meta={"version": 2, "codec": Codec.NONE.value, "buckets": []},
                    peer=sender,
                    sender_name=creation.sender_name,
                    originator=creation.originator,
                    remote_address=address,
                    aliases=[sender or ""],
                )
            )
        except BaseException:
            if known is None:
                slots.free()
            raise
        push = Push(transfer, 2, Codec.NONE, (), has_slot=True, live=True)
        new = self._pushes.register(push)
        if known is None and not new:
            slots.free()  # the same creation, twice at once: one slot is enough
        elif known is not None and new:
            slots.occupy()  # the known one expired meanwhile
        return push if new else self._pushes.find(transfer.id, 2)

    def put(
        self,
        identifier: str,
        ranges: Sequence[tuple[int, int]],
        encoding: Codec,
        xxh3: str | None,
        body: memoryview,
    ) -> None:
        """One bucket: ranges of the area, each an offset and a size, end to end as they were on the wire in ``body``.

        ``xxh3`` is the checksum of the body, if its sender computed one. Raises ``UnknownTransaction``,
        ``BadRequest``, ``BadFile``, ``WrongSize``, ``Corrupted``, ``Conflict``.
        """
        push = self._pushes.find(identifier, 2)
        transfer = push.transfer
        transfer.touch()
        for offset, size in ranges:
            if offset < 0 or size < 0 or offset + size > transfer.size:
                raise BadRequest(
                    f"bytes {offset} to {offset + size} lie beyond the end of push {identifier},"
                    f" which has {transfer.size}"
                )
        self._pushes.refuse_if_over(push)
        self._pushes.in_use(push, received_bytes=len(body))
        if xxh3 is not None and checksum.xxh3([body]) != xxh3.lower():
            raise Corrupted(
                f"the bytes from {ranges[0][0]} on were damaged on the way to push {identifier}: send them again"
            )
        area_ranges = [Range(offset, offset + size) for offset, size in ranges]
        transfer.write(area_ranges, codec.decode(body, encoding, sum(item.size for item in area_ranges)))
        transfer.carried(encoding.value, len(body))

    def take_extras(self, identifier: str, part: ExtrasMessage) -> list[int]:
        """What comes beside DICOM. Returns the indices of the attachments to be sent. Raises what ``put`` does."""
        push = self._pushes.find(identifier, 2)
        self._pushes.in_use(push)
        return push.transfer.extras.take(part)

    def put_attachment(self, identifier: str, index: int, offset: int, body: memoryview) -> None:
        """Bytes of an attachment. Raises what ``put`` does."""
        push = self._pushes.find(identifier, 2)
        self._pushes.in_use(push, received_bytes=len(body))
        push.transfer.extras.write(index, offset, body)

    def status(self, identifier: str, wait: float = 0.0) -> PushStatus:
        """How far it is; while it is being committed, only after its end or after ``wait`` seconds.

        Raises ``UnknownTransaction``.
        """
        transfer = self._pushes.find(identifier, 2).transfer
        transfer.await_commit(wait)
        return _status(transfer)

    def commit(self, identifier: str) -> PushStatus:
        """Begin the commit, once, unless bytes are missing; returns at once.

        Raises ``UnknownTransaction``; ``Conflict`` while instances are still to be announced.
        """
        push = self._pushes.find(identifier, 2)
        self._pushes.in_use(push)
        self._commit_if_complete(push.transfer)
        return _status(push.transfer)

    def _commit_if_complete(self, transfer: IncomingTransfer) -> None:
        if transfer.growing or (not transfer.missing() and transfer.state not in FINISHED):
            transfer.commit_in_background()


def _announced(creation: PushCreationV2, known: IncomingTransfer | None) -> Manifest:
    """All instances announced so far, those of ``known`` that ``creation`` leaves out included."""
    if not creation.before:
        return creation.manifest
    if known is None:
        raise UnknownTransaction("no push of this token is known: announce its instances from the first on")
    earlier = known.manifest.instances[: creation.before]
    if len(earlier) < creation.before:
        raise Conflict(
            f"{len(earlier)} instances of this push were announced, and not {creation.before}:"
            " announce the others first"
        )
    try:
        return Manifest((*earlier, *creation.manifest))
    except ValueError as error:
        raise BadRequest(f'"Instances" names one that was announced before: {error}') from None


def _status(transfer: IncomingTransfer) -> PushStatus:
    transfer.touch()
    state = transfer.state
    outcome = transfer.outcome if state in FINISHED else None
    stored, stored_size = transfer.already_stored
    return PushStatus(
        id=transfer.id,
        path=PATH + transfer.id,
        state=state,
        missing=tuple(transfer.missing()),
        imported=transfer.imported,
        total=transfer.count,
        already_stored=stored,
        already_stored_size=stored_size,
        error=outcome.error if outcome is not None else None,
        report=outcome.summary.counts() if outcome is not None and outcome.summary is not None else None,
    )
