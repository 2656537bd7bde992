"""Which process of Orthanc is behind a peer: the same Orthanc may have several names, and names be given twice."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable

from orthanc_transfers.core.errors import ConfigurationError, TransferError
from orthanc_transfers.interfaces import Clock, Peers
from orthanc_transfers.net.capabilities import CapabilitiesCache

_PATIENCE = 60.0
"""Seconds until a peer that did not say is asked again: the queue waits for its answer."""


class PeerProcesses:
    """Asks peers for their capabilities, unless these are known. Thread-safe."""

    def __init__(self, peers: Peers, capabilities: CapabilitiesCache, clock: Clock) -> None:
        self._peers = peers
        self._capabilities = capabilities
        self._clock = clock
        self._lock = threading.Lock()
        self._silent: dict[str, float] = {}
        """By name, until when a peer is not asked."""

    def of(self, names: Iterable[str]) -> frozenset[str]:
        """Those of the peers of these names that are known here and say so."""
        found = {self._one(name) for name in set(self._peers.names()).intersection(names)}
        return frozenset(one for one in found if one is not None)

    def _one(self, name: str) -> str | None:
        now = self._clock.monotonic()
        with self._lock:
            if self._silent.get(name, now) > now:
                return None
        with contextlib.suppress(TransferError, ConfigurationError):
            transport = self._peers.connect(name, 1)
            try:
                found = self._capabilities.capabilities(transport)
                return None if found is None else found.originator
            finally:
                transport.close()
        with self._lock:
            self._silent[name] = self._clock.monotonic() + _PATIENCE
        return None
