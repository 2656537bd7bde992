"""How many bytes one request may bring that is a whole transfer."""

from __future__ import annotations

from orthanc_transfers.core.codec import Compression
from orthanc_transfers.core.messages_v2 import Capabilities
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.pipeline.bucket_size import MAX_SIZE, NEAR_SIZE, USUAL_SIZE
from orthanc_transfers.pipeline.link import near


def usual_size(context: RunContext) -> int:
    """Bytes with any peer: those of a bucket."""
    return min(context.services.settings.bucket_size, MAX_SIZE)


def largest(context: RunContext, capabilities: Capabilities, *, sends: bool) -> int:
    """Bytes with this peer; if need be, a connection is opened to know how near it is."""
    usual = usual_size(context)
    if context.services.settings.bucket_size < USUAL_SIZE:
        return usual
    if context.services.limited(context.order.peer):
        return usual  # it takes a while, in which people want to see it move, or to pause it
    known, wanted = context.near_peer(sends=sends), context.compression(capabilities)
    # What is encoded is encoded by several threads, bucket by bucket.
    plain = wanted is Compression.NONE or (wanted is Compression.AUTO and not known.encodes)
    return NEAR_SIZE if plain and not known.slow and near(context.round_trip()) else usual
