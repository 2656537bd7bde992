"""Takes over, in the database, what dead nodes had; and hands it to the receiver until that is through with it."""

from __future__ import annotations

import json
import logging
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from orthanc_transfers.cluster.database import FOREVER, Database
from orthanc_transfers.cluster.nodes import node_of
from orthanc_transfers.core.model import Instance, Manifest
from orthanc_transfers.receiver.ownership import Adoption, Inherited, Node

log = logging.getLogger(__name__)


class Takeover:
    """Thread-safe. ``adopt`` may raise: then it is called again."""

    def __init__(self, database: Database, me: Callable[[], Node]) -> None:
        self._database = database
        self._me = me
        self._adopt: Callable[[Sequence[Adoption]], None] = lambda adoptions: None
        self._changed = threading.Condition()
        self._waiting = 0

    def on_adoption(self, adopt: Callable[[Sequence[Adoption]], None]) -> None:
        """Call ``adopt`` with all that this node is taking over at that moment."""
        self._adopt = adopt

    def take(self, dead: Node) -> None:
        """Become the owner of all that a dead node had, and had not yet taken in itself, unless another node does.

        May raise what ``adopt`` does; the rest is taken in by ``take_rest``.
        """
        if self._take(dead.number, surely=False):
            self.take_rest()

    def reclaim(self, number: int) -> frozenset[str]:
        """See ``PostgresOwnership.reclaim``."""
        me = self._me()
        if not self._take(number, surely=True):
            return frozenset()
        if me.staging:
            self._waiting += 1
            return frozenset()
        self._arrived(me, number)
        rows = self._database.query(
            "SELECT identifier FROM orthanc_transfers.transfers WHERE owner = %s AND home = %s",
            (me.number, me.number),
        )
        return frozenset(row[0] for row in rows)

    def _take(self, number: int, *, surely: bool) -> bool:
        ((mine,),) = self._database.query(
            "SELECT orthanc_transfers.adopt(%s, %s, %s)",
            (self._me().number, number, surely),
            patience=FOREVER,
        )
        return bool(mine)

    def take_rest(self) -> None:
        """Take in what is this node's by the database, and has not arrived yet. May raise what ``adopt`` does."""
        me = self._me()
        rows = self._database.query(
            "SELECT number, name, address, folder FROM orthanc_transfers.nodes WHERE adopted_by = %s ORDER BY number",
            (me.number,),
            patience=FOREVER,
        )
        self._waiting = len(rows)
        adoptions = [self._adoption(me, node_of(*row)) for row in rows]
        self._adopt(adoptions)
        for adoption in adoptions:
            self._arrived(me, adoption.node.number)
        with self._changed:
            self._waiting -= len(adoptions)
            self._changed.notify_all()

    def _arrived(self, me: Node, number: int) -> None:
        # What this node has taken in is its own from now on: should it die, the other one is not asked for again.
        self._database.query(
            "WITH gone AS (DELETE FROM orthanc_transfers.nodes WHERE number = %s AND adopted_by = %s)"
            " UPDATE orthanc_transfers.transfers SET home = %s WHERE home = %s AND owner = %s",
            (number, me.number, me.number, number, me.number),
            patience=FOREVER,
        )

    @property
    def has_rest(self) -> bool:
        """Whether there is something for ``take_rest``."""
        return self._waiting > 0

    def wait(self, seconds: float) -> None:
        """Wait until something was taken in, for so long at most."""
        with self._changed:
            if self._waiting:
                self._changed.wait(seconds)
                return
        time.sleep(seconds)

    def _adoption(self, me: Node, node: Node) -> Adoption:
        rows = self._database.query(
            "SELECT identifier, meta, plan, absent, outcome FROM orthanc_transfers.transfers"
            " WHERE owner = %s AND home = %s",
            (me.number, node.number),
            patience=FOREVER,
        )
        inherited = () if node.staging else [_inherited(*row) for row in rows]
        return Adoption(node, inherited, frozenset(row[0] for row in rows))


def packed(manifest: Manifest) -> bytes:
    """A manifest, as the database keeps it."""
    rows = [[one.id, one.size, one.md5] for one in manifest]
    return zlib.compress(json.dumps(rows, separators=(",", ":")).encode(), 1)


def _inherited(
    identifier: str, meta: str | None, plan: bytes | None, absent: list[int] | None, outcome: str | None
) -> Inherited:
    manifest = None
    if plan is not None:
        manifest = Manifest(Instance(*row) for row in json.loads(zlib.decompress(plan)))
    told: dict[str, Any] = {} if meta is None else json.loads(meta)
    return Inherited(
        identifier,
        told,
        manifest,
        None if absent is None else frozenset(absent),
        None if outcome is None else json.loads(outcome),
    )
