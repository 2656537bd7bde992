"""Joins a cluster: everything that one node needs of it, from Orthanc's configuration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orthanc_transfers.cluster.cluster_reports import ClusterReports
from orthanc_transfers.cluster.connection import connection_string
from orthanc_transfers.cluster.database import Database
from orthanc_transfers.cluster.job_keeper import JobKeeper
from orthanc_transfers.cluster.node_address import is_loopback, node_address, node_name
from orthanc_transfers.cluster.nodes import Membership, Timing
from orthanc_transfers.cluster.ownership import PostgresOwnership
from orthanc_transfers.cluster.schema import identity, prepare
from orthanc_transfers.cluster.waiting_store import waiting_store
from orthanc_transfers.core.errors import ConfigurationError, TransferError
from orthanc_transfers.core.settings import Settings
from orthanc_transfers.interfaces import Clock, InstanceStore, Job, JobQueue

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cluster:
    """This node's part of a cluster."""

    database: Database
    ownership: PostgresOwnership
    reports: ClusterReports
    secret: bytes
    """Known to the nodes only; never to be logged."""

    def waiting_store(self, store: InstanceStore) -> InstanceStore:
        """See ``waiting_store``."""
        return waiting_store(store, self.database)

    def keep_jobs(
        self, jobs: JobQueue, reload: Callable[[str, dict[str, Any]], Job], adopt_after: float
    ) -> JobKeeper:
        """See ``JobKeeper``."""
        server = self.ownership.node.name
        return JobKeeper(self.database, server, jobs, reload, adopt_after=adopt_after)

    def close(self) -> None:
        """Leave it; once nothing is written any more."""
        self.ownership.close()


def join(
    settings: Settings,
    configuration: Mapping[str, Any],
    clock: Clock,
    *,
    shared_staging: bool,
    timing: Timing = Timing(),  # noqa: B008  frozen
) -> Cluster:
    """Connect, create the tables if need be, and become a node. ``configuration`` is Orthanc's.

    Raises ``ConfigurationError``, whose text never has the password.
    """
    conninfo = connection_string(settings.cluster.connection_uri, configuration.get("PostgreSQL"))
    database = Database(conninfo)
    try:
        database.prove()
        prepare(database)
        originator, secret = identity(database)
        name, address = node_name(settings.cluster), node_address(settings.cluster, configuration, database)
        reports = ClusterReports(database, settings.report_retention, clock)
        members = Membership(
            Database(conninfo, connections=1), name, address, shared_staging=shared_staging, timing=timing
        )
        node = members.join()
    except ConfigurationError:
        database.close()
        raise
    except TransferError as error:
        database.close()
        raise ConfigurationError(str(error)) from error
    log.warning("this server is node %d of the cluster, %s, at %s", node.number, name, address)
    if not settings.cluster.address and is_loopback(address):
        log.warning(
            "no node on another machine reaches that address: set Address in Cluster of Transfers if there is one"
        )
    ownership = PostgresOwnership(database, members, reports, originator)
    return Cluster(database, ownership, reports, secret.encode())
