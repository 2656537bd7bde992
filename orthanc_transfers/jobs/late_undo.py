"""What a receiver could not delete at once when a push failed, and has deleted since: asked for when somebody looks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from orthanc_transfers.core import paths
from orthanc_transfers.core.errors import ConfigurationError, TransferError
from orthanc_transfers.core.safe_json import parse_json
from orthanc_transfers.core.transfer_record import PUSH, SEND
from orthanc_transfers.interfaces import PeerRequest
from orthanc_transfers.jobs.push_report import limit_of, rows_of
from orthanc_transfers.jobs.services import Services
from orthanc_transfers.receiver.unfinished_undo import retold, tells_of_rest
from orthanc_transfers.receiver.verdicts import VERDICT_TEXTS, Verdict

log = logging.getLogger(__name__)

_LEFT = VERDICT_TEXTS[Verdict.LEFT]

# Characters of the sentence of a peer.
_LONGEST_ERROR = 4000


class LateUndos:
    """The sender's reports of its pushes. ``corrected`` is called with the identifier of one, and its error now."""

    def __init__(self, services: Services, corrected: Callable[[str, str], None]) -> None:
        self._services = services
        self._corrected = corrected

    def refreshed(self, report: dict[str, Any]) -> dict[str, Any]:
        """A report, after its receiver was asked if it says that something is still there. Never raises."""
        rows = report.get("Instances")
        if (report.get("Kind"), report.get("Direction")) != (PUSH, SEND) or not isinstance(rows, list):
            return report
        error = report.get("Error")
        if error is None or not (any(row.get("Outcome") == _LEFT for row in rows) or tells_of_rest(error)):
            return report
        try:
            told = self._ask(str(report["Peer"]), report["ID"], len(rows))
        except (TransferError, ConfigurationError) as error:
            log.info("peer %s does not say what became of push %s: %s", report["Peer"], report["ID"], error)
            return report
        return self._corrected_by(told, report)

    def _ask(self, peer: str, identifier: str, count: int) -> Any:
        transport = self._services.peers.connect(peer, 1)
        try:
            timeout = self._services.settings.peer_connectivity_timeout
            request = PeerRequest("GET", paths.report(identifier), timeout=timeout, limit=limit_of(count))
            return parse_json(transport.send(request).body)
        finally:
            transport.close()

    def _corrected_by(self, told: Any, report: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(told, dict) or not isinstance(told.get("Error"), str):
            return report
        now = rows_of(told.get("Instances"))
        rows = []
        for row in report["Instances"]:
            outcome, reason = now.get(row["ID"], (row["Outcome"], row.get("Reason")))
            row = {**row, "Outcome": outcome, "Reason": reason}
            rows.append({key: value for key, value in row.items() if value is not None})
        error = retold(report["Error"], told["Error"][:_LONGEST_ERROR])
        fresh = {**report, "Error": error, "Instances": rows}
        if fresh != report:
            try:
                self._services.reports.correct(fresh)
            except OSError as trouble:
                log.warning("the report of push %s cannot be written: %s", report["ID"], trouble)
            self._corrected(report["ID"], error)
        return fresh
