"""The report that a sender keeps of its own push: what the receiver did with each instance, in its own words."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from orthanc_transfers.core.commit_report import CommitReport, InstanceOutcome
from orthanc_transfers.core.errors import TransferError
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.core.transfer_record import PUSH, SEND
from orthanc_transfers.jobs.context import RunContext

log = logging.getLogger(__name__)

# Bytes of a row of a report, with a reason of some length; and of all that is around the rows.
_ROW = 2048
_FRAME = 64 * 1024
_LONGEST_REASON = 500


def keep_report(
    context: RunContext,
    manifest: Manifest,
    identifier: str,
    outcome: Mapping[str, Any],
    *,
    began: float,
    ask: bool,
    told: Sequence[Any] | None = None,
) -> None:
    """Write the report of a push that has ended on the receiver, which knows it as ``identifier``.

    ``outcome`` are the keys that say how it ended, ``State`` among them. ``began``: when it did, in seconds since the
    epoch. ``ask``: the receiver has a report of its own, and is asked for it, unless it has ``told`` what became of
    each instance. Never raises: the transfer is over, whatever becomes of its report.
    """
    services = context.services
    if services.reports.read(identifier) is not None:
        return  # the receiver is this very server
    if told is None and ask:
        told = _ask(context, identifier, len(manifest)).get("Instances")
    rows = rows_of(told)
    # Version 1 tells no more than that it has them all.
    untold = "accepted" if outcome["State"] == "committed" else "not imported"
    report = CommitReport(
        id=identifier,
        kind=PUSH,
        direction=SEND,
        peer=context.order.peer,
        created=began,
        ending={**outcome, **_untold(context), "Finished": services.clock.now()},
        instances=[
            InstanceOutcome(one, *rows.get(one.id, (untold, None)), context.status.originals.get(one.id))
            for one in manifest
        ],
    )
    try:
        # The job need not wait for the disk: the receiver has the same report, and has synced it.
        services.reports.write(
            report.to_json(), [context.order.sender_transfer_id or identifier], synced=False
        )
        services.reports.sync_soon(identifier)
    except OSError as error:
        log.warning("the report of push %s cannot be written: %s", identifier, error)


def _untold(context: RunContext) -> dict[str, Any]:
    """What travelled beside DICOM, as the job shows it."""
    status = context.status
    return {"NotTransferred": list(status.not_transferred)} if status.not_transferred else {}


def _ask(context: RunContext, identifier: str, count: int) -> dict[str, Any]:
    try:
        report = context.peer.report(identifier, limit=limit_of(count))
    except TransferError as error:
        log.info("peer %s does not show its report of push %s: %s", context.order.peer, identifier, error)
        return {}
    return report if isinstance(report, dict) else {}


def limit_of(count: int) -> int:
    """Bytes of a report of so many instances, at most."""
    return _FRAME + _ROW * count


def rows_of(rows: Any) -> dict[str, tuple[str, str | None]]:
    """Outcome and reason of each instance as the receiver says: in the words of the peer, cut at some length."""
    told: dict[str, tuple[str, str | None]] = {}
    for row in rows if isinstance(rows, (list, tuple)) else ():
        if isinstance(row, dict) and isinstance(row.get("ID"), str) and isinstance(row.get("Outcome"), str):
            reason = row.get("Reason")
            told[row["ID"]] = (
                row["Outcome"][:_LONGEST_REASON],
                reason[:_LONGEST_REASON] if isinstance(reason, str) else None,
            )
    return told
