"""A pull of what the peer transcodes on the way: what it makes of the instances that it has listed."""

from __future__ import annotations

from collections.abc import Iterator

from orthanc_transfers.core.errors import PeerError, PeerInvalidResponse
from orthanc_transfers.core.messages_transcoding import MAX_ASKED, TranscodedRequest
from orthanc_transfers.core.messages_v2 import Capabilities
from orthanc_transfers.core.model import Beginning, Instance, Manifest
from orthanc_transfers.jobs.context import RunContext


def check_transcodes(context: RunContext, capabilities: Capabilities | None) -> None:
    """Raise ``PeerError`` if the order wants what this peer does not do."""
    if context.order.transcode is None or (capabilities is not None and capabilities.transcodes):
        return
    peer = context.peer.name
    what = (
        "speaks version 1 of the protocol" if capabilities is None else "has an earlier release of the plugin"
    )
    raise PeerError(
        f"peer {peer} cannot transcode what is fetched from it, for it {what}: leave out Transcode, or push from there",
        peer,
    )


def as_transcoded(context: RunContext, listed: Beginning) -> Beginning:
    """The list as it will be fetched: the same, unless the order wants it transcoded. Raises ``PeerError``."""
    if context.order.transcode is None:
        return listed
    manifest = Manifest(_made(context, context.order.transcode, [one.id for one in listed.manifest]))
    return Beginning(manifest, listed.more, listed.patients)


def _made(context: RunContext, transcode: str, identifiers: list[str]) -> Iterator[Instance]:
    status, peer = context.status, context.peer.name
    status.transcoded = status.untranscoded = 0
    status.originals.clear()
    done = 0
    while done < len(identifiers):
        context.cancellation.check()
        asked = tuple(identifiers[done : done + MAX_ASKED])
        found = context.peer.transcoded(TranscodedRequest(transcode, asked))
        if not found.originals or found.originals != asked[: len(found.originals)]:
            raise PeerInvalidResponse(f"peer {peer} transcoded other instances than it was asked for", peer)
        for instance, original in zip(found.instances, found.originals, strict=True):
            if instance.id != original:
                status.originals[instance.id] = original
            yield instance
        status.transcoded += found.transcoded
        status.untranscoded += found.untranscoded
        done += len(asked[: len(found.originals)])
