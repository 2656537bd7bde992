"""Ended transfers as their commit reports tell of them: less than the ledger knew, but not nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orthanc_transfers.core.model import PushState
from orthanc_transfers.core.transfer_record import PULL, PUSH, RECEIVE, SEND, TransferRecord, TransferState
from orthanc_transfers.ledger.past_transfers import PastTransfer
from orthanc_transfers.ledger.shown import record_to_json, text_to_json


def from_report(report: Mapping[str, Any]) -> PastTransfer | None:
    """The row of a report (``core/commit_report.py``), which does not name the job; ``None`` if it is not valid."""
    try:
        mode = PULL if report["Kind"] == PULL else PUSH
        # Reports of earlier releases name no direction.
        direction = report.get("Direction") or (RECEIVE if mode == PULL else SEND)
        done = report["State"] == PushState.COMMITTED.value
        rows, size = report["Instances"], int(report["TotalSize"])
        record = TransferRecord(
            id=str(report["ID"]),
            direction=RECEIVE if direction == RECEIVE else SEND,
            mode=mode,
            peer=_text(report, "SenderName" if (mode, direction) == (PUSH, RECEIVE) else "Peer"),
            remote_address=_text(report, "RemoteAddress"),
            state=TransferState.SUCCESS if done else TransferState.FAILURE,
            phase="Done" if done else None,
            resources=[{"Level": "Instance", "ID": str(rows[0]["ID"])}] if rows else [],
            resources_count=min(1, len(rows)),
            instances=len(rows),
            done_instances=len(rows) if done else None,
            size=size,
            done_size=size if done else None,
            error=None if report.get("Error") is None else str(report["Error"]),
            created=float(report["Created"]),
            ended=float(report["Finished"]),
            transaction=str(report["ID"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
    shown = {**record_to_json(record), **text_to_json(None), "Report": True}
    return PastTransfer(record.id, float(report["Finished"]), shown, record.transaction)


def _text(report: Mapping[str, Any], key: str) -> str | None:
    return None if report.get(key) is None else str(report[key])
