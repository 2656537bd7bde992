"""The states of an incoming transfer, and which may follow which.

receiving ──▶ committing ──▶ committed
    ▲             │    └───▶ failed       (everything undone)
    └─────────────┘
     bytes are missing after all, or the commit was canceled (everything undone)
"""

from __future__ import annotations

from orthanc_transfers.core.model import PushState

TRANSITIONS = {
    PushState.RECEIVING: {PushState.COMMITTING},
    PushState.COMMITTING: {PushState.RECEIVING, PushState.COMMITTED, PushState.FAILED},
    PushState.COMMITTED: set[PushState](),
    PushState.FAILED: set[PushState](),
}
"""Which state may follow which."""

FINISHED = (PushState.COMMITTED, PushState.FAILED)
"""From here, none follows."""
