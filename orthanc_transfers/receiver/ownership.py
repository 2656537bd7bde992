"""Which server of a cluster receives which transfer: what the receiver asks of the cluster's database.

A transfer has one owner at a time, which holds its bytes, writes its journal and commits it. Any node takes any request
and hands it on to the owner (``rest/handing_on.py``). An owner that dies, or is stopped for so long that its lease
expires, loses all its transfers to one other node, for good: it is *fenced*.

Without a cluster this server owns everything: ``single_server.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from orthanc_transfers.core.errors import Busy, TransferError
from orthanc_transfers.core.model import Manifest
from orthanc_transfers.receiver.leftovers import Leftovers


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


class TakenOver(TransferError):
    """This node has a transfer of that kind and token already: it has just taken it over. Never leaves the receiver."""

    def __init__(self, identifier: str) -> None:
        super().__init__(f"transfer {identifier} was taken over from another node of this cluster")
        self.identifier = identifier


class Fenced(Busy):
    """This node was silent for so long that another one took its transfers over: it must not write any more."""

    def __init__(self) -> None:
        super().__init__(
            "this node of the cluster was silent for so long that another one took its transfers over:"
            " repeat the request"
        )


@dataclass(frozen=True, slots=True)
class Inherited:
    """A transfer of a node that kept its bytes on its own disk, as the database knows it."""

    identifier: str
    meta: Mapping[str, Any]
    """As in ``Area.meta``."""
    manifest: Manifest | None = None
    """Of a commit that had begun."""
    absent: frozenset[int] | None = None
    """Indices of the instances that were not in Orthanc before, if the import had begun."""
    outcome: Mapping[str, Any] | None = None
    """``Outcome.to_json``, if it has ended."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """What a node takes over from another one that is gone."""

    node: Node
    inherited: Sequence[Inherited]
    """Empty if the node has shared staging: its folder tells."""
    identifiers: frozenset[str]
    """Of all its transfers."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """What other commits of the cluster mean to one that is undone, by the identifiers of instances."""

    kept: frozenset[str] = field(default_factory=frozenset)
    """Not to be deleted: another commit has succeeded with them, or deletes them if it is undone."""
    left: frozenset[str] = field(default_factory=frozenset)
    """To be deleted too: other commits imported them, and left them to this one."""


class Ownership(Protocol):
    """Thread-safe; all methods but ``check`` ask the database.

    Raises ``Fenced``. While the database cannot be reached, ``claim``, ``locate`` and ``report`` raise ``Busy``; the
    others wait, until ``Canceled`` where the server stops.
    """

    @property
    def originator(self) -> str:
        """UUID of this server, or of the whole cluster, by which peers recognize it."""

    @property
    def leftovers(self) -> Leftovers:
        """What undos could not delete."""

    @property
    def losses(self) -> int:
        """How often the database was not there when it was asked. Asks nothing."""

    def claim(
        self,
        identifier: str,
        kind: str,
        token: str,
        meta: Mapping[str, Any],
        *,
        limit: int,
        patience: float = 0.0,
    ) -> None:
        """Become the owner of a new transfer, before anything is written of it.

        ``limit``: so many pushes at most are received by all nodes together. ``meta`` is kept for ``Inherited``.
        Raises ``OwnedElsewhere`` if another node has one of that kind and token; a pull that has ended there is
        forgotten instead. ``TakenOver`` if this node has it. ``Busy`` beyond the limit, after ``patience`` seconds.
        """

    def locate(self, *, identifier: str = "", kind: str = "", token: str = "") -> None:
        """Return if no node, or this one, has the transfer of that identifier, or kind and token.

        Raises ``OwnedElsewhere``; waits for it where the owner is dead and its transfers are being taken over.
        """

    def doubt(self, node: Node) -> None:
        """A node did not respond, or has not got what it should have: ask again where its transfers are."""

    def check(self) -> None:
        """Return while this node may write, by what it knows of its lease; costs nothing then.

        Waits while the database cannot be reached. Raises ``Fenced``.
        """

    def begin_commit(self, identifier: str, manifest: Manifest) -> None:
        """Record, before it is looked up what Orthanc has, which instances a commit counts on."""

    def begin_import(self, identifier: str, absent: Collection[int]) -> None:
        """Record what an import begins with; nothing to do where a journal on shared storage tells."""

    def overlap(self, identifier: str, instances: Collection[str]) -> Overlap:
        """A commit is undone, and would delete ``instances``: which of them not, and what else."""

    def back_to_receiving(self, identifier: str) -> None:
        """A commit did not come to an end: the transfer goes on receiving."""

    def end(
        self, identifier: str, outcome: Mapping[str, Any], report: Mapping[str, Any], names: Iterable[str]
    ) -> None:
        """A transfer has ended: its outcome (``Outcome.to_json``) and commit report, found by any node by ``names``.

        Waits while the database cannot be reached.
        """

    def forget(self, identifier: str) -> None:
        """A transfer was dropped or has expired. Never raises: what cannot be told now is told later."""

    def report(self, name: str) -> dict[str, Any] | None:
        """The commit report of a transfer that any node has received."""

    def on_adoption(self, adopt: Callable[[Sequence[Adoption]], None], fenced: Callable[[], None]) -> None:
        """Call ``adopt`` with all that this node is taking over, ``fenced`` when it has lost all.

        To be set before ``start``. ``fenced`` is called before this node takes part again, under a new number.
        """
