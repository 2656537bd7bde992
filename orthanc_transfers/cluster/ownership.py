"""Who receives which transfer, in PostgreSQL: ``receiver.ownership.Ownership`` for a cluster.

Each method is one statement, and none at all for what is known here: what this node owns, and where it was told that
another transfer is. A bucket costs the database nothing.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from orthanc_transfers.cluster import nodes
from orthanc_transfers.cluster.cluster_reports import ClusterReports, compressed, key_of
from orthanc_transfers.cluster.database import FOREVER, PATIENCE, Database
from orthanc_transfers.cluster.leftovers import ClusterLeftovers
from orthanc_transfers.cluster.nodes import Membership
from orthanc_transfers.cluster.owner_cache import Key, OwnerCache
from orthanc_transfers.cluster.takeover import Takeover, packed
from orthanc_transfers.core.errors import Busy, TransferError
from orthanc_transfers.core.model import Manifest, PushState
from orthanc_transfers.receiver.ownership import Adoption, Fenced, Node, Overlap, OwnedElsewhere, TakenOver

log = logging.getLogger(__name__)

# Seconds between two looks whether another node has got on.
_LOOK = 0.25

_RETRY_AFTER = 2.0


class PostgresOwnership:
    """Implements ``Ownership``. ``members`` has joined the cluster already."""

    def __init__(
        self, database: Database, members: Membership, reports: ClusterReports, originator: str
    ) -> None:
        self._database = database
        self._members = members
        self._reports = reports
        self._originator = originator
        self._takeover = Takeover(database, lambda: members.node)
        self._fenced: Callable[[], None] = lambda: None
        self._leftovers = ClusterLeftovers(database, members)
        self._known = OwnerCache()
        self._alive: frozenset[int] = frozenset()
        # Single operations of a set need no lock.
        self._to_forget: set[str] = set()

    @property
    def originator(self) -> str:
        """UUID of the whole cluster."""
        return self._originator

    @property
    def leftovers(self) -> ClusterLeftovers:
        return self._leftovers

    @property
    def losses(self) -> int:
        return self._database.losses

    @property
    def node(self) -> Node:
        """This start of this node; another one after it was fenced."""
        return self._members.node

    def others(self) -> list[Node]:
        """The other nodes that are alive now; none if the database cannot be asked. One statement."""
        try:
            rows = self._database.query(
                "SELECT number, name, address, folder FROM orthanc_transfers.nodes WHERE adopted_by IS NULL"
                " AND NOT released AND expires > clock_timestamp() AND number <> %s ORDER BY name, number",
                (self.node.number,),
                patience=0.0,
            )
        except TransferError as error:
            log.info("the other nodes are not known now: %s", error)
            return []
        return [nodes.node_of(*row) for row in rows]

    def known_others(self) -> Sequence[Node]:
        """The other nodes that were alive a moment ago. Asks nothing."""
        return self._members.others

    def time(self) -> float:
        """Seconds since the epoch, about the same on all nodes whatever their own clocks say. Asks nothing."""
        return self._members.time()

    def on_adoption(self, adopt: Callable[[Sequence[Adoption]], None], fenced: Callable[[], None]) -> None:
        """``adopt`` may raise ``TransferError`` or ``OSError``: then it is called again."""
        self._takeover.on_adoption(adopt)
        self._fenced = fenced

    def start(self) -> None:
        """Take over from nodes that have died, from now on."""
        self._members.start(self)

    def reclaim(self, number: int) -> frozenset[str]:
        """Become the owner of what the start ``number`` of this very server had, which is dead, without waiting for
        the end of its lease; before ``start``.

        With its bytes on its own disk: the identifiers of the transfers that are this node's again, the others have
        been taken over meanwhile. With shared staging: none, for they are adopted like those of any other node.
        """
        return self._takeover.reclaim(number)

    def close(self) -> None:
        """Leave the cluster; once nothing is written any more."""
        self._members.close()
        self._database.close()

    # --- transfers

    def check(self) -> None:
        """Costs nothing while the lease lasts."""
        self._members.check()

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
        """One statement, unless there is something to wait for."""
        full_until = time.monotonic() + patience
        deadline = time.monotonic() + PATIENCE
        while True:
            self.check()
            generation, me = self._known.generation, self.node
            told = None if me.staging else json.dumps(meta)
            ((answer,),) = self._database.query(
                "SELECT orthanc_transfers.claim(%s, %s, %s, %s, %s, %s)",
                (me.number, identifier, kind, token, told, limit),
            )
            if answer == "mine":
                self._known.own(identifier, kind, token, generation)
                return
            if answer == "fenced":
                self._raise_fenced()
            if answer == "full" and time.monotonic() >= full_until:
                raise Busy(
                    f"{limit} pushes are being received by this cluster (MaxPushTransactions), try again later",
                    _RETRY_AFTER,
                )
            if answer == "ending":
                raise Busy("another node of this cluster is ending what it took over", _RETRY_AFTER)
            if answer in ("elsewhere", "known"):
                # Returns if it has gone, or come here, meanwhile.
                self._locate(("", kind, token), deadline)
                known = self._known.identifier(("", kind, token))
                if known is not None:
                    raise TakenOver(known)
            self._takeover.wait(_LOOK)

    def locate(self, *, identifier: str = "", kind: str = "", token: str = "") -> None:
        """One statement for each transfer that is new to this node, and none after that."""
        if self._members.is_fenced:
            raise Fenced
        key = (identifier, "", "") if identifier else ("", kind, token)
        if self._known.identifier(key) is not None:
            return
        other = self._known.elsewhere(key)
        if other is not None:
            raise OwnedElsewhere(other)
        if _storable(*key):
            self._locate(key, time.monotonic() + PATIENCE)

    def doubt(self, node: Node) -> None:
        """Forget where the transfers of that node are."""
        self._known.drop(lambda owner: owner.number == node.number)

    def forget(self, identifier: str) -> None:
        """One statement; done later if the database cannot be reached now."""
        self._known.forget(identifier)
        self._to_forget.add(identifier)
        self._forget_all()

    # --- commits

    def begin_commit(self, identifier: str, manifest: Manifest) -> None:
        """One statement, unless it has to wait for an undo on another node."""
        instances = [one.id for one in manifest]
        while True:
            me = self.node
            plan = None if me.staging else packed(manifest)
            ((answer,),) = self._database.query(
                "SELECT orthanc_transfers.begin_commit(%s, %s, %s::text[], %s)",
                (me.number, identifier, instances, plan),
                patience=FOREVER,
            )
            if answer == "mine":
                return
            if answer == "fenced":
                self._raise_fenced()
            self._takeover.wait(_LOOK)

    def begin_import(self, identifier: str, absent: Collection[int]) -> None:
        """One statement, and none with shared staging."""
        if self.node.staging:
            return
        self._write(
            "UPDATE orthanc_transfers.transfers SET absent = %s::integer[]"
            " WHERE identifier = %s AND owner = %s RETURNING 1",
            (sorted(absent), identifier, self.node.number),
        )

    def overlap(self, identifier: str, instances: Collection[str]) -> Overlap:
        """One statement."""
        kept, left = self._write(
            "SELECT * FROM orthanc_transfers.overlap(%s, %s, %s::text[])",
            (self.node.number, identifier, list(instances)),
        )
        return Overlap(frozenset(kept), frozenset(left))

    def back_to_receiving(self, identifier: str) -> None:
        """One statement."""
        self._write(
            "UPDATE orthanc_transfers.transfers SET state = 'receiving', hashes = NULL, plan = NULL, absent = NULL,"
            " kept = '{}', heritage = '{}' WHERE identifier = %s AND owner = %s RETURNING 1",
            (identifier, self.node.number),
        )

    def end(
        self, identifier: str, outcome: Mapping[str, Any], report: Mapping[str, Any], names: Iterable[str]
    ) -> None:
        """One statement, and one in an hour that deletes what is too old."""
        (done,) = self._write(
            "SELECT orthanc_transfers.finish(%s, %s, %s, %s, %s, %s, %s::uuid[])",
            (
                self.node.number,
                identifier,
                outcome.get("State") == PushState.COMMITTED.value,
                json.dumps(outcome),
                key_of(identifier),
                compressed(report),
                [key_of(name) for name in names],
            ),
        )
        if not done:
            self._raise_fenced()
        self._reports.expire()

    def report(self, name: str) -> dict[str, Any] | None:
        """One statement."""
        return self._reports.read(name)

    # --- what follows from the lease (``nodes.Listener``)

    def alive(self, numbers: frozenset[int]) -> None:
        """Where the transfers of others are is asked for again."""
        if numbers != self._alive:
            self._alive = numbers
            self._known.drop(lambda owner: owner.number not in numbers)

    def dead(self, node: Node) -> None:
        """Take over from it, unless another node does."""
        self._takeover.take(node)

    def lost(self) -> None:
        """This node owns nothing any more."""
        self._known.lose_all()
        self._to_forget.clear()

    def rejoin(self) -> None:
        """The receiver lets go of what it had."""
        self._fenced()

    def tidy(self) -> None:
        """What could not be done before."""
        if self._to_forget:
            self._forget_all()
        if self._takeover.has_rest:
            self._takeover.take_rest()

    # ---

    def _locate(self, key: Key, deadline: float) -> None:
        while True:
            generation, me = self._known.generation, self.node
            rows = self._database.query(
                "SELECT identifier, kind, token, home, owner, n.name, n.address, n.folder,"
                " n.released OR n.adopted_by IS NOT NULL OR n.expires < clock_timestamp()"
                " FROM orthanc_transfers.transfers JOIN orthanc_transfers.nodes n ON n.number = owner"
                " WHERE identifier = %s OR (kind = %s AND token = %s)",
                key,
            )
            if not rows:
                return
            identifier, kind, token, home, owner, name, address, folder, dead = rows[0]
            if owner == me.number:
                # Taken over, perhaps, and not here yet.
                if home == owner:
                    self._known.own(identifier, kind, token, generation)
                    return
            elif not dead:
                node = nodes.node_of(owner, name, address, folder)
                self._known.remember(identifier, kind, token, node)
                raise OwnedElsewhere(node)
            if time.monotonic() > deadline:
                raise Busy(
                    "the transfer is being taken over from a node of this cluster that died", _RETRY_AFTER
                )
            if self._members.is_fenced:
                raise Fenced
            self._takeover.wait(_LOOK)

    def _write(self, statement: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """The row that a statement bound to the owner returns. Raises ``Fenced`` if there is none."""
        rows = self._database.query(statement, values, patience=FOREVER)
        if not rows:
            self._raise_fenced()
        return rows[0]

    def _raise_fenced(self) -> None:
        self._members.renew()  # so that all others here learn it, too
        raise Fenced

    def _forget_all(self) -> None:
        some = list(self._to_forget)
        try:
            self._database.query(
                "DELETE FROM orthanc_transfers.transfers WHERE identifier = ANY (%s) AND owner = %s",
                (some, self.node.number),
                patience=0.0,
            )
        except TransferError as error:
            log.info("transfers are forgotten in the cluster's database later: %s", error)
            return
        self._to_forget.difference_update(some)


def _storable(*texts: str) -> bool:
    """Whether texts that came from the network can be in a table of PostgreSQL: no NUL, no half of a character."""
    return all(text.isprintable() for text in texts)
