"""The outcome of an incoming transfer: remembered in its journal, and told in a commit report."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.core.commit_report import CommitReport
from orthanc_transfers.core.errors import ImportRefused, TransferError
from orthanc_transfers.core.model import PushState
from orthanc_transfers.core.transfer_record import RECEIVE
from orthanc_transfers.interfaces import Clock
from orthanc_transfers.receiver.area import Area
from orthanc_transfers.receiver.commit import Commit
from orthanc_transfers.receiver.commit_summary import CommitSummary
from orthanc_transfers.receiver.ownership import Ownership
from orthanc_transfers.receiver.reports import Reports

log = logging.getLogger(__name__)

_REPORT = "CommitReport"
"""Key of the outcome, as the log of transfers in memory has it, for the report."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Exactly one of the two is given."""

    summary: CommitSummary | None = None
    """Of a commit that succeeded."""
    error: str | None = None
    """Why it failed, one sentence."""

    @classmethod
    def failure(cls, error: Exception) -> Outcome:
        """That of a commit which raised ``error``."""
        return cls(error=str(error) or type(error).__name__)

    @property
    def state(self) -> PushState:
        """``COMMITTED`` or ``FAILED``."""
        return PushState.COMMITTED if self.summary is not None else PushState.FAILED

    def to_json(self, finished: float) -> dict[str, Any]:
        """As journalled; ``finished`` in seconds since the epoch."""
        content: dict[str, Any] = {"State": self.state.value, "Finished": finished}
        if self.summary is not None:
            content["Report"] = self.summary.to_json()
        if self.error is not None:
            content["Error"] = self.error
        return content

    @classmethod
    def parse(cls, content: dict[str, Any]) -> Outcome:
        """The inverse of ``to_json``. Raises ``KeyError``, ``TypeError``, ``ValueError``."""
        if PushState(content["State"]) is PushState.COMMITTED:
            return cls(summary=CommitSummary.parse(content["Report"]))
        return cls(error=content.get("Error") or "the commit failed")

    def as_future(self) -> Future[CommitSummary]:
        """As a commit that ends so would return it, or raise it."""
        future = Future[CommitSummary]()
        if self.summary is not None:
            future.set_result(self.summary)
        else:
            future.set_exception(ImportRefused(self.error or "the commit failed"))
        return future


def keep_outcome(
    area: Area, commit: Commit, outcome: Outcome, reports: Reports, clock: Clock, ownership: Ownership
) -> None:
    """Journal the outcome and write the report. The commit is over, whatever becomes of these.

    A transfer in memory has the report in its log too, which is fsynced at any rate: the report itself need not be,
    until that log forgets the transfer.

    Raises ``Fenced``: it is over elsewhere.
    """
    content, meta = outcome.to_json(clock.now()), area.meta
    report = CommitReport(
        area.id,
        str(meta["kind"]),
        RECEIVE,
        meta["peer"],
        meta["created"],
        content,
        commit.outcomes(),
        meta.get("sender_name"),
        meta.get("remote_address"),
    ).to_json()
    # The cluster first: what it does not know is not so.
    ownership.end(area.id, content, report, meta["aliases"])
    logged = area.in_memory and outcome.summary is not None and commit.undo_known
    try:
        if commit.undo_known:
            area.journal_outcome({**content, _REPORT: report} if logged else content)
        else:
            area.close()  # the next start undoes what this one does not
    except TransferError as trouble:
        logged = False
        # The next start will roll forward and come to the same end.
        log.warning(
            "the outcome of transfer %s cannot be journalled, its commit is repeated at the next start: %s",
            area.id,
            trouble,
        )
    try:
        reports.write(report, meta["aliases"], synced=not logged)
    except OSError as trouble:
        log.warning("the commit report of transfer %s cannot be written: %s", area.id, trouble)


def restore_report(area: Area, reports: Reports) -> None:
    """After a start: write the report that is in the log with the outcome, if a power failure has left none."""
    report = (area.history.outcome or {}).pop(_REPORT, None)
    try:
        if isinstance(report, dict):
            reports.restore(report, area.meta["aliases"])
    except OSError as trouble:
        log.warning("the commit report of transfer %s cannot be written again: %s", area.id, trouble)


def settle_report(area: Area, reports: Reports) -> None:
    """The log is to forget this transfer: from now on the report alone tells of it."""
    if area.in_memory:
        try:
            reports.sync(area.id)
        except OSError as trouble:
            log.warning("the commit report of transfer %s cannot be synced: %s", area.id, trouble)
