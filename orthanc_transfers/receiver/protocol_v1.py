"""Receives pushes of protocol version 1: create, one PUT for each planned bucket, commit in the request."""

from __future__ import annotations

import uuid

from orthanc_transfers.core import codec
from orthanc_transfers.core.codec import Codec
from orthanc_transfers.core.errors import BadRequest, Busy, TooLarge, UnknownResource
from orthanc_transfers.core.messages_v1 import PushCreationV1
from orthanc_transfers.core.model import Chunk, Manifest, PushState
from orthanc_transfers.core.ranges import Range, cut
from orthanc_transfers.receiver.open_request import OpenRequest
from orthanc_transfers.receiver.pushes import Push, PushService

# A sender of version 1 gives up after its PeerCommitTimeout, which we take to be ours.
_HOLD_SHARE = 0.8
_MAX_HOLD = 480.0

# Bytes of a bucket, whose chunks have offsets and sizes of 31 bits on C++ peers.
_MAX_BUCKET = 2**31 - 1


class PushV1:
    """The requests of version 1. Thread-safe."""

    def __init__(self, pushes: PushService) -> None:
        self._pushes = pushes

    def create(self, creation: PushCreationV1, sender: str | None = None, address: str | None = None) -> str:
        """A new push; returns its identifier. Waits for a slot if none is free.

        ``sender`` is the transfer's identifier, as its sender says; ``address``, where that is, if known.
        Raises ``ReadOnly``, ``TooLarge``, ``NoSpace``, ``Busy``.
        """
        # Before it waits for a slot.
        self._pushes.registry.check_writable()
        self._pushes.registry.check_count(len(creation.manifest))
        self._pushes.slots.take(self._patience())
        buckets = [[[chunk.id, chunk.offset, chunk.size] for chunk in bucket] for bucket in creation.buckets]
        try:
            transfer = self._pushes.registry.open(
                OpenRequest(
                    token=uuid.uuid4().hex,
                    manifest=creation.manifest,
                    kind="push",
                    check_stored=False,
                    resumable=False,
                    meta={"version": 1, "codec": creation.compression.value, "buckets": buckets},
                    peer=sender,
                    remote_address=address,
                    aliases=[sender or ""],
                    patience=self._patience(),
                )
            )
        except BaseException:
            self._pushes.slots.free()
            raise
        self._pushes.register(
            Push(transfer, 1, Codec(creation.compression.value), creation.buckets, has_slot=True, live=True)
        )
        return transfer.id

    def _patience(self) -> float:
        # 0 stands for Orthanc's own HttpTimeout, which is 60 seconds unless configured.
        return min((self._pushes.settings.peer_commit_timeout or 60) * _HOLD_SHARE, _MAX_HOLD)

    def put(self, identifier: str, index: int, body: memoryview) -> None:
        """One bucket, as it was on the wire.

        Raises ``UnknownTransaction``, ``UnknownResource``, ``BadRequest``, ``BadFile``, ``WrongSize``,
        ``Conflict``.
        """
        push = self._pushes.find(identifier, 1)
        transfer = push.transfer
        transfer.touch()
        # Both are empty once it is over.
        buckets, manifest = push.buckets, transfer.manifest
        self._pushes.refuse_if_over(push)
        if not 0 <= index < len(buckets):
            raise BadRequest(f"push {identifier} has {len(buckets)} buckets, none has index {index}")
        ranges = [_range(manifest, chunk) for chunk in buckets[index]]
        size = sum(item.size for item in ranges)
        if size > _MAX_BUCKET:
            raise TooLarge(
                f"bucket {index} of push {identifier} has {size} bytes, more than the limit of {_MAX_BUCKET}"
            )
        self._pushes.in_use(push, received_bytes=len(body))
        if push.codec is Codec.GZIP and size > codec.MAX_PART_SIZE:
            # A few bytes may announce gigabytes: never more of them in memory than a part. All is looked at
            # before the first byte is trusted, for what is damaged can be sent again.
            codec.check_gzip(body, size)
            rest = ranges
            for part in codec.gunzip_parts(body, codec.MAX_PART_SIZE):
                here, rest = cut(rest, part.nbytes)
                transfer.write(here, part)
        else:
            transfer.write(ranges, codec.decode(body, push.codec, size))
        transfer.carried(push.codec.value, len(body))

    def commit(self, identifier: str, patience: float | None = None) -> bool:
        """Verify and import; returns when done. A repeated request gets the same outcome.

        After ``patience`` seconds, ``False``: it goes on meanwhile.
        Raises ``UnknownTransaction``; ``Corrupted``, naming an instance: the push stays, and buckets may be
        sent again; ``ImportRefused``: nothing was kept; ``Busy`` if the server is about to stop.
        """
        push = self._pushes.find(identifier, 1)
        if self._pushes.ending and push.transfer.state is PushState.RECEIVING:
            raise Busy("this server stops, no commit begins any more: repeat the request")
        self._pushes.in_use(push)
        if patience is not None:
            return push.transfer.commit_within(patience) is not None
        push.transfer.commit()
        return True


def _range(manifest: Manifest, chunk: Chunk) -> Range:
    try:
        return manifest.range_of_chunk(chunk)
    except KeyError:
        raise UnknownResource(f"a bucket names instance {chunk.id}, which is not in the push") from None
    except ValueError as error:
        raise BadRequest(str(error)) from None
