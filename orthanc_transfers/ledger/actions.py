"""What a user may do with a transfer, given its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orthanc_transfers.core.transfer_record import TransferState

PAUSE, RESUME, CANCEL, RESUBMIT, PRIORITY = "pause", "resume", "cancel", "resubmit", "priority"

ACTIONS = (PAUSE, RESUME, CANCEL, RESUBMIT, PRIORITY)

_POSSIBLE = {
    TransferState.PENDING: (PAUSE, CANCEL, PRIORITY),
    TransferState.RUNNING: (PAUSE, CANCEL),
    TransferState.WAITING: (PAUSE, RESUME, CANCEL),
    TransferState.PAUSED: (RESUME, CANCEL, PRIORITY),
    TransferState.SUCCESS: (RESUBMIT,),
    TransferState.FAILURE: (RESUBMIT,),
    TransferState.CANCELED: (RESUBMIT,),
}


def possible_in(state: TransferState) -> tuple[str, ...]:
    """The actions that work on a job in a state."""
    return _POSSIBLE[state]


def possible_actions(shown: Mapping[str, Any]) -> list[str]:
    """The actions that work now on a transfer as it is shown (``shown.py``)."""
    if shown["Job"] is None:
        return []  # only its sender can steer it
    return list(possible_in(TransferState(shown["State"])))
