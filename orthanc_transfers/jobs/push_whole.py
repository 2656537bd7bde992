"""A small push as one request, which announces, carries and commits it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from orthanc_transfers.core.buffers import size_of
from orthanc_transfers.core.codec import Codec, Compression, choose, encode, level_for
from orthanc_transfers.core.errors import BodyRefused, PeerStatus
from orthanc_transfers.core.messages_v2 import Capabilities, PushCreationV2, PushStatus
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.pipeline.bucket_size import MAX_SIZE
from orthanc_transfers.pipeline.executor import BucketExecutor
from orthanc_transfers.pipeline.link import near

NEAR_SIZE = 32 * 1024 * 1024
"""Bytes of a push that is one request to a near peer: a radiograph or two, which have no need of an area on disk."""

_USUAL_BUCKET = 4 * 1024 * 1024
"""A ``BucketSize`` below says that requests are to be small, near peers or not."""


def fits(context: RunContext, manifest: Manifest, capabilities: Capabilities) -> bool:
    """Whether a push of all these instances to a peer of these capabilities is one request."""
    return (
        capabilities.whole
        # One that was begun before is gone on with.
        and context.resume.path is None
        and 0
        < manifest.size
        <= min(_largest(context, manifest.size, capabilities), capabilities.max_bucket_target)
        and context.body_limit().allows(manifest.size)
    )


def _largest(context: RunContext, size: int, capabilities: Capabilities) -> int:
    usual = context.services.settings.bucket_size
    if usual < _USUAL_BUCKET or not usual < size <= NEAR_SIZE:
        return min(usual, MAX_SIZE)
    if context.services.limited(context.order.peer):
        return min(usual, MAX_SIZE)  # it takes a while, in which people want to see it move, or to pause it
    known, wanted = context.near_peer(sends=True), context.compression(capabilities)
    # What is encoded is encoded by several threads, bucket by bucket.
    plain = wanted is Compression.NONE or (wanted is Compression.AUTO and not known.encodes)
    fast = plain and not known.slow and near(context.round_trip())
    return NEAR_SIZE if fast else min(usual, MAX_SIZE)


@dataclass(frozen=True, slots=True)
class WholePush:
    """Sends to a peer of these ``capabilities``. ``patients``: their identifiers, if the peer wants to know."""

    context: RunContext
    capabilities: Capabilities
    executor: BucketExecutor
    patients: Collection[str] | None

    def send(self, manifest: Manifest) -> tuple[PushStatus, str | None] | None:
        """Send all of it. Returns the push, and the cookie that it begins with; ``None`` if it has to go in parts.

        Sent again with the same token, it acts once. Raises what ``PeerClient.push_whole`` does.
        """
        context, size = self.context, manifest.size
        codecs = frozenset(self.capabilities.codecs)
        context.status.phase = "Sending"
        pieces = context.services.reader.read(manifest.chunks(manifest.area), manifest)
        context.round_trip()
        codec = choose(self.executor.compression.settled(), pieces, codecs)
        body = encode(pieces, codec, level_for(context.progress.speed()))
        del pieces
        patients = None if self.patients is None else frozenset(self.patients)
        creation = PushCreationV2(
            context.resume.token,
            manifest,
            patients=patients,
            sender_name=context.services.name,
            originator=context.services.originator,
        )
        context.progress.plan(lambda: 1, 0, size)
        context.progress.start()
        try:
            found = context.peer.push_whole(creation, body, codec, compress=Codec.ZSTD in codecs)
            context.progress.bucket_done(size, size_of(body), codec)
        except BodyRefused as error:
            context.body_limit().refused(error)
            return None
        except PeerStatus as error:
            if error.peer_status != 404:
                raise
            # It is not what it was when its capabilities were asked for.
            context.services.capabilities.forget(context.peer.name)
            return None
        finally:
            context.progress.stop()
        return found
