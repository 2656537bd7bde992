"""This node's membership of the cluster: its lease, renewed every 1.5 s, and the nodes that died.

A lease lasts 8 s. For its holder that counts from when the renewal was *sent*, less a second; for the others from when
they saw the last renewal, so that a node stops writing before any other takes its transfers, whatever becomes of the
database's clock. Nobody is dead for a node that could not ask the database in between. Once another has taken its
transfers, a node is fenced: it changes nothing any more, and joins anew under another number.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from orthanc_transfers.cluster.database import FOREVER, PATIENCE, Database
from orthanc_transfers.cluster.namesakes import Namesakes
from orthanc_transfers.core.errors import Canceled, TransferError
from orthanc_transfers.receiver.ownership import Fenced, Node
from orthanc_transfers.runtime.threads import Periodic

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds."""

    lease: float = 8.0
    heartbeat: float = 1.5
    margin: float = 1.0
    """So long before the end of its lease a node stops writing."""

    @property
    def look(self) -> float:
        """Between two looks whether there is something to take over."""
        return self.heartbeat / 4


# Seconds by which the next look at a silent node is later than the end of its lease: clocks are not that exact.
_AFTER = 0.01

# Seconds that the end waits for a takeover to end, which it does at the next transfer.
_SETTLED = 2.0


def boot_time() -> float:
    """Seconds that also go on while the machine is suspended, unlike those of ``time.monotonic``."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def node_of(number: int, name: str, address: str, folder: bool) -> Node:
    """A row of ``nodes``, by these columns. No ``NodeName`` has an underscore: its folder has another name."""
    return Node(number, name, address, f"node_{number}" if folder else "")


class _Other(NamedTuple):
    node: Node
    ends: float
    """Its lease, by the database's clock, as ``expired``."""
    expired: bool
    released: bool


class Listener(Protocol):
    """What follows from a renewal of the lease. All but ``alive`` and ``lost`` may take their time."""

    def alive(self, numbers: frozenset[int]) -> None:
        """These other nodes are alive."""

    def dead(self, node: Node) -> None:
        """That node has died; called again and again until it is adopted."""

    def lost(self) -> None:
        """This node is fenced."""

    def rejoin(self) -> None:
        """It has a new number, and will take part again after this."""

    def tidy(self) -> None:
        """Do what could not be done before; called every second or so."""


