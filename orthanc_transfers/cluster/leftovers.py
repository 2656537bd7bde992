"""What undos could not delete, in PostgreSQL: no node deletes what another one's commit counts on.

``receiver.leftovers.Leftovers`` for a cluster; each method is one statement.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from orthanc_transfers.cluster.database import FOREVER, Database
from orthanc_transfers.cluster.nodes import Membership
from orthanc_transfers.core.errors import TransferError
from orthanc_transfers.receiver.leftovers import Fate
from orthanc_transfers.receiver.ownership import Fenced

log = logging.getLogger(__name__)


class ClusterLeftovers:
    """Implements ``Leftovers``."""

    def __init__(self, database: Database, members: Membership) -> None:
        self._database = database
        self._members = members

    def leave(self, transfer: str, instances: Collection[str]) -> None:
        ((mine,),) = self._database.query(
            "SELECT orthanc_transfers.leave_over(%s, %s, %s::text[])",
            (self._members.node.number, transfer, list(instances)),
            patience=FOREVER,
        )
        if not mine:
            self._raise_fenced()

    def begin(self, transfer: str, instance: str) -> Fate:
        ((answer,),) = self._database.query(
            "SELECT orthanc_transfers.begin_deletion(%s, %s, %s)",
            (self._members.node.number, transfer, instance),
        )
        if answer == "fenced":
            self._raise_fenced()
        return Fate(answer)

    def check(self) -> None:
        self._members.check()

    def end(self, transfer: str, instance: str) -> None:
        self._database.query(
            "UPDATE orthanc_transfers.leftovers SET deleter = NULL"
            " WHERE transfer = %s AND instance = orthanc_transfers.hash(%s) AND deleter = %s",
            (transfer, instance, self._members.node.number),
            patience=FOREVER,
        )

    def forget(self, transfer: str) -> None:
        try:
            self._database.query(
                "WITH me AS (SELECT FROM orthanc_transfers.nodes"
                " WHERE number = %s AND adopted_by IS NULL FOR KEY SHARE)"
                " DELETE FROM orthanc_transfers.leftovers WHERE transfer = %s AND EXISTS (SELECT FROM me)",
                (self._members.node.number, transfer),
                patience=0.0,
            )
        except TransferError as error:
            # What stays there names no transfer that there will ever be again.
            log.info("what was left of transfer %s stays in the cluster's database: %s", transfer, error)

    def _raise_fenced(self) -> None:
        self._members.renew()  # so that all others here learn it, too
        raise Fenced
