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


class Sources:
    """Thread-safe."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._lock = threading.Lock()
        self._unread: deque[tuple[str, str]] = deque(maxlen=MAX_TRANSFERS)
        self._names: OrderedDict[str, str] = OrderedDict()

    def received(self, transfer: IncomingTransfer) -> None:
        """A transfer has ended. Never blocks."""
        outcome = transfer.outcome
        name = transfer.sender_name if transfer.kind == PUSH else transfer.peer
        if outcome is not None and outcome.error is None and name is not None:
            self._unread.append((transfer.id, name))

    def of(self, instance: str) -> str | None:
        """The ``Name`` of the Orthanc that sent an instance here, or the peer that it was fetched from."""
        with self._lock:
            while self._unread:
                identifier, name = self._unread.popleft()
                report = self._reports.read(identifier) or {}
                for row in report.get("Instances", ()):
                    self._names[row["ID"]] = name
                    self._names.move_to_end(row["ID"])
                while len(self._names) > MAX_INSTANCES:
                    self._names.popitem(last=False)
            return self._names.get(instance)
