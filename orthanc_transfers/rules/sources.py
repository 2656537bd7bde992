"""Where instances came from that this server received lately, by its own records: so that none is sent back.

Transfers are remembered by their ends; which instances they had is read from their reports, when that is asked.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque

from orthanc_transfers.core.transfer_record import PUSH
from orthanc_transfers.receiver.incoming import IncomingTransfer
from orthanc_transfers.receiver.reports import Reports

MAX_TRANSFERS = 10_000
"""Received ones whose reports were not read yet."""

MAX_INSTANCES = 100_000
"""Each takes some 200 bytes."""

Known = frozenset[str]
"""What a source is known by: the name that it gives itself, or that of the peer here; and its process, if it told."""


class Sources:
    """Thread-safe."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._lock = threading.Lock()
        self._unread: deque[tuple[str, Known]] = deque(maxlen=MAX_TRANSFERS)
        self._known: OrderedDict[str, Known] = OrderedDict()

    def received(self, transfer: IncomingTransfer) -> None:
        """A transfer has ended. Never blocks."""
        outcome = transfer.outcome
        name = transfer.sender_name if transfer.kind == PUSH else transfer.peer
        known = frozenset(one for one in (name, transfer.originator) if one is not None)
        if outcome is not None and outcome.error is None and known:
            self._unread.append((transfer.id, known))

    def of(self, instance: str) -> Known:
        """What is known of the Orthanc that sent an instance here, or that it was fetched from; empty if nothing is."""
        with self._lock:
            while self._unread:
                identifier, known = self._unread.popleft()
                report = self._reports.read(identifier) or {}
                for row in report.get("Instances", ()):
                    self._known[row["ID"]] = known
                    self._known.move_to_end(row["ID"])
                while len(self._known) > MAX_INSTANCES:
                    self._known.popitem(last=False)
            return self._known.get(instance, frozenset())
