"""Which server of a cluster receives which transfer: what the receiver asks of the cluster's database.

A transfer has one owner at a time, which holds its bytes, writes its journal and commits it. Any node takes any request
and hands it on to the owner (``cluster/handing_on.py``). An owner that dies, or is stopped for so long that its lease
expires, loses all its transfers to one other node, for good: it is *fenced*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from orthanc_transfers.core.errors import Busy, TransferError


@dataclass(frozen=True, slots=True)
class Node:
    """One start of one server of the cluster."""

    number: int
    """Grows with each start of any node: never used twice."""
    name: str
    """For people."""
    address: str
    """Base URL under which the other nodes reach it, without a slash at its end."""
    staging: str
    """Its folder below the shared ``StagingDirectory``; empty if its bytes are on its own disk."""


class OwnedElsewhere(TransferError):
    """Another node has the transfer: the request is to be handed on to it. Never leaves this cluster."""

    def __init__(self, node: Node) -> None:
        super().__init__(f"node {node.name} of this cluster has the transfer")
        self.node = node


class Fenced(Busy):
    """This node was silent for so long that another one took its transfers over: it must not write any more."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A commit that a node without shared staging had begun, and did not end."""

    identifier: str
    manifest: Sequence[tuple[str, int, str | None]]
    """Identifier, size in bytes and MD5 of each instance."""
    absent: frozenset[int]
    """Indices of those that were not in Orthanc before."""
    meta: Mapping[str, Any]
    """As in ``Area.meta``."""


class Ownership(Protocol):
    """Thread-safe; all methods but ``check`` ask the database. Raises ``Busy`` while it cannot be reached, ``Fenced``."""

    @property
    def originator(self) -> str:
        """UUID of the whole cluster, by which peers recognize it."""

    def claim(self, identifier: str, kind: str, token: str, *, limit: int) -> None:
        """Become the owner of a new transfer, before anything is written of it.

        ``limit``: so many pushes at most are received by all nodes together; 0: as many as there are.
        Raises ``OwnedElsewhere`` if another node has one of that kind and token; ``Busy`` beyond the limit.
        """

    def locate(self, *, identifier: str = "", kind: str = "", token: str = "") -> None:
        """Return if no node, or this one, has the transfer of that identifier, or kind and token.

        Raises ``OwnedElsewhere``; waits for it where the owner is dead and its transfers are being taken over.
        """

    def check(self) -> None:
        """Return while this node may write, by what it knows of its lease; costs nothing then.

        Waits while the database cannot be reached. Raises ``Fenced``.
        """

    def begin_commit(self, commit: Interrupted) -> None:
        """Record what an import begins with, for the node that may have to undo it."""

    def back_to_receiving(self, identifier: str) -> None:
        """An import was undone: the transfer goes on receiving."""

    def end(self, identifier: str, outcome: Mapping[str, Any], report: Mapping[str, Any], names: Iterable[str]) -> None:
        """A transfer has ended: its outcome (``Outcome.to_json``) and commit report, found by any node by ``names``."""

    def forget(self, identifier: str) -> None:
        """A transfer was dropped or has expired."""

    def overlapping_commits(self, identifier: str, instances: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Of ``instances``, those in imports that other nodes have begun and not ended, by the transfer's identifier."""

    def leave(self, identifier: str, instances: Sequence[str]) -> bool:
        """Leave instances that this node imported to a commit of another; false if that has ended meanwhile."""

    def inherited(self, identifier: str) -> Sequence[str]:
        """Instances that other commits left to that one."""
