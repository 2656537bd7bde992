"""What a node imported a moment after another one of the cluster had taken its transfer over.

Whether it may import is asked before each instance, so that is one instance a thread at most: the process was stopped
between the question and the import. If the other node undid the transfer, it is deleted, unless another transfer counts
on it; else it belongs there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from orthanc_transfers.core.errors import Canceled, TransferError
from orthanc_transfers.core.model import PushState
from orthanc_transfers.interfaces import InstanceStore
from orthanc_transfers.receiver.leftovers import Fate
from orthanc_transfers.receiver.ownership import Ownership
from orthanc_transfers.receiver.verdicts import THERE_BEFORE, VERDICT_TEXTS, Verdict
from orthanc_transfers.runtime import threads
from orthanc_transfers.runtime.cancellation import Cancellation

log = logging.getLogger(__name__)

_PERIOD = 1.0
_PATIENCE = 3600
"""Seconds after which an outcome is no longer waited for: longer than any import takes."""


def settle_late_imports(
    transfer: str, late: Sequence[str], ownership: Ownership, store: InstanceStore, ending: Cancellation
) -> None:
    """In the background: once the other node has ended the transfer, delete what was ``late`` if that undid it.

    Not what another transfer counts on, or has succeeded with. ``ending``: this server stops.
    """
    leftovers, name = ownership.leftovers, f"{transfer}-late"

    def delete(identifier: str) -> bool:
        """Whether it is settled."""
        fate = leftovers.begin(name, identifier)
        if fate is Fate.DELETE:
            try:
                log.warning("instance %s, imported too late, is deleted again", identifier)
                leftovers.check()
                store.remove(identifier)
            finally:
                leftovers.end(name, identifier)
        return fate is not Fate.WAIT

    def settle() -> None:
        left, known = list(late), False
        for _ in range(round(_PATIENCE / _PERIOD)):
            try:
                if not known:
                    leftovers.leave(name, left)  # who succeeds with it from now on says so
                    known = True
                report = ownership.report(transfer)
                if report is not None:
                    others = _of_others(report) if report["State"] == PushState.FAILED.value else left
                    left = [one for one in left if one not in others and not delete(one)]
                    if not left:
                        leftovers.forget(name)
                        return
            except TransferError as error:
                log.info("what was imported too late is not settled yet: %s", error)
            ending.wait(_PERIOD)

    def run() -> None:
        with suppress(Canceled):
            settle()

    threads.start("transfers-late-imports", run)


def _of_others(report: Mapping[str, Any]) -> set[str]:
    """Instances that the undo left to other transfers, for it says why, or that were there before."""
    undone = VERDICT_TEXTS[Verdict.UNDONE]
    there = {VERDICT_TEXTS[one] for one in THERE_BEFORE}
    return {
        row["ID"]
        for row in report["Instances"]
        if row["Outcome"] in there or (row["Outcome"] == undone and row.get("Reason"))
    }
