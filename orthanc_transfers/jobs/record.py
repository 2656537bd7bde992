"""A transfer job as one row of the ledger of all transfers."""

from __future__ import annotations

from orthanc_transfers.core.messages_v1 import TransferRequest
from orthanc_transfers.core.transfer_record import (
    PULL,
    PUSH,
    RECEIVE,
    SEND,
    TransferRecord,
    TransferState,
    shown_resources,
)
from orthanc_transfers.jobs.content import TransferStatus
from orthanc_transfers.jobs.states import State
from orthanc_transfers.pipeline.progress import Progress

_STATES = {
    State.READY: TransferState.PENDING,
    State.RUNNING: TransferState.RUNNING,
    State.RELEASED: TransferState.PENDING,
    State.SUCCEEDED: TransferState.SUCCESS,
    State.FAILED: TransferState.FAILURE,
    State.CANCELED: TransferState.CANCELED,
}


def record_of(
    identifier: str,
    type_: str,
    order: TransferRequest,
    state: State,
    status: TransferStatus,
    progress: Progress,
    created: float,
) -> TransferRecord:
    """The record of the job ``identifier``. Never blocks."""
    sends = type_ == "PushTransfer"
    shown = _STATES[state]
    if shown is TransferState.RUNNING and status.waiting is not None:
        shown = TransferState.WAITING
    done = shown is TransferState.SUCCESS
    size = status.total_size if status.total_instances is not None else None
    left, importing, seconds = progress.left, status.importing, progress.seconds_left()
    moved = None if size is None or left is None else max(0, size - left)
    settled = status.imported if importing is None else importing.imported
    ratio = progress.ratio
    return TransferRecord(
        id=identifier,
        job=identifier,
        direction=SEND if sends else RECEIVE,
        mode=PUSH if sends else PULL,
        peer=order.peer,
        state=shown,
        phase=status.phase,
        resources=shown_resources(order.resources),
        resources_count=len(order.resources),
        instances=status.total_instances,
        done_instances=status.total_instances if done else settled,
        size=size,
        done_size=size if done else moved,
        wire_size=progress.wire,
        speed=round(progress.speed()) if state is State.RUNNING else None,
        seconds_left=None if seconds is None or state is not State.RUNNING else round(seconds),
        ratio=None if ratio is None else round(ratio, 2),
        codecs=progress.codecs,
        compression=order.compression.value,
        compression_used=None if status.compression is None else status.compression.value,
        waiting=status.waiting,
        waiting_since=status.waiting_since,
        error=status.error,
        peer_failed=status.peer_failed,
        priority=order.priority,
        created=created,
        started=status.began,
        ended=status.ended,
        transaction=status.transaction,
        order={"Type": type_, **order.to_json()},
    )
