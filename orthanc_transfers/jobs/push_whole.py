"""A small push as one request, which announces, carries and commits it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from orthanc_transfers.core.buffers import size_of
from orthanc_transfers.core.codec import Codec, choose, encode, level_for
from orthanc_transfers.core.errors import BodyRefused, PeerStatus
from orthanc_transfers.core.messages_v2 import Capabilities, PushCreationV2, PushStatus
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.jobs.whole_size import largest, usual_size
from orthanc_transfers.pipeline.bucket_size import NEAR_SIZE
from orthanc_transfers.pipeline.executor import BucketExecutor


def fits(context: RunContext, manifest: Manifest, capabilities: Capabilities) -> bool:
    """Whether a push of all these instances to a peer of these capabilities is one request."""
    size = manifest.size
    return (
        capabilities.whole
        # One that was begun before is gone on with.
        and context.resume.path is None
        and 0 < size <= min(NEAR_SIZE, capabilities.max_bucket_target)
        # Only where it matters: it may open a connection.
        and (size <= usual_size(context) or size <= largest(context, capabilities, sends=True))
        and context.body_limit().allows(size)
    )


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