class Membership:
    """One node's part in the cluster, over its leases. Thread-safe.

    ``heartbeats`` is a database of one connection, used by nothing else.
    """

    def __init__(
        self,
        heartbeats: Database,
        name: str,
        address: str,
        *,
        shared_staging: bool,
        timing: Timing = Timing(),
        now: Callable[[], float] = boot_time,
    ) -> None:
        self._database = heartbeats
        self._name, self._address, self._folder = name, address, shared_staging
        self._timing = timing
        self._now = now
        self._listener: Listener | None = None
        self._changed = threading.Condition()
        self._node: Node | None = None
        self._valid_until = 0.0
        self._lost = -1
        """Number of the last start of this node that was fenced."""
        self._is_fenced = False
        self._closed = False
        self._confirmed = 0.0
        """When the last renewal was sent."""
        self._ahead = 0.0  # seconds, the database's clock of ``now``
        self._seen: dict[int, tuple[float, float]] = {}
        """Other nodes -> the end of the lease, by the database's clock, and since when it is that, by ours."""
        self._dead: Sequence[Node] = ()
        self._namesakes = Namesakes(name)
        self.others: Sequence[Node] = ()
        """Those that were alive when the lease was renewed last, or this node left."""
        self._heartbeat = Periodic("transfers-heartbeat", self._pause, self._beat)
        self._watch = Periodic("transfers-adopt", lambda: timing.look, self._look)

    @property
    def node(self) -> Node:
        """This start of this node; another one once it was fenced."""
        assert self._node is not None, "join() comes first"
        return self._node

    def time(self) -> float:
        """Seconds since the epoch, about the same on all nodes: by the database's clock. Asks nothing."""
        return self._now() + self._ahead

    @property
    def is_fenced(self) -> bool:
        """Whether this node has lost its transfers, as far as it knows, and does not take part again yet."""
        return self._is_fenced

    def join(self, patience: float = PATIENCE) -> Node:
        """Become a node of the cluster, under a new number. Raises ``Busy``."""
        start = uuid.uuid4()
        sent = self._now()
        ((number, told),) = self._database.query(
            "INSERT INTO orthanc_transfers.nodes (start, name, address, folder, expires)"
            " VALUES (%s, %s, %s, %s, clock_timestamp() + make_interval(secs => %s))"
            " ON CONFLICT (start) DO UPDATE SET expires = excluded.expires"
            " RETURNING number, extract(epoch FROM clock_timestamp())::float8",
            (start, self._name, self._address, self._folder, self._timing.lease),
            patience=patience,
        )
        with self._changed:
            self._node = node_of(number, self._name, self._address, self._folder)
            self._seen.clear()
            self._ahead = told - self._now()
            self._confirm(sent)
        self._heartbeat.start()
        return self.node

    def start(self, listener: Listener) -> None:
        """Look after the other nodes from now on."""
        self._listener = listener
        self._watch.start()

    def check(self) -> None:
        """Return while this node may write; at once, unless the last renewal of its lease is too long ago.

        Then it waits until the database says whether another node has taken over. Raises ``Fenced``; ``Canceled`` once
        this server stops.
        """
        if self._now() < self._valid_until and not self._is_fenced:
            return
        with self._changed:
            self._changed.wait_for(lambda: self._is_fenced or self._closed or self._now() < self._valid_until)
            if self._is_fenced:
                raise Fenced
            if self._closed:
                raise Canceled("this server stops")

    def renew(self) -> None:
        """Renew the lease now, and learn whether this node is fenced."""
        self._beat()

    def close(self) -> None:
        """Leave the cluster: others take at once what this node had. To be called when it writes no more.

        If it is still taking over from another one, which is stuck, they take it when its lease ends.
        """
        self._heartbeat.close()
        self._watch.close()
        with self._changed:
            self._closed = True
            self._valid_until = 0.0
            self._changed.notify_all()
        if not self._watch.ended(_SETTLED):
            log.warning("the lease of this node ends by itself: it is still taking over from another one")
        elif self._node is not None:
            try:
                rows = self._database.query(
                    "WITH gone AS (UPDATE orthanc_transfers.nodes SET released = true, expires = clock_timestamp()"
                    " WHERE number = %s AND adopted_by IS NULL)"
                    " SELECT number, name, address, folder FROM orthanc_transfers.nodes"
                    " WHERE adopted_by IS NULL AND NOT released AND expires > clock_timestamp() AND number <> %s",
                    (self.node.number, self.node.number),
                    patience=0.0,
                )
                self.others = [node_of(*row) for row in rows]
            except TransferError as error:
                log.info("the lease of this node ends by itself: %s", error)
        self._database.close()

    def _confirm(self, sent: float) -> None:
        self._confirmed = max(self._confirmed, sent)
        self._valid_until = max(self._valid_until, sent + self._timing.lease - self._timing.margin)
        self._changed.notify_all()

    def _is_dead(self, row: _Other, sent: float) -> bool:
        # From when an answer was here to when the next question was sent: less than what lies between the two looks,
        # however long the database took.
        known, since = self._seen.get(row.node.number, (None, 0.0))
        if known != row.ends:
            since = self._now()
        self._seen[row.node.number] = (row.ends, since)
        return row.released or (row.expired and sent - since >= self._timing.lease)

    def _pause(self) -> float:
        """Seconds until the next renewal: sooner where that is when it shows that another node has died."""
        now = self._now()
        with self._changed:
            due = [since + self._timing.lease - now for _, since in self._seen.values()]
        soonest = min((one for one in due if one > 0), default=self._timing.heartbeat)
        return min(self._timing.heartbeat, soonest + _AFTER)

    def _beat(self) -> None:
        node, sent = self.node, self._now()
        try:
            rows = self._database.query(
                # A crash of the database may forget it: then the lease only ends sooner.
                "WITH renewed AS (UPDATE orthanc_transfers.nodes"
                " SET expires = clock_timestamp() + make_interval(secs => %s)"
                " WHERE number = %s AND adopted_by IS NULL AND NOT released"
                " AND set_config('synchronous_commit', 'off', true) IS NOT NULL"
                " RETURNING number, name, address, folder)"
                " SELECT number, name, address, folder,"
                " extract(epoch FROM clock_timestamp())::float8, false, false FROM renewed UNION ALL"
                " SELECT number, name, address, folder,"
                " extract(epoch FROM expires)::float8, expires < clock_timestamp(), released"
                " FROM orthanc_transfers.nodes WHERE adopted_by IS NULL AND number <> %s",
                (self._timing.lease, node.number, node.number),
                patience=0.0,
            )
        except TransferError as error:
            log.info("the lease in the cluster's database cannot be renewed now: %s", error)
            with self._changed:
                # The others may be no better off: after an absence of the database, all leases have expired.
                self._seen.clear()
                self._dead = ()
            return
        others = [_Other(node_of(*row[:4]), *row[4:]) for row in rows if row[0] != node.number]
        self._ahead = next((row[4] - self._now() for row in rows if row[0] == node.number), self._ahead)
        with self._changed:
            if self._closed or self._node != node:
                return
            renewed = len(others) < len(rows)
            if renewed:
                if sent - self._confirmed > self._timing.lease:
                    self._seen.clear()  # this node was stopped meanwhile
                self._confirm(sent)
                self._dead = [other.node for other in others if self._is_dead(other, sent)]
                self._namesakes.look((other.node, other.ends) for other in others if not other.released)
                self.others = [other.node for other in others if not (other.expired or other.released)]
                alive = frozenset(other.node.number for other in others if not other.released)
                self._seen = {number: seen for number, seen in self._seen.items() if number in alive}
            elif self._lost == node.number:
                return
            else:
                self._lost = node.number
                self._is_fenced = True
                self._valid_until = 0.0
                self._dead = ()
                self._changed.notify_all()
        if self._listener is None:
            return
        if renewed:
            self._listener.alive(alive)
        else:
            log.warning(
                "this server was silent for longer than its lease: another node has its transfers now"
            )
            self._listener.lost()

    def _look(self) -> None:
        assert self._listener is not None
        if self._is_fenced:
            node = self.join(FOREVER)
            self._listener.rejoin()
            with self._changed:
                self._is_fenced = self._lost == node.number
        self._listener.tidy()
        for node in self._dead:
            self._listener.dead(node)
