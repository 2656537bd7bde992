"""Push counters, for Orthanc's metrics."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass
class PushMetrics:
    """All but ``available`` only grow, from the start of the plugin on. Thread-safe by ``add``."""

    available: int = 0
    """Pushes that could be created now."""
    created: int = 0
    """Pushes created."""
    committed: int = 0
    """Pushes committed."""
    aborted: int = 0
    """Pushes dropped by their sender, expired, or undone."""
    received_bytes: int = 0
    """Bytes of buckets, as they were on the wire."""
    reception_ms: int = 0
    """From the creations of pushes to the beginning of their commits."""
    commit_ms: int = 0
    """From the beginnings of commits to their ends."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(
        self,
        *,
        created: int = 0,
        committed: int = 0,
        aborted: int = 0,
        received_bytes: int = 0,
        reception_ms: int = 0,
        commit_ms: int = 0,
    ) -> None:
        """Increase counters."""
        with self._lock:
            self.created += created
            self.committed += committed
            self.aborted += aborted
            self.received_bytes += received_bytes
            self.reception_ms += reception_ms
            self.commit_ms += commit_ms

    def values(self) -> dict[str, float]:
        """By the names of the C++ plugin's metrics."""
        with self._lock:
            return {
                "orthanc_transfers_available_push_count": self.available,
                "orthanc_transfers_created_push_count": self.created,
                "orthanc_transfers_committed_push_count": self.committed,
                "orthanc_transfers_aborted_push_count": self.aborted,
                "orthanc_transfers_push_total_received_bytes_count": self.received_bytes,
                "orthanc_transfers_push_total_time_spent_in_reception_ms": self.reception_ms,
                "orthanc_transfers_push_total_time_spent_in_commit_ms": self.commit_ms,
            }
