"""Fetches what travels beside DICOM with a pull, before its commit."""

from __future__ import annotations

from dataclasses import replace

from orthanc_transfers.core.extras import check_sizes, counts
from orthanc_transfers.core.messages_v2 import Capabilities
from orthanc_transfers.core.model import PushState
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.jobs.extras import as_received, kinds, receiver_takes, say
from orthanc_transfers.receiver.incoming import IncomingTransfer

_PIECE = 16 * 1024 * 1024


def fetch_extras(context: RunContext, capabilities: Capabilities, incoming: IncomingTransfer) -> None:
    """Fetch all that this server takes. Raises ``PeerError``, ``TooLarge``, ``NoSpace``."""
    wanted = kinds(context, capabilities, sends=False)
    if not wanted or incoming.state is not PushState.RECEIVING:
        return  # an earlier process began the commit, and has them
    listed = context.peer.list_extras(context.order.resources_json, wanted)
    say(context, listed.notes)
    taken = receiver_takes(context, capabilities, sends=False)
    items = tuple(one for one in listed.message.items if one.kind in wanted and taken.takes(one))
    check_sizes(items)
    context.status.extras = counts(items) or None
    if not items:
        return
    message = replace(
        listed.message,
        items=as_received(context, items),
        sender=context.order.peer,
        overwrite=context.order.extras.overwrite,
        before=0,
        more=False,
    )
    for index in incoming.extras.take(message):
        extra, offset = items[index], 0
        while True:
            size = min(_PIECE, extra.size - offset)
            piece = context.peer.fetch_attachment(extra, offset, size) if size else memoryview(b"")
            incoming.extras.write(index, offset, piece)
            offset += size
            if offset >= extra.size:
                break
