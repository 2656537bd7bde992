"""A push that this server receives as one row of the ledger: it is no job here."""

from __future__ import annotations

from collections.abc import Iterable

from orthanc_transfers.core.model import PushState
from orthanc_transfers.core.transfer_record import PUSH, RECEIVE, TransferRecord, TransferState
from orthanc_transfers.receiver.incoming import IncomingTransfer
from orthanc_transfers.receiver.states import FINISHED

DROPPED = "its sender dropped it, or did not go on with it for too long (PushIdleTimeout)"
"""Why a push was canceled."""


def push_record(push: IncomingTransfer, ended: float | None = None) -> TransferRecord:
    """The record of a push, which has ``ended`` (seconds since the epoch) or is active. Never blocks."""
    state, error = TransferState.RUNNING, None
    if ended is not None:
        outcome = push.outcome
        if outcome is None:
            state, error = TransferState.CANCELED, DROPPED
        elif outcome.error is not None:
            state, error = TransferState.FAILURE, outcome.error
        else:
            state = TransferState.SUCCESS
    stored, stored_size = push.already_stored
    wire = push.wire_size
    importing = push.state is not PushState.RECEIVING
    moved = push.size if importing else min(push.size, stored_size + push.received_size)
    first = push.first
    return TransferRecord(
        id=push.id,
        direction=RECEIVE,
        mode=PUSH,
        # What it calls its transfer says nothing to people.
        peer=push.sender_name,
        remote_address=push.remote_address,
        state=state,
        phase=_phase(push, state),
        resources=[] if first is None else [{"Level": "Instance", "ID": first}],
        resources_count=1,
        instances=push.count,
        done_instances=push.imported if importing else stored,
        size=push.size,
        done_size=moved,
        wire_size=wire,
        ratio=round(push.received_size / wire, 2) if wire else None,
        codecs=dict(push.codecs),
        error=error,
        created=push.created,
        started=push.created,
        ended=ended,
        transaction=push.id,
    )


def _phase(push: IncomingTransfer, state: TransferState) -> str | None:
    if state is TransferState.SUCCESS:
        return "Done"
    return "Receiving" if push.state is PushState.RECEIVING else "Importing"


def active_pushes(transfers: Iterable[IncomingTransfer]) -> list[IncomingTransfer]:
    """Those that are being received or imported, out of all incoming transfers."""
    return [one for one in transfers if one.kind == PUSH and one.state not in FINISHED and not one.dropped]
