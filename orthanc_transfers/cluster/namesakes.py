"""Notices another server that runs under this node's name: each takes what the other one has for its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from orthanc_transfers.receiver.ownership import Node

log = logging.getLogger(__name__)

_ALIVE = 2
"""Renewals of its lease that are seen of who runs: of one that died, its last may come to the database late."""


class Namesakes:
    """Used by one thread. An earlier start of this node, which has died, renews nothing: it is never taken for one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seen: dict[int, tuple[float, int]] = {}
        """Nodes of this name -> the end of the lease, and how often that was another one."""

    def look(self, leases: Iterable[tuple[Node, float]]) -> None:
        """Say it in the log, once of each. ``leases``: those of the other nodes, and when they end."""
        before, self._seen = self._seen, {}
        for node, ends in leases:
            if node.name != self._name:
                continue
            known, renewals = before.get(node.number, (ends, 0))
            renewals += known != ends
            self._seen[node.number] = (ends, renewals)
            if renewals == _ALIVE and known != ends:
                log.error(
                    "another server of this cluster is called %s too, and runs: node %d, at %s; stop one of the two,"
                    " and give it another NodeName in Cluster of Transfers: they may damage each other's files",
                    *(node.name, node.number, node.address),
                )
