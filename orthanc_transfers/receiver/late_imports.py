"""What a node imported a moment after another one of the cluster had taken its transfer over.

Whether it may import is asked before each instance, so that is one instance a thread at most: the process was stopped
between the question and the import. If the other node undid the transfer, it is deleted; else it belongs there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from orthanc_transfers.core.errors import Canceled, TransferError
from orthanc_transfers.core.model import PushState
from orthanc_transfers.interfaces import InstanceStore
from orthanc_transfers.receiver.ownership import Ownership
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

    ``ending``: this server stops.
    """

    def settle() -> None:
        for _ in range(round(_PATIENCE / _PERIOD)):
            try:
                report = ownership.report(transfer)
                if report is not None:
                    if report["State"] == PushState.FAILED.value:
                        for identifier in late:
                            log.warning("instance %s, imported too late, is deleted again", identifier)
                            store.remove(identifier)
                    return
            except TransferError as error:
                log.info("what was imported too late is not settled yet: %s", error)
            ending.wait(_PERIOD)

    def run() -> None:
        with suppress(Canceled):
            settle()

    threads.start("transfers-late-imports", run)
