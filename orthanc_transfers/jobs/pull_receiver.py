"""The transfer of a pull at this server's own receiver: how it is opened, and lost to another node of the cluster."""

from __future__ import annotations

from orthanc_transfers.core.errors import Busy, Conflict, TransferError, UnknownTransaction
from orthanc_transfers.core.messages_v2 import Capabilities
from orthanc_transfers.core.model import Beginning, PushState
from orthanc_transfers.jobs.context import RunContext
from orthanc_transfers.receiver.incoming import IncomingTransfer
from orthanc_transfers.receiver.open_request import OpenRequest
from orthanc_transfers.receiver.ownership import Fenced, OwnedElsewhere

KIND = "pull"

_AGAIN = 2.0
"""Seconds between questions whether this node may receive."""
_LOOK = 0.2
_SETTLED = 30.0
"""Seconds after an error within which this node lets go of what another has, if that is what the error came from."""


def is_lost(context: RunContext, error: TransferError) -> bool:
    """Whether another node of the cluster has what was received, as far as ``error`` may mean that.

    Returns once this node has let go of it. Raises ``Canceled``.
    """
    registry, clock = context.services.registry, context.services.clock
    mine, deadline = registry.find(KIND, context.resume.token), clock.monotonic() + _SETTLED
    while mine is not None and registry.find(KIND, context.resume.token) is mine:
        if isinstance(error, Conflict | UnknownTransaction) and not mine.dropped:
            return False
        if not isinstance(error, Fenced) and clock.monotonic() > deadline:
            return False
        context.cancellation.wait(_LOOK)
    context.cancellation.check()
    return True


def open_incoming(
    context: RunContext, listed: Beginning, capabilities: Capabilities | None, *, in_memory: bool
) -> IncomingTransfer:
    """The transfer of that list, once this server may receive it. Raises what ``Registry.open`` does, ``Canceled``."""
    request = OpenRequest(
        token=context.resume.token,
        manifest=listed.manifest,
        kind=KIND,
        # The commit looks; and nothing of what comes with its list was here.
        check_stored=not in_memory,
        in_memory=in_memory,
        more=listed.more,
        patients=listed.patients,
        peer=context.order.peer,
        originator=None if capabilities is None else capabilities.originator,
        aliases=[context.order.sender_transfer_id or ""],
    )
    went_on = True
    while True:
        try:
            return context.services.registry.open(request, context.cancellation)
        except (Busy, OwnedElsewhere) as error:
            # Another node of the cluster ends what it took over, or the cluster's database is away.
            context.status.waiting = str(error)
        except Conflict as error:
            # The peer lists other instances than those whose interrupted import goes on: what is new comes after it.
            known = context.services.registry.find(KIND, context.resume.token)
            goes_on = known is not None and known.state is PushState.COMMITTING
            if not (goes_on or went_on):  # it may have ended since
                raise
            went_on = goes_on
            context.status.waiting = str(error)
        context.cancellation.wait(_AGAIN)
        context.cancellation.check()
        context.status.waiting = None
