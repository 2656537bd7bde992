"""Drops incoming transfers that nobody goes on with."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from contextlib import suppress

from orthanc_transfers.core.errors import Conflict
from orthanc_transfers.core.model import PushState
from orthanc_transfers.receiver.incoming import IncomingTransfer
from orthanc_transfers.receiver.states import FINISHED

log = logging.getLogger(__name__)

PAUSED_PULL = 7 * 86400.0
"""Seconds that an unfinished pull is kept: its job may be paused, over the weekend say."""

REMEMBERED = 10_000
"""Outcomes that are remembered, some 5 KB each. A sender that asks for an older one begins anew, and finds all of it
stored."""


def drop_idle(transfers: Iterable[IncomingTransfer], timeout: float, now: float) -> None:
    """Drop those that were idle for ``timeout`` seconds; never one that is being committed. ``now``: monotonic."""
    for transfer in transfers:
        idle = timeout
        if transfer.kind == "pull" and transfer.state is PushState.RECEIVING:
            # Its job may be paused; what it has must not be fetched again.
            idle = max(idle, PAUSED_PULL)
        if transfer.state is not PushState.COMMITTING and now - transfer.last_used > idle:
            log.info("transfer %s expired: it was idle for %d s", transfer.id, idle)
            with suppress(Conflict):
                transfer.discard()


def drop_oldest_outcomes(transfers: Iterable[IncomingTransfer]) -> None:
    """Forget the outcomes that were asked for least lately, beyond ``REMEMBERED``."""
    ended = [transfer for transfer in transfers if transfer.state in FINISHED]
    if len(ended) > REMEMBERED:
        ended.sort(key=lambda transfer: transfer.last_used)
        for transfer in ended[:-REMEMBERED]:
            transfer.discard()


def drop_lost_pulls(transfers: Iterable[IncomingTransfer], tokens: Collection[str]) -> None:
    """Drop the unfinished pulls except those of ``tokens``, whose jobs Orthanc has reloaded."""
    for transfer in transfers:
        if transfer.kind == "pull" and transfer.state is PushState.RECEIVING and transfer.token not in tokens:
            log.warning("pull %s is dropped with what it had received: its job was not saved", transfer.id)
            with suppress(Conflict):
                transfer.discard()
